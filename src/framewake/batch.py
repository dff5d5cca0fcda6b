"""Batch files: one request per line, as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.demo import LORAS, PICTURES, shipped
from framewake.errors import InputError
from framewake.lora import parse_lora
from framewake.request import Request, from_dict


def read_batch(path: str | os.PathLike[str], *, common: Mapping[str, Any] | None = None) -> list[Request]:
    """The requests of a JSON lines file; empty lines are skipped.

    ``common`` holds settings for all lines, which a line may override.  A relative path of a picture
    or a LoRA in the file counts from the file's own folder, and from this one where a pipe brings the lines.

    Raises: InputError with the number of the line.
    """
    file = Path(path)
    try:
        folder = Path() if file.parts[:2] in (("/", "dev"), ("/", "proc")) else file.parent
        lines = file.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is not UTF-8 text: a batch file has one JSON object a line.") from error
    except OSError as error:
        raise InputError(f"{file}: the batch file cannot be read ({error.strerror}).") from error
    requests = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            requests.append(_request(line, folder, common or {}))
        except InputError as error:
            raise InputError(f"{file}, line {number}: {error}") from error
    if not requests:
        raise InputError(f'{file} holds no request: write one JSON object a line, such as {{"prompt": "..."}}.')
    return requests


def _request(line: str, folder: Path, common: Mapping[str, Any]) -> Request:
    try:
        values = json.loads(line, object_pairs_hook=_without_repeats, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise InputError(f"this is not JSON ({error}): write one whole object in each line.") from error
    if not isinstance(values, dict):
        raise InputError(f"expected a JSON object in {{ }}, received {line.strip()[:60]!r}.")
    if isinstance(values.get("image"), str) and values["image"]:
        values["image"] = _picture(folder, values["image"])
    if isinstance(values.get("loras"), list):
        values["loras"] = [_placed(folder, text) if isinstance(text, str) else text for text in values["loras"]]
    return from_dict({**common, **values})


def _picture(folder: Path, text: str) -> str:
    """A picture as seen from elsewhere than the file's folder; "~/..." and one that ships are the same anywhere."""
    is_shipped = not (folder / text).exists() and shipped(text, PICTURES) is not None
    return text if text.startswith("~") or "://" in text or is_shipped else str(folder / text)


def _placed(folder: Path, text: str) -> str:
    """A LoRA as seen from elsewhere than the file's folder; "~/..." and the one that ships are the same anywhere."""
    path = parse_lora(text).path if text else ""
    is_elsewhere = path.startswith("~") or shipped(path, LORAS) is not None
    if not text or (is_elsewhere and not (folder / path).exists()):
        return text
    return str(folder / text)


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"setting {repeated!r} stands there twice.")
    return values


def _refuse_constant(text: str) -> Any:
    raise InputError(f"{text} is not a number that can be used.")
