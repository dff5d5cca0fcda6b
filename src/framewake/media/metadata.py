"""What a video says about its own making: settings, versions, checkpoint, engine and time."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from framewake.errors import InputError
from framewake.request import Request, from_dict, settings
from framewake.shapes import PixelShape

_PACKAGES = ("framewake", "numpy", "Pillow", "av", "tokenizers", "safetensors")
_ENGINES = {"torch": "torch", "mindspore": "mindspore"}


def video_metadata(
    request: Request, *, checkpoint: str, engine: str, seconds: Mapping[str, float], shape: PixelShape
) -> dict[str, Any]:
    """The settings that are embedded in a video, ready for JSON.

    The picture's path is in it as it was given, folders included; ``--no-metadata`` leaves all of it out.

    Units: ``seconds`` by stage.
    """
    return {
        "request": request.to_dict(),
        "checkpoint": checkpoint,
        "engine": engine,
        "shape": shape._asdict(),
        "seconds": {stage: round(float(value), 3) for stage, value in seconds.items()},
        "versions": package_versions(engine),
    }


def package_versions(engine: str) -> dict[str, str]:
    """Versions of the packages that shape the result, without importing them."""
    framework = _ENGINES.get(engine.split(":", maxsplit=1)[0])
    names = (*_PACKAGES, framework) if framework else _PACKAGES
    found = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def request_of(metadata: Mapping[str, Any]) -> Request:
    """The request that made a video, validated, for making one like it.

    Raises: InputError when the metadata holds no usable request.
    """
    values = metadata.get("request")
    if not isinstance(values, dict):
        raise InputError("the video's settings hold no request: they were not written by framewake.")
    try:
        return from_dict(values)
    except InputError as error:
        raise InputError(f"the video's settings cannot be used: {error}") from error


def describe(metadata: Mapping[str, Any]) -> list[str]:
    """The metadata as lines for a person, tolerant of parts that are missing or strange."""
    request = _part(metadata, "request")
    names = [*(name for name in settings() if name in request), *(name for name in request if name not in settings())]
    lines = [_line(name.replace("_", " "), _shown(request[name])) for name in names if request[name] is not None]
    shape = _part(metadata, "shape")
    if shape:
        size = " x ".join(_shown(shape.get(side, "?")) for side in ("width", "height"))
        lines.append(_line("size", f"{size} px, {_shown(shape.get('frames', '?'))} frames"))
    lines += [_line(name, _shown(metadata[name])) for name in ("checkpoint", "engine") if name in metadata]
    for name in ("seconds", "versions"):
        pairs = _part(metadata, name)
        if pairs:
            text = ", ".join(f"{_shown(key)} {_shown(value)}" for key, value in pairs.items())
            lines.append(_line(name, text))
    return lines


def _part(metadata: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = metadata.get(name)
    return value if isinstance(value, dict) else {}


def _line(name: str, text: str) -> str:
    return f"{_shown(name) + ':':<19} {text}"


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    # A video comes from anywhere: control characters could rewrite the terminal that shows it.
    return "".join(character if character.isprintable() else " " for character in str(value))
