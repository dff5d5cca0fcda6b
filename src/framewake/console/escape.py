"""Text from files and other people, made harmless for a terminal; JSON stays JSON."""

from __future__ import annotations

import codecs
import re

# Control characters but tab and line feed, marks that turn the order of letters, line separators, lone surrogates.
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_BREAKS = re.compile(r"\s*[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]\s*")
ERRORS = "framewake.escape"


def escaped(text: str) -> str:
    r"""A text whose dangerous characters are written as \u001b: in a JSON string that still means the same."""
    return _UNSAFE.sub(lambda found: _code(found[0]), text)


def inline(text: object) -> str:
    """The same for a name or a value that must stay on its line."""
    return escaped(str(text).replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r"))


def one_line(text: str) -> str:
    """A message as one line: breaks become spaces."""
    return inline(_BREAKS.sub(" ", text.strip()))


def _code(characters: str) -> str:
    units = characters.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))


def _unencodable(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return _code(error.object[error.start : error.end]), error.end


codecs.register_error(ERRORS, _unencodable)
