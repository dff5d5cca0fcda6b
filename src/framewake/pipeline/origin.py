"""Where latents were computed: what has to be the same again for a resumed clip to be the same, byte for byte."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.engine.contract import Engine
from framewake.media.metadata import package_versions


def origin_of(engine: Engine) -> dict[str, Any]:
    """Engine, device, threads and versions, ready for JSON.

    The number of threads decides in which order a CPU adds numbers up, and the processor which instructions it uses.
    """
    found: dict[str, Any] = {"engine": engine.name, "versions": package_versions(engine.name)}
    if engine.device == "cpu":
        return found | {"processor": _processor(), "threads": _threads()}
    return found | {"device memory": f"{engine.memory()['total'] / 2**30:.1f} GiB"}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed, as "threads 2, now 4"; nothing for what was not recorded."""
    found = []
    for name in sorted(then.keys() & now.keys()):
        if isinstance(then[name], Mapping) and isinstance(now[name], Mapping):
            found += differences(then[name], now[name])
        elif then[name] != now[name]:
            found.append(f"{name} {then[name]}, now {now[name]}")
    return found


def _threads() -> int:
    """How many threads a framework takes by itself."""
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if named.isdecimal() and int(named) > 0:
        return int(named)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
