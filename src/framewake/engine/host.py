"""Memory of the machine itself, for engines that compute in it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys

from framewake.errors import EngineError

# Of the C library's mallopt; there are no names for them outside C.
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
_NEVER = 2**31 - 1
_MOST = 32 << 20  # bytes of a block that is kept, the most that the library takes


def keep_freed_memory() -> None:
    """Let the C library keep what tensors give back, for the next ones.

    By itself it returns every block to the system, which hands out empty pages for the next one: a third of the time
    of a decode. ``host_memory`` still counts such memory as free, because it returns it first. Very large blocks are
    returned: those pages are a hundredth of the work on them, and where sizes differ, what is kept between them would
    be of no use to any (a decode of 1.5 at full size: 2.2 instead of 3.0 GB).
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        library = ctypes.CDLL(None)
        library.mallopt(_MMAP_THRESHOLD, _MOST)
        library.mallopt(_TRIM_THRESHOLD, _NEVER)


def _return_freed_memory() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


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
