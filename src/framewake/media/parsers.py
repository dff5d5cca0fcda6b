"""One guard around the parsers of Pillow and PyAV: whatever they raise over a file becomes an error of ours."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from framewake.errors import FramewakeError, InputError

MAX_PIXELS = 100_000_000

Found = TypeVar("Found")


@contextlib.contextmanager
def parsing(name: str, failure: str, *, advice: str = "") -> Iterator[None]:
    """Guards a foreign parser: "NAME FAILURE (reason). ADVICE" is what a person reads.

    Only calls of the parser belong inside: a mistake of ours would be told as the file's.

    Raises: InputError for anything that is raised inside and is not ours.
    """
    try:
        with warnings.catch_warnings():
            # Our limit on size is stricter than Pillow's warning, and damaged EXIF is not worth a line either.
            warnings.simplefilter("ignore")
            yield
    except FramewakeError:
        raise
    except (Image.DecompressionBombError, MemoryError) as error:
        raise InputError(too_big(name, reason(error))) from error
    except Exception as error:  # what a damaged file makes a parser raise is in no contract of theirs
        # That nothing fits a file is no reason for people, only that in another one something broke.
        why = "" if isinstance(error, UnidentifiedImageError) else f" ({reason(error)})"
        raise InputError(f"{name} {failure}{why}. {advice}".rstrip()) from error


def attempt(parse: Callable[[], Found]) -> tuple[Found | None, str]:
    """What a foreign parser finds, or None and why, where a file is of use without it."""
    try:
        with parsing("", ""):
            return parse(), ""
    except InputError as error:
        return None, reason(error.__cause__ or error)


def too_big(name: str, size: str) -> str:
    """What is said of a picture beyond every use."""
    return (
        f"{name} is too big ({size}): at most {MAX_PIXELS // 1_000_000} megapixels are read. Make it smaller first; "
        "the video needs less than 2."
    )


def reason(error: BaseException) -> str:
    """Why, in the parser's own words: one short line without a full stop at its end."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    line = "".join(letter if letter.isprintable() else " " for letter in str(text)).strip()
    return (line if len(line) <= 200 else line[:197] + "...").rstrip(".")
