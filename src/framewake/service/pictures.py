"""Small pictures for people who watch: the preview of a step, the thumbnail of a clip."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from framewake.errors import InputError
from framewake.media.image import DAMAGE, FORMATS
from framewake.service.refusals import TooLarge
from framewake.service.storage import write_whole

THUMBNAIL_PX = 320
PREVIEW_PX = 256


def write_preview(path: Path, preview: np.ndarray) -> None:
    """A step's preview, enlarged so that a page can show it. Shapes: uint8 (H, W, 3)."""
    image = Image.fromarray(preview)
    factor = max(1, PREVIEW_PX // max(image.size))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    write_whole(path, _encoded(image, "PNG"), is_lasting=False)


def write_thumbnail(path: Path, frames: np.ndarray) -> None:
    """The middle frame of a clip. Shapes: uint8 (F, H, W, 3)."""
    image = Image.fromarray(frames[len(frames) // 2])
    image.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX))
    write_whole(path, _encoded(image, "JPEG"))


def check_pixels(data: bytes, most: int) -> None:
    """Refuse a picture by its header, before anything is decoded.

    Raises: TooLarge, InputError for something that is no picture.
    """
    Image.init()
    try:
        with Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name in Image.OPEN]) as image:
            width, height = image.size
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise InputError("input_reference is not a picture that can be read: send a PNG, JPEG or WebP file.") from error
    if width * height > most:
        raise TooLarge(f"the picture has {width} x {height} px; at most {most:,} pixels are taken: make it smaller.")


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
