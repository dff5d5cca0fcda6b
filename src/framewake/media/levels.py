"""Grey of more than eight bits reduced to eight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from framewake.errors import InputError

# TIFF's tags: what the numbers are, which end of them is white, and whether each colour has a plane of its own.
SAMPLE_FORMAT, SIGNED = 339, 2
PHOTOMETRIC, WHITE_IS_ZERO = 262, 0
PLANES, SEPARATE = 284, 2
BITS = 258
# How many bits a camera or a program may have put into whole numbers of 16 or 32.
DEPTHS = (8, 12, 16, 24, 32)


def eight_bits(image: Image.Image, name: str) -> tuple[Image.Image, str]:
    """A picture with whole numbers of 16 or 32 bits in eight, and a note where their range had to be guessed.

    Sixteen bits keep their upper byte, where the original clips them to white. What uses a small part of its range only
    would be black by that: it is spread from the range that its largest number needs.

    Raises: InputError for numbers below zero and for floating-point ones.
    """
    if image.mode == "F":
        raise InputError(
            f"{name} holds floating-point brightness, whose range is unknown. Save it as PNG with 8 or 16 bits."
        )
    tags = getattr(image, "tag_v2", {})
    if not image.mode.startswith("I") and not (image.mode == "L" and _is_signed(tags)):
        return image, ""
    values = np.asarray(image).astype(np.int64)
    if image.mode == "L":  # which Pillow does not know to be signed
        values = values.astype(np.int8).astype(np.int64)
    if values.min() < 0 and not _is_signed(tags):
        values &= 0xFFFFFFFF  # Pillow has no unsigned numbers of 32 bits
    if values.min() < 0:
        raise InputError(f"{name} holds numbers below zero, whose range is unknown. Save it as PNG with 8 or 16 bits.")
    stated = 8 if image.mode == "L" else 16 if is_sixteen(image) else 32
    whole = stated - 1 if _is_signed(tags) else stated  # the sign takes a bit
    if tags.get(PHOTOMETRIC) == WHITE_IS_ZERO:  # which Pillow heeds up to 8 bits
        values = 2**whole - 1 - values
    largest = int(values.max())
    bits = min(whole, next(depth for depth in DEPTHS if largest < 2**depth))
    grey = values << 8 >> bits
    note = ""
    if bits != whole and largest > 0:
        note = f"it has numbers of {stated} bits, but none above {largest}: they are taken as {bits} bits."
    return Image.fromarray(grey.astype(np.uint8)), note


def check_planes(image: Image.Image, name: str) -> None:
    """Whether Pillow reads the colours of an opened picture rightly.

    Raises: InputError for separate planes of more than 8 bits, of which it takes every second byte.
    """
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (1,))
    is_raw = any(tile[0] == "raw" for tile in getattr(image, "tile", ()))
    if is_raw and tags.get(PLANES) == SEPARATE and len(bits) > 1 and max(bits) > 8:
        raise InputError(
            f"{name} keeps each colour in a plane of its own, with {max(bits)} bits, which is not read here. Save it "
            "with interleaved colours, or as PNG."
        )


def _is_signed(tags: Mapping[int, Any]) -> bool:
    return tags.get(SAMPLE_FORMAT, SIGNED + 1) in (SIGNED, (SIGNED,))


def is_sixteen(image: Image.Image) -> bool:
    """Whether the numbers are of 16 bits: Pillow has them as 32 from some formats."""
    tags = getattr(image, "tag_v2", None)
    return image.mode != "I" or tags is None or tags.get(BITS, (32,))[0] <= 16
