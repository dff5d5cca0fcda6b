"""Transparent pictures laid over a colour, whatever form their transparency has."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor

from framewake.errors import InputError

WHITE, WHITE_RGB = "white", (255, 255, 255)
UNUSED_WHEN_ZERO = ("BMP", "DIB", "TGA")  # whose fourth byte many programs leave at 0 in opaque pictures
GREY_BITS = "grey bits"  # beside what Pillow tells of a PNG: how many the file has for a level


def background_colour(text: str) -> tuple[int, int, int]:
    """A colour by its name or numbers, such as white, #ff8800 or rgb(0, 128, 255).

    Raises: InputError for anything else, and for a transparent one.
    """
    try:
        red, green, blue, *alpha = ImageColor.getrgb(text.strip())
    except ValueError as error:
        raise InputError(
            f"background is {text[:40]!r}: expected a colour such as white, #ff8800 or rgb(0, 128, 255).",
            about="background",
        ) from error
    if alpha and alpha[0] != 255:
        raise InputError(
            f"background is {text[:40]!r}, which is itself transparent: leave its last number out.", about="background"
        )
    return red, green, blue


def over(image: Image.Image, alpha: Image.Image | None, colour: tuple[int, int, int]) -> Image.Image:
    """An RGB picture over a colour, mixed in the stored numbers as browsers and viewers do."""
    return image if alpha is None else Image.composite(image, Image.new("RGB", image.size, colour), alpha)


def split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """A picture without its transparency, and that as a mask; None where nothing shows through.

    Called behind the decoding: some formats tell of a transparent colour only then.
    """
    if image.mode in ("RGBa", "La"):  # colours that were multiplied by their opacity
        image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
    if image.mode in ("RGBA", "LA"):
        alpha = image.getchannel("A")
        colours = image.convert("RGB" if image.mode == "RGBA" else "L")
    elif image.mode == "PA" or (image.mode == "P" and "transparency" in image.info):
        whole = image.convert("RGBA")
        alpha, colours = whole.getchannel("A"), whole.convert("RGB")
    elif "transparency" in image.info:
        alpha, colours = _keyed(image, image.info["transparency"]), image.copy()
    else:
        return image, None
    # A conversion would take the key for a colour of the picture still.
    colours.info.pop("transparency", None)
    lowest, highest = alpha.getextrema()
    is_unused = highest == 0 and image.format in UNUSED_WHEN_ZERO
    return colours, None if lowest == 255 or is_unused else alpha


def _keyed(image: Image.Image, key: int | tuple[int, ...] | bytes) -> Image.Image:
    """A mask for the one colour that is transparent: a number of the file's own depth, or three."""
    values = np.asarray(image)
    if isinstance(key, bytes):
        raise ValueError("the transparent colour is not one colour")
    if isinstance(key, tuple):  # Pillow has made 8 bits of 16, but not of the key
        numbers = [part >> 8 if max(key) > 255 else part for part in key]
        hidden = (values == np.array(numbers, values.dtype)).all(axis=-1)
    elif image.mode == "1":  # whose white is 1 or 255, as Pillow's release has it
        hidden = values.astype(bool) == bool(key)
    else:
        hidden = values.astype(np.int64) == _grey_key(image, key)
    return Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8))


def _grey_key(image: Image.Image, key: int) -> int:
    """Grey of 2 or 4 bits is spread over 8 by Pillow, its transparent level is not."""
    bits = image.info.get(GREY_BITS, 8)
    return key * 255 // (2**bits - 1) if bits < 8 and image.mode == "L" else key
