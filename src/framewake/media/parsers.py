"""One guard around the parsers of Pillow and PyAV: whatever they raise about a file becomes one of our errors."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

from PIL import Image, UnidentifiedImageError

from framewake import errors
from framewake.errors import InputError, said

MAX_PIXELS = 100_000_000

Found = TypeVar("Found")


@contextlib.contextmanager
def parsing(name: str, failure: str, *, advice: str = "") -> Iterator[None]:
    """Guards a parser of Pillow or PyAV: "NAME FAILURE (reason). ADVICE" is what a person reads.

    Raises: InputError for anything that is raised inside and is not ours.
    """
    # Our limit on size is stricter than Pillow's warning, and damaged EXIF is not worth a line either.
    with warnings.catch_warnings(), errors.parsing(InputError, f"{name} {failure}", advice):
        warnings.simplefilter("ignore")
        try:
            yield
        except (Image.DecompressionBombError, MemoryError) as error:
            raise InputError(too_big(name, said(error))) from error
        # That nothing fits a file is no reason for people, only that in another one something broke.
        except UnidentifiedImageError as error:
            raise InputError(f"{name} {failure}. {advice}".rstrip()) from error


def attempt(parse: Callable[[], Found]) -> tuple[Found | None, str]:
    """What a foreign parser finds, or None and why, where a file is of use without it."""
    try:
        with parsing("", ""):
            return parse(), ""
    except InputError as error:
        return None, said(error.__cause__ or error)


def too_big(name: str, size: str) -> str:
    """What is said of a picture beyond every use."""
    return (
        f"{name} is too big ({size}): at most {MAX_PIXELS // 1_000_000} megapixels are read. Make it smaller first; "
        "the video needs less than 2."
    )
