"""How fast this device is, measured once for each engine and type and kept in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Dtype, Engine

SIDE = 768  # of the matrices: large enough to reach the rate of the model's own, small enough for a CPU
SECONDS = 0.3  # of measuring, for each figure
READ_BYTES = 64 << 20
FORMAT = 1


class Rates(NamedTuple):
    """Units: operations a second in a matrix product and in attention, bytes a second from disk to host."""

    products: float
    attention: float
    disk: float
    is_measured_now: bool = True


def measured_rates(engine: Engine, dtype: Dtype, weights: Path, *, cache: Path | None = None) -> Rates:
    """The rates of a device, measured unless the cache has them.

    ``weights`` is a file on the disk that the checkpoint is on. A cache that cannot be read or written costs a new
    measurement, nothing else.
    """
    place = (cache or cache_folder()) / "probe.json"
    key = device_key(engine, dtype, weights)
    known = _read(place)
    if key in known:
        products, attention, disk = known[key]
        return Rates(products, attention, disk, is_measured_now=False)
    rates = Rates(_product_rate(engine, dtype), _attention_rate(engine, dtype), _disk_rate(weights))
    _write(place, known | {key: list(rates[:3])})
    return rates


def largest_file(path: Path) -> Path:
    """The path itself, or the largest file of weights in a folder."""
    if not path.is_dir():
        return path
    return max(path.glob("*.safetensors"), key=lambda file: file.stat().st_size, default=path)


def cache_folder() -> Path:
    """The user's cache folder for this program."""
    named = os.environ.get("XDG_CACHE_HOME")
    return (Path(named) if named else Path.home() / ".cache") / "framewake"


def device_key(engine: Engine, dtype: Dtype, weights: Path) -> str:
    """A name for what was measured: engine, device, type, processor, threads, and the disk."""
    threads = os.environ.get("OMP_NUM_THREADS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    total = engine.memory()["total"] >> 30
    disk = weights.stat().st_dev if weights.exists() else 0
    text = f"{engine.name} {dtype} {platform.node()} {platform.machine()} {cores} {threads} {total} {disk}"
    return f"{engine.name} {dtype} {hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _read(place: Path) -> dict[str, list[float]]:
    try:
        content = json.loads(place.read_text(encoding="utf-8"))
        entries = content["rates"] if content["format"] == FORMAT else {}
        return {key: v for key, v in entries.items() if len(v) == 3 and all(x > 0 for x in v)}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write(place: Path, entries: dict[str, list[float]]) -> None:
    part = place.with_name(f"{place.name}.{os.getpid()}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps({"format": FORMAT, "rates": entries}, indent=1), encoding="utf-8")
        os.replace(part, place)
    except OSError:  # a read-only home: the next run measures again
        return


def _best_seconds(engine: Engine, work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs."""
    work()
    engine.synchronize()
    best, end = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < end:
        begin = time.perf_counter()
        work()
        engine.synchronize()
        best = min(best, time.perf_counter() - begin)
    return best


def _product_rate(engine: Engine, dtype: Dtype) -> float:
    side = SIDE if engine.device == "cpu" else 8 * SIDE
    x = engine.full((side, side), 0.5, dtype)
    return 2.0 * side**3 / _best_seconds(engine, lambda: engine.linear(x, x))


def _attention_rate(engine: Engine, dtype: Dtype) -> float:
    tokens, heads, width = (512, 2, 64) if engine.device == "cpu" else (8192, 24, 128)
    x = engine.full((1, tokens, heads, width), 0.5, dtype)
    return 4.0 * tokens**2 * heads * width / _best_seconds(engine, lambda: engine.attention(x, x, x, scale=0.1))


def _disk_rate(weights: Path) -> float:
    """Bytes a second through a file of weights; what the system still holds in its cache counts, as in a run."""
    if not weights.is_file():
        return 1e9
    begin, count = time.perf_counter(), 0
    with weights.open("rb", buffering=0) as file:
        while count < READ_BYTES and (piece := file.read(8 << 20)):
            count += len(np.frombuffer(piece, np.uint8).copy())
    return max(count, 1) / max(time.perf_counter() - begin, 1e-6)
