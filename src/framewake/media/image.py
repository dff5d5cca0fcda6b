"""A picture cropped and scaled for the VAE and for LLaVA."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from framewake.config import CLIP_MEAN, CLIP_STD
from framewake.shapes import covering_size, crop_offset, resized_size

HALF = (0.5, 0.5, 0.5)  # SigLIP's mean and deviation of red, green and blue


def whole_pixels(image: Image.Image, height: int, width: int, *, filter: Image.Resampling) -> np.ndarray:
    """The whole picture in the middle of a bucket; its edges, drawn outwards and blurred, fill what is left.

    Shapes: -> (H, W, 3) uint8.
    """
    inside = ImageOps.contain(image, (width, height), filter)
    left, top = (width - inside.width) // 2, (height - inside.height) // 2
    margins = ((top, height - inside.height - top), (left, width - inside.width - left), (0, 0))
    drawn = Image.fromarray(np.pad(np.asarray(inside), margins, mode="edge"))
    filled = drawn.filter(ImageFilter.GaussianBlur(min(height, width) / 24))
    filled.paste(inside, (left, top))
    return np.asarray(filled)


def bucket_pixels(
    image: Image.Image, height: int, width: int, *, place: tuple[float, float] | None = (0.5, 0.5)
) -> np.ndarray:
    """The picture resized and cropped to a bucket, as the VAE sees it.

    ``place`` is where the crop lies, x and y; with None, nothing is cropped away.

    Departure: the ratios of buckets are rounded, so a rare picture (4554 x 1841 at 720p) ends one pixel
    short of its bucket, where the original pads a black line; here it is resized to that pixel more.

    Shapes: -> (H, W, 3) uint8.
    Source: specification, section 2.4.
    """
    if place is None:
        return whole_pixels(image, height, width, filter=Image.Resampling.BILINEAR)
    sizes = resized_size((height, width), image.height, image.width)
    resized_height, resized_width = max(sizes[0], height), max(sizes[1], width)
    if image.size != (resized_width, resized_height):
        image = image.resize((resized_width, resized_height), Image.Resampling.BILINEAR)
    left, top = crop_offset(resized_width, width, place=place[0]), crop_offset(resized_height, height, place=place[1])
    return np.asarray(image.crop((left, top, left + width, top + height)))


def covering_pixels(
    image: Image.Image, height: int, width: int, *, place: tuple[float, float] | None = (0.5, 0.5)
) -> np.ndarray:
    """The picture resized by Lanczos' filter and cropped to a bucket, as HunyuanVideo-1.5 sees it.

    ``place`` is where the crop lies, x and y; with None, nothing is cropped away.

    Shapes: -> (H, W, 3) uint8.
    Source: specification of 1.5, section 11.2.
    """
    if place is None:
        return whole_pixels(image, height, width, filter=Image.Resampling.LANCZOS)
    rows, columns = covering_size((height, width), image.height, image.width)
    if image.size != (columns, rows):
        image = image.resize((columns, rows), Image.Resampling.LANCZOS)
    left, top = crop_offset(columns, width, place=place[0]), crop_offset(rows, height, place=place[1])
    return np.asarray(image.crop((left, top, left + width, top + height)))


def squeezed_pixels(
    pixels: np.ndarray, size: int, *, mean: Sequence[float] = HALF, std: Sequence[float] = HALF
) -> np.ndarray:
    """A crop as SigLIP sees it: squeezed to a square, whatever its shape, and normalised.

    Shapes: uint8 (H, W, 3) -> (3, S, S) float32.
    Source: specification of 1.5, section 5.
    """
    square = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
    return _coloured(square, mean, std)


def normalise(pixels: np.ndarray) -> np.ndarray:
    """Pixels of 0 to 255 as the model's range of -1 to 1.

    Shapes: (..., H, W, 3) uint8 -> (3, ..., H, W) float32, so that frames follow the channels.
    Precision: the division by 255 and both steps after it are float32, as in the original.
    Source: specification, section 2.4.
    """
    unit = np.moveaxis(pixels, -1, 0).astype(np.float32) / np.float32(255)
    return (unit - np.float32(0.5)) / np.float32(0.5)


def clip_crop(image: Image.Image, size: int) -> np.ndarray:
    """The centre square of the whole picture, as LLaVA sees it.

    The crop begins at the lower whole number, unlike that of a bucket.

    Shapes: -> (S, S, 3) uint8.
    Source: specification, sections 2.6 and 16.5.
    """
    if image.width <= image.height:
        resized = size, int(size * image.height / image.width)
    else:
        resized = int(size * image.width / image.height), size
    if image.size != resized:
        image = image.resize(resized, Image.Resampling.BICUBIC)
    left, top = (resized[0] - size) // 2, (resized[1] - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def clip_pixels(
    image: Image.Image, size: int, *, mean: Sequence[float] = CLIP_MEAN, std: Sequence[float] = CLIP_STD
) -> np.ndarray:
    """The centre square of the whole picture, normalised for LLaVA's vision tower.

    Shapes: -> (3, S, S) float32.
    Precision: scaled by 1/255 in float64, then normalised in float32.
    Source: specification, section 2.6.
    """
    return _coloured(clip_crop(image, size), mean, std)


def _coloured(pixels: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    unit = (pixels.astype(np.float64) * (1 / 255)).astype(np.float32)
    values = (unit - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))
