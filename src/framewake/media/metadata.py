"""What a clip says about its own making: settings, versions, checkpoint and engine."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import framewake
from framewake.console.escape import inline
from framewake.request import Request, settings
from framewake.shapes import PixelShape

_PACKAGES = ("numpy", "Pillow", "tokenizers", "safetensors", "av")


def video_metadata(request: Request, *, checkpoint: str, engine: str, shape: PixelShape) -> dict[str, Any]:
    """The settings that are embedded in a video, ready for JSON; ``request`` alone repeats it.

    Nothing in it changes from run to run, so that equal requests give equal files.  The picture's path is
    in it as it was given, folders included; ``--no-metadata`` leaves all of it out.
    """
    return {
        "framewake": framewake.__version__,
        "checkpoint": checkpoint,
        "engine": engine,
        "versions": package_versions(engine),
        "size": [shape.width, shape.height],
        "request": request.to_dict(),
    }


def package_versions(engine: str) -> dict[str, str]:
    """Versions of the engine's framework ("torch" in "torch:cpu") and of what shapes the result besides."""
    found = {}
    for name in (engine.split(":", maxsplit=1)[0], *_PACKAGES):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


COLUMN = max(map(len, settings())) + 1  # as wide as the longest name with its colon


def describe(metadata: Mapping[str, Any]) -> list[str]:
    """The metadata as lines for a person, tolerant of parts that are missing or strange."""
    request = _part(metadata, "request")
    names = [*(name for name in settings() if name in request), *(name for name in request if name not in settings())]
    lines = [row(name.replace("_", " "), _shown(request[name])) for name in names if request[name] not in (None, [])]
    size = metadata.get("size")
    if isinstance(size, list):
        lines.append(row("size", " x ".join(_shown(side) for side in size) + " px"))
    lines += [row("steps", text.removeprefix(", "))] if (text := _told_steps(metadata)) else []
    draft = _part(metadata, "draft")
    if draft:
        text = f"{_shown(draft.get('size'))}, after step {_shown(draft.get('step'))} of {_shown(draft.get('steps'))}"
        lines.append(row("draft", text))
    lines += _told_segments(metadata)
    lines += [row(name, _shown(metadata[name])) for name in ("checkpoint", "engine", "framewake") if name in metadata]
    versions = _part(metadata, "versions")
    if versions:
        text = ", ".join(f"{_shown(name)} {_shown(value)}" for name, value in versions.items())
        lines.append(row("versions", text))
    return lines


def _told_segments(metadata: Mapping[str, Any]) -> list[str]:
    """The segments of a longer clip, each with what happens in it."""
    before, segments = _part(metadata, "before"), metadata.get("segments")
    lines = [row("goes on from", _shown(before["clip"]))] if "clip" in before else []
    for number, each in enumerate(segments if isinstance(segments, list) else [], 1):
        own = each if isinstance(each, dict) else {}
        request = _part(own, "request")
        text = f"{_shown(own.get('frames'))} frames, seed {_shown(request.get('seed'))}{_told_steps(own)}"
        lines.append(row(f"segment {number}", f"{text}: {_shown(request.get('prompt'))}"))
    return lines + ([row("anchor", _shown(metadata["anchor"]))] if "anchor" in metadata else [])


def _told_steps(metadata: Mapping[str, Any]) -> str:
    """What a step cache did."""
    steps = _part(metadata, "steps")
    return f", {_shown(steps.get('computed'))} steps computed, {_shown(steps.get('skipped'))} skipped" if steps else ""


def _part(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = metadata.get(name)
    return value if isinstance(value, dict) else {}


def row(name: str, text: str) -> str:
    """A line of the list."""
    return f"{_shown(name) + ':':<{COLUMN}} {text}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    # A video comes from anywhere: control characters could rewrite the terminal that shows it.
    return inline(value)
