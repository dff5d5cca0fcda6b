"""Small pictures for viewers: the preview of a step, the thumbnail of a clip."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from framewake.media.picture import header_size
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

    Raises: TooLarge, InputError for something that is neither picture nor clip.
    """
    width, height = header_size(data, "input_reference")
    if width * height > most:
        raise TooLarge(f"the picture has {width} x {height} px; at most {most:,} pixels are taken: make it smaller.")


def _encoded(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()
