"""A brake on wrong keys. It slows down whoever guesses, and never the one who has the right key."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections import OrderedDict

AT_ONCE, SECONDS_EACH = 20, 2.0  # wrong keys of one address that are answered at once, and until one more is
WAIT_SECONDS, MOST_WAITING = 1.0, 32  # what any further one waits for its answer, and how many may wait together
MOST_ADDRESSES = 4096


class Brake:
    """Remembers how many wrong keys came from which address; the address heard of longest ago is forgotten first."""

    def __init__(self) -> None:
        self._used: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._waiting = 0

    async def wrong(self, address: str) -> int:
        """Count a wrong key. Returns 0, or after a while the seconds after which to try again."""
        place, now = _network(address), time.monotonic()
        used, before = self._used.pop(place, (0.0, now))
        used = max(0.0, used - (now - before) / SECONDS_EACH) + 1
        self._used[place] = (min(used, AT_ONCE + 1.0), now)
        while len(self._used) > MOST_ADDRESSES:
            self._used.popitem(last=False)
        if used <= AT_ONCE:
            return 0
        if self._waiting < MOST_WAITING:  # who waits holds a connection, and those are counted too
            self._waiting += 1
            try:
                await asyncio.sleep(WAIT_SECONDS)
            finally:
                self._waiting -= 1
        return int(SECONDS_EACH)


def _network(address: str) -> str:
    """An IPv4 address, or the network of an IPv6 one: somebody's own has many addresses."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    return str(found) if found.version == 4 else str(ipaddress.ip_network((int(found) >> 64 << 64, 64)))
