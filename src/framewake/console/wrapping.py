"""Lines that end between words, as wide as the terminal is; what a person may copy stays whole."""

from __future__ import annotations

import os
import re
import unicodedata
from typing import Any

# A command between backticks is one word.
_WORD = re.compile(r"(?:`[^`]*`|[^\s`])+|`")


def fitted(text: str, stream: Any, *, indent: str = "") -> str:
    """A text for a stream: on a terminal no word is broken; lines that go on begin with ``indent``."""
    width = width_of(stream)
    return text if width is None else "\n".join(_wrapped(line, width, indent) for line in text.split("\n"))


def width_of(stream: Any) -> int | None:
    """How many letters go into a line of a terminal; None for anything that is no terminal."""
    if stream is None or not stream.isatty():
        return None
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named):
        return int(named)
    try:
        return os.get_terminal_size(stream.fileno()).columns or None
    except (OSError, ValueError):
        return None


def _wrapped(line: str, width: int, indent: str) -> str:
    if _cells(line) <= width:  # columns of a table stay where they are
        return line
    begin = line[: len(line) - len(line.lstrip())]
    done: list[str] = []
    for word in _WORD.findall(line):
        if done and _cells(done[-1]) + 1 + _cells(word) <= width:
            done[-1] += f" {word}"
        else:
            done.append(begin + (indent if done else "") + word)
    return "\n".join(done)


def _cells(text: str) -> int:
    """Columns of a terminal: Chinese signs take two."""
    return len(text) + sum(unicodedata.east_asian_width(sign) in "WF" for sign in text)
