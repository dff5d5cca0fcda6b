"""The clips of a folder with their captions, every mistake found before any work starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from framewake.errors import InputError
from framewake.media.clips import ANIMATIONS, VIDEOS, is_clip

LIST = "metadata.jsonl"
LISTED = 4
HOW = f"put a caption into a .txt file of the clip's name, or all of them into {LIST}"


class Example(NamedTuple):
    """A clip and what happens in it. ``digest`` is that of the clip's content, whatever its name."""

    path: Path
    caption: str
    digest: str


def read_examples(folder: Path) -> list[Example]:
    """The clips of a folder in the order of their names, or those that its ``metadata.jsonl`` lists.

    Raises: InputError for a folder without clips, missing captions and files, and lines that cannot be read.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}: name a folder with clips and their captions.")
    table = folder / LIST
    listed = _listed(table) if table.exists() else _found(folder)
    if not listed:
        raise InputError(f"{folder} holds no clips ({', '.join(VIDEOS + ANIMATIONS)} or folders of .png files).")
    silent = [path.name for path, caption in listed if not caption.strip()]
    if silent:
        raise InputError(f"{folder}: {some(silent)} {'has' if len(silent) == 1 else 'have'} no caption: {HOW}.")
    return [Example(path, caption.strip(), content_digest(path)) for path, caption in listed]


def content_digest(path: Path) -> str:
    """A clip's content as a short text; of a folder, its frames in order.

    Raises: InputError when it cannot be read.
    """
    found = hashlib.sha256()
    try:
        for file in sorted(path.glob("*.png")) if path.is_dir() else [path]:
            with file.open("rb") as content:
                while piece := content.read(1 << 20):
                    found.update(piece)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}).") from error
    return found.hexdigest()


def together(problems: list[str], count: int) -> InputError:
    """One error for everything that is wrong with some of ``count`` clips."""
    more = f" And {len(problems) - LISTED} more." if len(problems) > LISTED else ""
    start = "" if count == 1 else f"{len(problems)} of {count} clips cannot be used. "
    return InputError(start + " ".join(problems[:LISTED]) + more)


def _found(folder: Path) -> list[tuple[Path, str]]:
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_clip(path))
    return [(path, _text(path.with_suffix(".txt") if path.is_file() else path.with_name(path.name + ".txt")))
            for path in paths]  # fmt: skip


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is no text in UTF-8 ({error}).") from error


def _listed(table: Path) -> list[tuple[Path, str]]:
    found = []
    for number, line in _lines(table):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{table}, line {number} is not JSON ({error}).") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str):
            raise InputError(f'{table}, line {number}: expected {{"file": "clip.mp4", "caption": "..."}}.')
        caption = entry.get("caption", "")
        path = table.parent / entry["file"]
        if not isinstance(caption, str):
            raise InputError(f"{table}, line {number}: the caption is {caption!r}, expected text.")
        if not path.exists():
            raise InputError(f"{table}, line {number}: there is no {path}.")
        if not is_clip(path):
            raise InputError(
                f"{table}, line {number}: {path} is no clip, which ends in {', '.join(VIDEOS + ANIMATIONS)} or is a "
                f"folder of .png files."
            )
        found.append((path, caption))
    return found


def _lines(table: Path) -> Iterator[tuple[int, str]]:
    return ((number, line) for number, line in enumerate(_text(table).splitlines(), 1) if line.strip())


def some(names: list[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more
