"""``framewake doctor``: what this machine can do, and whether the models compute what the original does."""

from __future__ import annotations

import importlib.metadata
import json
import platform
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import framewake
from framewake import engine as engines
from framewake.app.devices import own_group, parse_devices, variables
from framewake.app.joined import following
from framewake.app.reporting import is_started
from framewake.app.start import start
from framewake.console.wrapping import fitted
from framewake.engine.contract import Engine
from framewake.errors import EngineError, FramewakeError, InputError
from framewake.golden import Row, run
from framewake.packages import install_line
from framewake.pipeline.forecast import keep_links, measured_links

GIB = 2**30
PACKAGES = ("torch", "mindspore", "numpy", "safetensors", "tokenizers", "Pillow", "av")


def describe(name: str | None, *, as_json: bool) -> int:
    """Print engines, versions, devices, free memory and disk; the exit code.

    Raises: InputError when a named engine cannot be had.
    """
    found: dict[str, Any] = {
        "framewake": framewake.__version__,
        "python": platform.python_version(),
        "packages": {package: version(package) for package in PACKAGES},
        "engines": [look_at(engine) for engine in ([name] if name else engines.installed())],
        "disk": {"folder": str(Path.cwd()), "free": shutil.disk_usage(Path.cwd()).free},
    }
    if name is not None:
        engines.get(name)
    if as_json:
        sys.stdout.write(json.dumps(found, indent=2) + "\n")
        return 0
    lines = [f"framewake {found['framewake']}, Python {found['python']}", "", "Packages"]
    lines += [f"  {package:<14}{text or 'not installed'}" for package, text in found["packages"].items()]
    lines += ["", "Engines"]
    lines += [f"  {engine_line(entry)}" for entry in found["engines"]] or [f"  none: {install_line('torch')}"]
    if name is None and found["engines"]:
        lines += [f"  auto takes {engines.get('auto').name} ({engines.get('auto').reason.removeprefix('auto: ')})"]
    lines += ["", f"Disk: {found['disk']['free'] / GIB:.1f} GiB free in {found['disk']['folder']}"]
    sys.stdout.write(fitted("\n".join(lines), sys.stdout, indent="  ") + "\n")
    return 0


def look_at(name: str) -> dict[str, Any]:
    """One engine: its device and memory, or why it does not start. Units: bytes."""
    try:
        engine = engines.get(name)
        return {"engine": engine.name, "device": engine.device, "memory": engine.memory(), "error": None}
    except FramewakeError as error:
        return {"engine": name, "device": None, "memory": None, "error": str(error)}


def engine_line(entry: dict[str, Any]) -> str:
    """One engine as a line."""
    if entry["error"] is not None:
        return f"{entry['engine']:<20}does not work: {entry['error']}"
    memory = entry["memory"]
    return f"{entry['engine']:<20}{memory['free'] / GIB:.1f} of {memory['total'] / GIB:.1f} GiB free"


def version(package: str) -> str | None:
    """The installed version of a package."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def compare(folder: str, engine_name: str, devices: str | None, *, as_json: bool) -> int:
    """Print the largest difference of every array of a golden folder; the exit code, 0 where all have passed.

    Raises: InputError, CheckpointError for a folder that cannot be used, EngineError where devices do not agree.
    """
    words = ["--golden", folder, "--engine", engine_name, *(["--json"] if as_json else [])]

    def lead(engine: Engine) -> bool:
        return compared(folder, engine, as_json=as_json)

    return together(words, engine_name, devices, lead, lambda engine: also_compared(folder, engine))


def links(engine_name: str, devices: str, *, as_json: bool) -> int:
    """Measure how fast devices exchange, print it, and keep it for ``plan``; the exit code.

    Raises: InputError for one device, EngineError where devices are not there.
    """
    if parse_devices(devices).size == 1:
        raise InputError("--devices 1: one device exchanges with nobody, name two or more.")
    words = ["--devices", devices, "--engine", engine_name, *(["--json"] if as_json else [])]
    return together(words, engine_name, devices, lambda engine: linked(engine, as_json=as_json), measured_links)


def together(
    words: list[str],
    engine_name: str,
    devices: str | None,
    lead: Callable[[Engine], bool],
    follow: Callable[[Engine], object],
) -> int:
    """Work as a group of devices, started here with ``doctor`` and these words, or by a launcher; the exit code.

    Raises: FramewakeError of any kind.
    """
    asked = None if devices is None else parse_devices(devices)
    group = own_group(asked)
    if group is None and asked is not None and asked.size > 1:
        command = [sys.executable, "-m", "framewake", "doctor", *words]
        return start(command, variables(asked, engine_name), asked.size)
    if group is None or group.leads:
        passed = lead(engines.join(engine_name))
        engines.leave()
        return 0 if passed else 1
    following(group, engine_name, follow)
    return 0


def linked(engine: Engine, *, as_json: bool) -> bool:
    """Print how fast the devices of a group exchange; a launcher's may be on several hosts, and that is not kept."""
    found, size, is_kept = measured_links(engine), engine.size(), is_started()
    if is_kept:
        keep_links(engine, size, found)
    if as_json:
        record = {"engine": engine.name, "devices": size, **found._asdict(), "is_kept": is_kept}
        sys.stdout.write(json.dumps(record) + "\n")
    else:
        use = f"; kept for `framewake plan --devices {size}`" if is_kept else ""
        text = f"{engine.name}: each of {size} devices sends {found.bytes_per_second / 1e9:.3g} GB/s to the others{use}"
        sys.stdout.write(fitted(text, sys.stdout, indent="  ") + "\n")
    return True


def also_compared(folder: str, engine: Engine) -> None:
    """Do the share of another process than the first, which prints.

    Raises: EngineError for arrays that differ too much here.
    """
    failed = [row for row in run(folder, engine) if not row.passed]
    if failed:
        raise EngineError(f"{len(failed)} arrays differ too much, {failed[0].case} {failed[0].array} among them.")


def compared(folder: str, engine: Engine, *, as_json: bool) -> bool:
    """Print the comparison; whether all arrays have passed."""
    begin = time.monotonic()
    rows = []
    for row in run(folder, engine):
        rows.append(row)
        if not as_json:
            sys.stdout.write(row_line(row) + "\n")
            sys.stdout.flush()
    failed = [row for row in rows if not row.passed]
    seconds = time.monotonic() - begin
    cases = len({row.case for row in rows})
    if as_json:
        content = {
            "engine": engine.name,
            "cases": cases,
            "passed": not failed and bool(rows),
            "seconds": round(seconds, 1),
            "rows": [json_row(row) for row in rows],
        }
        sys.stdout.write(json.dumps(content, indent=2) + "\n")
    else:
        text = f"{len(failed)} of {len(rows)} arrays differ too much" if failed else f"all {len(rows)} arrays agree"
        sys.stdout.write(f"{engine.name}: {text}, {cases} cases, {seconds:.0f} s\n")
    return not failed and bool(rows)


def row_line(row: Row) -> str:
    """One array as a line."""
    verdict = "ok" if row.passed else "FAILED"
    return f"{verdict:<7}{row.case:<28}{row.array:<28}{row.difference:>10.2e}  (tolerance {row.tolerance:.2e})"


def json_row(row: Row) -> dict[str, Any]:
    """One array for JSON, which has no infinity and no NaN: such a difference is null."""
    difference = row.difference if abs(row.difference) < float("inf") else None
    return {**row._asdict(), "difference": difference}
