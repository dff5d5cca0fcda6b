"""How fast devices exchange, measured once by so many of them together and kept with the other rates."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import statistics
import time
from pathlib import Path
from typing import NamedTuple

from framewake.engine.contract import Engine
from framewake.pipeline.forecast.probe import DAYS, LEAST, cache_folder, read_kept, write_kept

SENT_BYTES = 32 << 20  # by each device at a time: about what a block of a full-size step sends
TIMES = 7  # all processes have to do as many


class Links(NamedTuple):
    """Bytes a second from each device to the others, all at once, and when that was measured (seconds since 1970)."""

    bytes_per_second: float
    at: float

    @property
    def day(self) -> str:
        """When they were measured, as a date."""
        return time.strftime("%Y-%m-%d", time.localtime(self.at))


def measured_links(engine: Engine) -> Links:
    """The rate of some exchanges, the median; all processes of a group ask for it at the same time.

    Raises: PeerError when another process is gone.
    """
    others = engine.size() - 1
    count = SENT_BYTES // (4 * others)
    pieces, shapes = [engine.zeros((count,), "float32")] * engine.size(), [(count,)] * engine.size()
    found = []
    for _ in range(TIMES):
        engine.synchronize()
        begin = time.perf_counter()
        engine.exchange(pieces, shapes)()
        engine.synchronize()
        found.append(time.perf_counter() - begin)
    # The first exchange makes the connections.
    return Links(4.0 * count * others / max(statistics.median(found[1:]), LEAST), time.time())


def known_links(engine: Engine, devices: int, *, cache: Path | None = None) -> Links | None:
    """What was kept of so many devices of this kind on this machine; None when that is nothing, damaged or too old."""
    entry = read_kept((cache or cache_folder()) / "probe.json").get(_key(engine, devices), ())
    try:
        found = Links(*map(float, entry))
    except (TypeError, ValueError):
        return None
    return found if found.bytes_per_second > 0 and 0 <= time.time() - found.at < 86400 * DAYS else None


def keep_links(engine: Engine, devices: int, links: Links, *, cache: Path | None = None) -> None:
    """Keep what was measured of so many devices, where the cache can be written."""
    place = (cache or cache_folder()) / "probe.json"
    write_kept(place, read_kept(place) | {_key(engine, devices): list(links)})


def _key(engine: Engine, devices: int) -> str:
    """A name for devices of one kind on one machine, whichever of them they are."""
    place = "host" if engine.traits.is_host else "device"
    total, version = engine.memory()["total"] >> 30, importlib.metadata.version(engine.kind)
    text = f"{version} {platform.node()} {total}"
    return f"links {engine.kind} {place} {devices} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
