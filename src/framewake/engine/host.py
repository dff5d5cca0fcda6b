"""Memory of the machine itself, for engines that compute in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import time

from framewake.errors import EngineError

# Of the C library's mallopt; there are no names for them outside C.
_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
_NEVER = 2**31 - 1
SPARE = 1 << 30  # bytes of freed memory that stay, where somebody looks
PAUSE = 10.0  # seconds: what is returned has to be taken anew, page by page
_LAST = {"returned": -PAUSE}


def keep_freed_memory() -> None:
    """Let the C library keep what tensors give back, for the next ones.

    By itself it returns every large block to the system, which hands out empty pages for the next one: a third of
    the time of a decode. ``host_memory`` still counts such memory as free, because it returns it first.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_MAX, 0)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)


def bound_freed_memory() -> None:
    """Return what is kept where it has become too much: tensors of many sizes do not fit into each other's places."""
    now = time.monotonic()
    if now < _LAST["returned"] + PAUSE:
        return
    with contextlib.suppress(OSError, AttributeError, ValueError):  # before glibc 2.33 it does not tell what is in use
        inquire = ctypes.CDLL(None).mallinfo2
        inquire.restype = _InUse
        if _own_memory() - inquire().bytes > SPARE:
            _return_freed_memory()
            _LAST["returned"] = now


class _InUse(ctypes.Structure):
    """The C library's ``struct mallinfo2``: ten sizes, of which the eighth is what is handed out."""

    _fields_ = [(name, ctypes.c_size_t) for name in (*"abcdefg", "bytes", "i", "j")]


def _return_freed_memory() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _own_memory() -> int:
    """Bytes of this process that are of no file."""
    with open("/proc/self/statm", encoding="ascii") as statm:
        _, resident, shared, *_ = map(int, statm.read().split())
    return (resident - shared) * os.sysconf("SC_PAGE_SIZE")


def host_memory() -> dict[str, int]:
    """Memory of this machine and of this process.

    Units: bytes under ``free``, ``total``, ``used`` and ``peak``.
    Raises: EngineError where the system does not tell.
    """
    _return_freed_memory()
    try:
        import resource  # not on Windows

        if sys.platform.startswith("linux"):
            return _linux(resource)
        page = os.sysconf("SC_PAGE_SIZE")
        total = page * os.sysconf("SC_PHYS_PAGES")
        free = page * os.sysconf("SC_AVPHYS_PAGES") if "SC_AVPHYS_PAGES" in os.sysconf_names else None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    except (ImportError, OSError, ValueError, KeyError) as error:
        raise EngineError(
            f"this system ({sys.platform}) does not tell how much memory is free ({error}). "
            "Expected Linux or macOS; leave memory limits unset here."
        ) from error
    # Neither the present size nor, on macOS, the free memory is told without a further package: the peak is an
    # upper bound of the one, and what lies above it an estimate of the other.
    return {"free": max(total - peak, 0) if free is None else free, "total": total, "used": peak, "peak": peak}


def _linux(resource) -> dict[str, int]:
    fields = {}
    with open("/proc/meminfo", encoding="ascii") as lines:
        for line in lines:
            name, value = line.split(":")
            fields[name] = int(value.split()[0]) * 1024
    with open("/proc/self/statm", encoding="ascii") as statm:
        used = int(statm.read().split()[1]) * resource.getpagesize()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # kibibytes here, bytes on macOS
    return {"free": fields["MemAvailable"], "total": fields["MemTotal"], "used": used, "peak": max(peak, used)}
