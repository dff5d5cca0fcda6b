"""Where one part's weights go, and in which pieces it works."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from framewake.engine.contract import Engine
from framewake.errors import InputError, ResourceError
from framewake.pipeline.forecast.cost import Weights
from framewake.setting import shown

GIB = 2**30
UNITS = {"K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


class Placement(NamedTuple):
    """Where a part's weights are and in which pieces it works; ``part`` is its role. Units: bytes on the device.

    ``slab_numbers``: the decoder works through a tile a few frames at a time, of so many numbers. ``is_shared``:
    each device of a clip keeps a part of every block, or streams that where it is both.
    """

    is_streamed: bool
    chunk_tokens: int | None
    weights: int
    work: int
    reason: str
    slab_numbers: int | None = None
    part: str = ""
    is_shared: bool = False

    @property
    def peak(self) -> int:
        """Bytes while the part works."""
        return self.weights + self.work


def fitting(
    held: Weights, sizes: list[tuple[int | None, int]], room: int, *, has_streams: bool, devices: int = 1
) -> Placement:
    """Resident before shared by the devices, before shared and streamed, before streamed; whole before chunks."""
    tried = [
        Placement(False, chunk, held.whole, work, f"{gib(held.whole + work)} fit into {gib(room)}")
        for chunk, work in sizes
    ]
    if has_streams:
        why = f"resident weights of {gib(held.whole)} do not fit into {gib(room)} beside the work"
        if devices > 1:
            parts = {False: held.shared(devices), True: held.shared_and_streamed(devices)}
            tried += [
                Placement(is_streamed, chunk, part, work, why, is_shared=True)
                for is_streamed, part in parts.items()
                for chunk, work in sizes
            ]
        tried += [Placement(True, chunk, held.streamed, work, why) for chunk, work in sizes]
    return next((place for place in tried if place.peak <= room), min(tried, key=lambda place: place.peak))


def said(place: Placement) -> str:
    """A part and its placement, with its reason."""
    ways = ["shared by the devices"] * place.is_shared + ["streamed"] * place.is_streamed
    how = " and ".join(ways) or "resident"
    if place.chunk_tokens is not None:
        how += f", {place.chunk_tokens} tokens at a time"
    if place.slab_numbers is not None:
        how += ", a few frames at a time"
    return f"{place.part}: {how} ({place.reason})"


def shortage(engine: Engine, place: Placement, *, room: int) -> str:
    """The sentence that refuses a part; what the process holds before it begins is in no part's need."""
    return (
        f"the {place.part} needs {gib(place.peak)} on {engine.name} at the least ({gib(place.weights)} for weights) "
        f"and may take {gib(room)} beside the {gib(engine.memory()['used'])} that this process holds."
    )


def gib(count: float) -> str:
    """Bytes as a person reads them."""
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


def about(seconds: float) -> str:
    """A forecast of time as a person reads it, with two figures: "0.43 s", "3.6 min", "14 h"."""
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds / size < 99.5:
            return f"{seconds / size:.2g} {unit}"
    return f"{seconds / 3600:.0f} h"


def parse_memory(text: str | None) -> int | None:
    """Bytes from a text such as "8GB" (10^9), "8GiB" (2^30), "500m" or "7,5 GB"; None is no limit.

    Raises: InputError for anything else, and for a number without a unit.
    """
    if text is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+|,\d\d?)?)\s*([KMGT]I?)?B?", text.strip().upper())
    count = 0.0 if match is None else float(match[1].replace(",", "."))
    if match is None or count <= 0:
        raise InputError(f"--memory is {shown(text)}: write a size above 0 such as 8GB, 7.5GiB or 500MB.")
    if match[2] is None:
        raise InputError(f"--memory is {shown(text)}, which is a number of bytes: did you mean {match[1]}GB?")
    return int(count * UNITS[match[2]])


@contextlib.contextmanager
def memory_told(engine: Engine, stage: str) -> Iterator[None]:
    """Where a framework runs out of memory, the error says so.

    Raises: ResourceError.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # Frameworks have no common error for this; all of them say it in words.
        if not isinstance(error, MemoryError) and "memory" not in str(error).lower():
            raise
        raise out_of_memory(engine, stage) from error


def out_of_memory(engine: Engine, stage: str) -> ResourceError:
    """The error for a framework that found no more memory; how much it wanted, it does not tell."""
    free = engine.memory()["free"]
    return ResourceError(
        f"{engine.name} ran out of memory in the stage {stage!r}, {free / GIB:.1f} GiB are free now. Take fewer "
        "frames, a smaller --resolution, or a device with more memory.",
        bytes_needed=free + 1,
        bytes_free=free,
    )
