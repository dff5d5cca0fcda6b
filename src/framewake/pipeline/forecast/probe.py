"""How fast this device is, measured once for each engine and type and kept in the user's cache folder."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import mmap
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.config import DiTConfig, VAEConfig
from framewake.engine.contract import Dtype, Engine
from framewake.engine.forks import check_process
from framewake.errors import DiskFullError, InputError, UnwritableError
from framewake.lasting import read_record, write_record
from framewake.models.dit import DiT
from framewake.models.vae import CausalVAE
from framewake.pipeline.forecast.pace import (
    Clock,
    Line,
    Makes,
    Measure,
    Pace,
    fresh_bytes,
    measured_pace,
    random_tensor,
)

SIDE = 768  # of the matrices: large enough to reach the rate of the model's own, small enough for a CPU
SECONDS = 0.15  # of measuring, for each figure
READ_BYTES = 64 << 20
FRESH_BYTES = 16 << 20  # of memory that is used for the first time, a few times over
LEAST = 1e-9  # seconds: a coarse clock may see none at all
MEASURABLE = 0.2  # seconds: the system counts processor time in hundredths
FORMAT = 6
DAYS = 30  # after which a device is measured again: drivers, clocks and neighbours change
BUSY_DAYS = 1 / 24  # the same for figures from a busy machine
BUSY = 0.15  # share of the processors that other programs may take while something is measured on a CPU


class Rates(NamedTuple):
    """Units: operations a second in a matrix product and in attention, bytes a second from disk to host.

    ``fresh``: bytes a second of memory that is used for the first time, 0 where that is not known or does not matter.
    ``pace``: how long the checkpoint's own parts take. ``busy`` is the share of the processors that other programs
    took meanwhile: the figures are too low then, and are soon measured again. ``busy_now`` is what they take when a
    forecast is made: a run takes longer then.
    """

    products: float
    attention: float
    disk: float
    is_measured_now: bool = True
    pace: Pace | None = None
    busy: float = 0.0
    fresh: float = 0.0
    busy_now: float = 0.0


class ProbedParts(NamedTuple):
    """What a pace is measured for: the models' shapes, types and classes."""

    configs: tuple[DiTConfig, VAEConfig]
    dtypes: tuple[Dtype, Dtype]
    makes: Makes = (DiT, CausalVAE)


def measured_rates(
    engine: Engine,
    dtype: Dtype,
    weights: Path,
    *,
    parts: ProbedParts | None = None,
    cache: Path | None = None,
    clock: Clock = time.perf_counter,
) -> Rates:
    """The rates of a device, measured unless the cache has them, is recent, and was made on an idle machine.

    ``weights`` is a file on the disk that the checkpoint is on; with ``parts`` their pace belongs to the rates. A
    cache that cannot be read or written costs a new measurement, nothing else.
    """
    place = (cache or cache_folder()) / "probe.json"
    key = device_key(engine, dtype, weights, parts=parts)
    known = read_kept(place)
    found = _known(known.get(key), has_pace=parts is not None)
    if found is not None:
        return found._replace(busy_now=busy_since(_BEGIN)) if engine.traits.is_host else found
    check_process()
    before = taken()
    width = None if parts is None else parts.configs[0].head_dim
    rates = Rates(
        _product_rate(engine, dtype, clock), _attention_rate(engine, dtype, clock, width), _disk_rate(weights, clock)
    )
    if engine.traits.is_host:
        rates = rates._replace(fresh=_fresh_rate(clock))
    if parts is not None:
        measure = Measure(clock, rates.attention, rates.fresh)
        pace = measured_pace(engine, parts.configs, parts.dtypes, measure=measure, makes=parts.makes)
        rates = rates._replace(pace=pace)
    rates = rates._replace(busy=busy_since(before) if engine.traits.is_host else 0.0)
    write_kept(place, known | {key: {"at": time.time(), "rates": rates_to_plain(rates)}})
    return rates


def rates_to_plain(rates: Rates) -> dict[str, Any]:
    """Rates as values for JSON."""
    pace = None if rates.pace is None else [list(line) for line in rates.pace]
    return {**rates._asdict(), "pace": pace}


def rates_from_plain(values: dict[str, Any]) -> Rates:
    """Rates from what ``rates_to_plain`` made.

    Raises: KeyError, TypeError, ValueError for anything else.
    """
    pace = None
    if values["pace"]:
        lines = (Line(*map(float, line)) for line in values["pace"])
        outside, double, single, encode, decode = lines
        pace = Pace(outside, double, single, encode, decode)
    products, attention, disk = (float(values[name]) for name in ("products", "attention", "disk"))
    if min(products, attention, disk) <= 0:
        raise ValueError("a rate is not positive")
    return Rates(
        products,
        attention,
        disk,
        False,
        pace,
        float(values["busy"]),
        float(values["fresh"]),
        float(values.get("busy_now", 0.0)),
    )


def _known(entry: Any, *, has_pace: bool) -> Rates | None:
    """Rates from the cache, None when they are damaged, too old, or from a busy machine."""
    try:
        rates, age = rates_from_plain(entry["rates"]), time.time() - entry["at"]
    except (KeyError, TypeError, ValueError):
        return None
    is_recent = 0 <= age < 86400 * (BUSY_DAYS if rates.busy > BUSY else DAYS)
    return rates if is_recent and (rates.pace is not None or not has_pace) else None


class Taken(NamedTuple):
    """Processor seconds of everything and of this process, and the time."""

    everything: float
    own: float
    at: float


def taken() -> Taken | None:
    """Processor seconds of everything and of this process, and the time; None where nobody tells."""
    try:
        with open("/proc/stat", encoding="ascii") as lines:
            user, nice, system, _idle, _waiting, *rest = (int(text) for text in lines.readline().split()[1:9])
        everything = (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")
        return Taken(everything, time.process_time(), time.perf_counter())
    except (OSError, ValueError):
        return None


def busy_since(before: Taken | None) -> float:
    """Share of the processors that others took since."""
    after = taken()
    if before is None or after is None or after.at - before.at < MEASURABLE:
        return 0.0
    others = after.everything - before.everything - (after.own - before.own)
    return min(1.0, max(0.0, others / ((after.at - before.at) * (os.cpu_count() or 1))))


_BEGIN = taken()  # a program looks at its machine while it imports its framework


def busy_note(rates: Rates) -> str | None:
    """A sentence when a forecast cannot be relied on, because the machine is busy with other programs."""
    if rates.busy_now > BUSY:
        return f"other programs take {rates.busy_now:.0%} of the processors now: it may take several times as long."
    if rates.busy > BUSY:
        return f"other programs took {rates.busy:.0%} of the processors when the speed was measured: it may be quicker."
    return None


def largest_file(path: Path) -> Path:
    """The path itself, or the largest file of weights in a folder."""
    if not path.is_dir():
        return path
    return max(path.glob("*.safetensors"), key=lambda file: file.stat().st_size, default=path)


def cache_folder() -> Path:
    """The user's cache folder for this program."""
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "framewake"


def device_key(engine: Engine, dtype: Dtype, weights: Path, *, parts: ProbedParts | None = None) -> str:
    """A name for what was measured: engine and its version, device, type, processor, threads, disk, models."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    total = engine.memory()["total"] >> 30
    disk = weights.stat().st_dev if weights.exists() else 0
    version = importlib.metadata.version(engine.kind)
    text = f"{engine.name} {version} {dtype} {platform.node()} {platform.machine()} {cores} {threads} {total} {disk}"
    text += "" if parts is None else f" {parts.configs} {parts.dtypes}"
    return f"{engine.name} {dtype} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def read_kept(place: Path) -> dict[str, Any]:
    """What earlier programs have measured, by key; nothing where the file is missing, damaged or of another format."""
    try:
        content = read_record(place)
        return dict(content["rates"]) if content["format"] == FORMAT else {}
    except (InputError, ValueError, KeyError, TypeError):
        return {}


def write_kept(place: Path, entries: dict[str, Any]) -> None:
    """Keep what was measured, where that can be done."""
    # A read-only home: the next run measures again.
    with contextlib.suppress(OSError, UnwritableError, DiskFullError):
        place.parent.mkdir(parents=True, exist_ok=True)
        write_record(place, {"format": FORMAT, "rates": entries})


def _usual_seconds(engine: Engine, work: Callable[[], object], clock: Clock) -> float:
    """Seconds of a run, the median of several: what a clip pays, other than the best one."""
    work()
    engine.synchronize()
    found: list[float] = []
    end = clock() + SECONDS
    while not found or clock() < end:
        begin = clock()
        work()
        engine.synchronize()
        found.append(clock() - begin)
    return max(statistics.median(found), LEAST)


def _product_rate(engine: Engine, dtype: Dtype, clock: Clock) -> float:
    side = SIDE if engine.traits.is_host else 8 * SIDE
    x = random_tensor(engine, (side, side), dtype)
    return 2.0 * side**3 / _usual_seconds(engine, lambda: engine.linear(x, x), clock)


def _attention_rate(engine: Engine, dtype: Dtype, clock: Clock, width: int | None) -> float:
    tokens, heads, usual = (512, 2, 64) if engine.traits.is_host else (8192, 24, 128)
    width = width or usual
    x = random_tensor(engine, (1, tokens, heads, width), dtype)
    work = _usual_seconds(engine, lambda: engine.attention(x, x, x, scale=0.1), clock)
    return 4.0 * tokens**2 * heads * width / work


def _disk_rate(weights: Path, clock: Clock) -> float:
    """Bytes a second through a file of weights; what the system still holds in its cache counts, as in a run."""
    if not weights.is_file():
        return 1e9
    begin, count = clock(), 0
    with weights.open("rb", buffering=0) as file:
        while count < READ_BYTES and (piece := file.read(8 << 20)):
            count += len(np.frombuffer(piece, np.uint8).copy())
    return max(count, 1) / max(clock() - begin, 1e-6)


def _fresh_rate(clock: Clock) -> float:
    """Bytes a second of memory that the system hands out page by page, emptied, when it is first written to."""
    found = []
    for _ in range(3):
        held = mmap.mmap(-1, FRESH_BYTES)
        pages: np.ndarray = np.frombuffer(held, np.uint8)[:: mmap.PAGESIZE]
        before, begin = fresh_bytes(), clock()
        pages[:] = 1
        seconds, count = clock() - begin, fresh_bytes() - before
        found.append((count or FRESH_BYTES) / max(seconds, LEAST))
        del pages
        held.close()
    return statistics.median(found)
