"""The sockets of ``framewake serve``, opened before anything is loaded: a port in use is reported at once."""

from __future__ import annotations

import contextlib
import errno
import os
import socket

from framewake.errors import InputError
from framewake.setting import shown

_BACKLOG = 2048
_TRIED = 20  # ports above a taken one, for the advice
_NOT_HERE = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets at every address of a host; port 0 takes a free one, the same for all.

    They listen from now on, so that a second server at the same port is refused while this one still loads; whoever
    connects meanwhile waits.

    Raises: InputError that says why the address cannot be had.
    """
    if not host.strip("[]"):  # for the system it would mean every address
        raise InputError("--host is empty: name an address of this machine, such as 127.0.0.1.")
    addresses = _addresses(host, port)
    opened: list[socket.socket] = []
    missed: OSError | None = None
    try:
        for family, place in addresses:
            try:
                opened.append(_opened(family, (place[0], port, *place[2:])))
            except OSError as error:
                if error.errno not in _NOT_HERE:
                    raise
                missed = error  # localhost is ::1 too, also where there is no IPv6
                continue
            port = opened[0].getsockname()[1]
        if not opened and missed is not None:
            raise missed
    except OSError as error:
        for each in opened:
            each.close()
        raise InputError(_refusal(error, host, port)) from error
    return opened


def address_of(host: str, opened: list[socket.socket]) -> str:
    """The server's address as a browser takes it."""
    bare = host.strip("[]")
    return f"http://{f'[{bare}]' if ':' in bare else bare}:{opened[0].getsockname()[1]}"


def _addresses(host: str, port: int) -> list[tuple[int, tuple]]:
    try:
        found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, ValueError) as error:  # ValueError: no name at all, such as one with a zero byte
        advice = "name an address of this machine, 127.0.0.1 for this machine only, or 0.0.0.0 for all of its addresses"
        if "/" in host or host.count(":") == 1:
            advice = "name a host without http:// and without a port, which is --port"
        reason = getattr(error, "strerror", None) or "no host name"
        raise InputError(f"--host {shown(host)} cannot be looked up ({reason}): {advice}.") from error
    return [(family, place) for family, _, _, _, place in dict.fromkeys(found)]


def _opened(family: int, place: tuple) -> socket.socket:
    # Without its protocol, asyncio would not know it for TCP, and small answers would wait 40 ms for each other.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # a server that has just ended must not keep its port from the next one
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(place)
        made.listen(_BACKLOG)
    except BaseException:
        made.close()
        raise
    return made


def _refusal(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        free = _free_port(host, port)
        return f"port {port} of {host} is in use: {f'add --port {free}' if free else 'choose another --port'}."
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"port {port} needs special rights: choose one above 1023, such as --port 7860."
    if error.errno in _NOT_HERE:
        return f"--host {host} is no address of this machine: name one that is, or 0.0.0.0 for all of them."
    return f"{host}, port {port}: nothing can listen there ({error.strerror})."


def _free_port(host: str, port: int) -> int | None:
    for near in range(port + 1, min(port + _TRIED, 65535) + 1):
        with contextlib.suppress(OSError):
            for family, place in _addresses(host, near):
                _opened(family, place).close()
            return near
    return None
