"""The clips of a folder with their captions, every mistake found before any work starts and told at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.errors import InputError
from framewake.media.clips import ANIMATIONS, VIDEOS, Extent, is_clip, is_picture, look_at
from framewake.train.cache import Cache, key_of
from framewake.train.use import Use

LIST = "metadata.jsonl"
ENDING = ".txt"
LISTED = 4
MOST_TOLD = 20  # mistakes in one message
HOW = f"put a caption into a .txt file of the clip's name, or all of them into {LIST}"
NOTHING_TO_LEARN = (
    "a picture teaches a model that animates pictures nothing, as the first frame is given to it: train on clips"
)


class Listed(NamedTuple):
    """A clip and its caption as a data set names them, and how the clip is used."""

    path: Path
    caption: str
    use: Use


class Example(NamedTuple):
    """Some frames of a clip, and what happens in them.

    ``digest`` is that of the clip's content, whatever its name; ``start`` and ``rate`` are as ``read_clip`` has them.
    Units: ``size`` is height and width in pixels, as trained on.
    """

    path: Path
    caption: str
    digest: str
    frames: int
    size: tuple[int, int]
    start: int = 0
    rate: float = 1.0
    batch: int = 1
    repeats: int = 1


class Mistakes:
    """What is wrong with a data set, gathered so that all of it is told in one error."""

    def __init__(self, place: Path) -> None:
        self._place = place
        self._found: dict[str, list[str]] = {}

    def add(self, what: str, advice: str = "") -> None:
        """Note a mistake; those that ask for the same are told together."""
        self._found.setdefault(advice, []).append(what.rstrip("."))

    def check(self) -> None:
        """End the run where there are some.

        Raises: InputError with the first of them and their count.
        """
        count, left = sum(map(len, self._found.values())), MOST_TOLD
        told = [f"{self._place}: {count} mistakes."] if count > 1 else []
        for advice, found in self._found.items():
            here = found[: max(left, 0)]
            if advice and here:
                here = [f"{'; '.join(here)}: {advice}"]
            told += [text if text.endswith("?") else f"{text}." for text in here]
            left -= len(found)
        told += [f"And {-left} more."] if left < 0 else []
        if count:
            raise InputError(" ".join(told))


def read_folder(folder: Path, use: Use, mistakes: Mistakes) -> list[Listed]:
    """The clips of a folder in the order of their names, or those that its ``metadata.jsonl`` lists.

    Raises: InputError for a folder without clips.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise InputError(f"{folder} {what}: name a folder with clips and their captions, or a .toml file.")
    table = folder / LIST
    if table.exists():
        return read_list(table, "file", use, mistakes, advice=HOW)
    found = found_in(folder, use, mistakes, ending=ENDING, advice=HOW)
    if not found and use.takes_pictures:
        found = found_in(folder, use, mistakes, ending=ENDING, advice=HOW, is_fit=is_picture)
    if not found:
        what = f"no clips ({', '.join(VIDEOS + ANIMATIONS)} or folders of .png files)"
        only = f", only pictures, and {NOTHING_TO_LEARN}" if any(map(is_picture, folder.iterdir())) else ""
        raise InputError(f"{folder} holds {what}{only}.")
    return found


def found_in(
    folder: Path, use: Use, mistakes: Mistakes, *, ending: str, advice: str, is_fit: Any = is_clip
) -> list[Listed]:
    """The clips of a folder with the captions beside them, in files of their names with this ending."""
    paths = sorted(path for path in folder.iterdir() if not path.name.startswith(".") and is_fit(path))
    texts: dict[Path, Path] = {}
    found = []
    for path in paths:
        text = path.with_suffix(ending) if path.is_file() else path.with_name(path.name + ending)
        if text in texts:
            other = texts[text].name
            mistakes.add(f"{other} and {path.name} share the caption {text.name}", "give each clip a name of its own")
            continue
        texts[text] = path
        found += _captioned(path, _text(text, mistakes), use, mistakes, advice=advice)
    return found


def read_list(table: Path, key: str, use: Use, mistakes: Mistakes, *, advice: str) -> list[Listed]:
    """The clips that a file of JSON lists, a line each: ``key`` names the path, "caption" the text."""
    found: list[Listed] = []
    before: dict[tuple[str, str], int] = {}
    expected = f'expected {{"{key}": "clip.mp4", "caption": "..."}}'
    for number, line in _lines(table, mistakes):
        where = f"{table}, line {number}"
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            mistakes.add(f"{where} is not JSON ({error})", expected)
            continue
        if not isinstance(entry, dict) or not isinstance(entry.get(key), str):
            mistakes.add(f"{where} names no clip", expected)
            continue
        caption = entry.get("caption", "")
        path = existing(Path(entry[key]), table.parent)
        if not isinstance(caption, str):
            mistakes.add(f"{where}: the caption is {caption!r}", expected)
        elif not path.exists():
            mistakes.add(f"{where}: there is no {path}", "correct the path, or take out the line")
        elif not (is_clip(path) or (use.takes_pictures and is_picture(path))):
            kinds = f"a clip ends in {', '.join(VIDEOS + ANIMATIONS)} or is a folder of .png files"
            mistakes.add(f"{where}: {path} is no clip", NOTHING_TO_LEARN if is_picture(path) else kinds)
        elif (entry[key], caption) in before:
            mistakes.add(f"{where} is line {before[entry[key], caption]} again", "take out one of them")
        else:
            before[entry[key], caption] = number
            found += _captioned(path, caption, use, mistakes, advice=advice)
    return found


def existing(path: Path, folder: Path) -> Path:
    """A path as it is, or beside the file that names it; trainers take the working folder first."""
    return path if path.is_absolute() or (path.exists() and not (folder / path).exists()) else folder / path


def looked_at(listed: list[Listed], mistakes: Mistakes, cache: Cache) -> list[Example]:
    """What is trained on of each clip: every frame that is needed is decoded once, and what was seen is kept."""
    found: list[Example] = []
    digests: dict[Path, str] = {}
    for path, caption, use in listed:
        try:
            digests[path] = digests.get(path) or content_digest(path)
            look = _look(path, digests[path], use.most, cache)
            size = use.size(look.height, look.width)
        except InputError as error:
            mistakes.add(str(error))
            continue
        rate = use.rate_of(look.fps)
        cuts = use.cuts(look.frames, rate)
        for start, frames in cuts:
            found.append(Example(path, caption, digests[path], frames, size, start, rate, use.batch, use.repeats))
        if not cuts:
            what, advice = use.shortage(look.frames, rate)
            mistakes.add(f"{path} {what}", advice)
    return found


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


def some(names: list[str]) -> str:
    """The first few of many names."""
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


def _captioned(path: Path, caption: str | None, use: Use, mistakes: Mistakes, *, advice: str) -> list[Listed]:
    if caption is not None and caption.strip():
        return [Listed(path, caption.strip(), use)]
    if caption is not None:
        mistakes.add(f"{path.name} has no caption", advice)
    return []


def _look(path: Path, digest: str, most: int | None, cache: Cache) -> Extent:
    key = key_of("look", {"content": digest, "most": most})
    if not cache.has(key):
        cache.write(key, {"look": np.asarray(look_at(path, most=most), np.float32)})
    frames, height, width, fps = cache.read(key)["look"].tolist()
    return Extent(int(frames), int(height), int(width), fps)


def _text(path: Path, mistakes: Mistakes) -> str | None:
    """The text of a file, "" where there is none; None where it cannot be read, which is a mistake."""
    try:
        return path.read_text(encoding="utf-8-sig") if path.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        mistakes.add(f"{path} is no text in UTF-8 ({error})", "save it as UTF-8")
        return None


def _lines(table: Path, mistakes: Mistakes) -> Iterator[tuple[int, str]]:
    text = _text(table, mistakes) or ""
    return ((number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip())
