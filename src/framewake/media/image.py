"""The picture that starts a video: opened with every check, cropped for the VAE and for LLaVA."""

from __future__ import annotations

import os
import struct
import warnings
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from framewake.config import CLIP_MEAN, CLIP_STD
from framewake.errors import InputError
from framewake.shapes import crop_offset, resized_size

MAX_PIXELS = 100_000_000
MAX_ELONGATION = 100  # beyond it a crop shows under 4 % of the picture and the resize explodes

# Only these are tried: Pillow would hand an EPS to Ghostscript, and a PSD has layers, not frames.
FORMATS = ("JPEG", "MPO", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000", "TGA")
ADVICE = "Hand in a still picture as PNG, JPEG or WebP."

# What Pillow's readers raise on a damaged file.
DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    RuntimeError,
    struct.error,
    zlib.error,
)


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Opens a still picture as 8-bit RGB, upright.

    EXIF orientation is applied, which the original does not do: photographs of phones would lie on
    their side.  Transparency is dropped, not blended, and colour profiles are ignored, as in the
    original.  16-bit grey becomes 8-bit by its upper byte, where the original clips it to white.
    Size and frames are checked from the header, before a pixel is decoded.

    Raises: InputError for a file that is missing, damaged, empty, animated, too big or no picture.
    Source: specification, sections 2.2 and 2.6.
    """
    file = _existing_file(path)
    with warnings.catch_warnings():
        # Our limit on size is stricter than Pillow's warning, and damaged EXIF is not worth a line either.
        warnings.simplefilter("ignore")
        with _open_header(file) as image:
            _check_header(image, file)
            try:
                image.load()
            except Image.DecompressionBombError as error:
                raise InputError(_too_big(file, str(error))) from error
            except DAMAGE as error:
                raise InputError(f"{file}: the picture is damaged or cut off ({_reason(error)}). {ADVICE}") from error
            return _to_rgb(_upright(image), file)


def _existing_file(path: str | os.PathLike[str]) -> Path:
    if not os.fspath(path):
        raise InputError(f"no picture was named. {ADVICE}")
    file = Path(path)
    try:
        if not file.exists():
            raise InputError(f"{file}: there is no such file. Check the path of the picture.")
        if file.is_dir():
            raise InputError(f"{file} is a folder, not a picture. Name one file in it.")
        if not file.is_file():
            raise InputError(f"{file} is a device or a pipe, not a file. {ADVICE}")
        if file.stat().st_size == 0:
            raise InputError(f"{file} is empty (0 bytes). {ADVICE}")
        with file.open("rb"):
            pass
    except (OSError, ValueError) as error:
        raise InputError(f"{file}: the picture cannot be read ({_reason(error)}).") from error
    return file


def _open_header(file: Path) -> Image.Image:
    Image.init()
    known = [name for name in FORMATS if name in Image.OPEN]
    try:
        return Image.open(file, formats=known)
    except Image.DecompressionBombError as error:
        raise InputError(_too_big(file, str(error))) from error
    except DAMAGE as error:
        raise InputError(f"{file} is not a picture that can be read here. {ADVICE}") from error


def _check_header(image: Image.Image, file: Path) -> None:
    width_px, height_px = image.size
    if width_px < 1 or height_px < 1:
        raise InputError(f"{file} has no area ({width_px} x {height_px} px). {ADVICE}")
    if width_px * height_px > MAX_PIXELS:
        raise InputError(_too_big(file, f"{width_px} x {height_px} px"))
    if max(image.size) > MAX_ELONGATION * min(image.size):
        raise InputError(
            f"{file} is {width_px} x {height_px} px: one side may be at most {MAX_ELONGATION} times the other. "
            "Crop it first."
        )
    # An MPO is a photograph with a second view or a depth map behind it: its first picture is the photograph.
    if image.format == "MPO":
        return
    try:
        frames = getattr(image, "n_frames", 1)
    except DAMAGE as error:
        raise InputError(f"{file}: the picture is damaged or cut off ({_reason(error)}). {ADVICE}") from error
    if frames > 1:
        kind = "pages" if image.format == "TIFF" else "frames"
        raise InputError(f"{file} has {frames} {kind}, but a video starts from one still picture. Save one of them.")


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except DAMAGE:
        # Damaged EXIF tells no orientation; the pixels themselves are fine.
        return image


def _to_rgb(image: Image.Image, file: Path) -> Image.Image:
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.int64)
        return Image.fromarray(np.clip(grey >> 8, 0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise InputError(f"{file} holds floating-point brightness, whose range is unknown. {ADVICE}")
    try:
        return image.convert("RGB")
    except DAMAGE as error:
        raise InputError(f"{file}: colours of kind {image.mode!r} cannot be read. {ADVICE}") from error


def _too_big(file: Path, size: str) -> str:
    return (
        f"{file} is too big ({size}): at most {MAX_PIXELS // 1_000_000} megapixels are read. Make it smaller first; "
        "the video needs less than 2."
    )


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def bucket_pixels(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The picture resized and cropped to a bucket, as the VAE sees it.

    Departure: the ratios of buckets are rounded, so a rare picture (4554 x 1841 at 720p) ends one pixel
    short of its bucket, where the original pads a black line; here it is resized to that pixel more.

    Shapes: -> (H, W, 3) uint8.
    Source: specification, section 2.4.
    """
    sizes = resized_size((height, width), image.height, image.width)
    resized_height, resized_width = max(sizes[0], height), max(sizes[1], width)
    if image.size != (resized_width, resized_height):
        image = image.resize((resized_width, resized_height), Image.Resampling.BILINEAR)
    top, left = crop_offset(resized_height, height), crop_offset(resized_width, width)
    return np.asarray(image.crop((left, top, left + width, top + height)))


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
    unit = (clip_crop(image, size).astype(np.float64) * (1 / 255)).astype(np.float32)
    values = (unit - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1))
