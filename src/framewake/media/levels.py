"""Grey of more than eight bits as eight."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from framewake.errors import InputError

SIGNED = 2  # of TIFF's tag 339, where nothing is said of most files
SAMPLE_FORMAT = 339
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
    if not image.mode.startswith("I"):
        return image, ""
    values = np.asarray(image).astype(np.int64)
    tags = getattr(image, "tag_v2", {})
    if values.min() < 0 and not _is_signed(tags):
        values &= 0xFFFFFFFF  # Pillow has no unsigned numbers of 32 bits
    if values.min() < 0:
        raise InputError(f"{name} holds numbers below zero, whose range is unknown. Save it as PNG with 8 or 16 bits.")
    stated = 16 if is_sixteen(image) else 32
    largest = int(values.max())
    whole = 31 if _is_signed(tags) and stated == 32 else stated  # the sign takes a bit
    bits = min(whole, next(depth for depth in DEPTHS if largest < 2**depth))
    grey = values >> (bits - 8)
    note = ""
    if bits != whole and largest > 0:
        note = f"it has numbers of {stated} bits, but none above {largest}: they are taken as {bits} bits."
    return Image.fromarray(grey.astype(np.uint8)), note


def _is_signed(tags: Mapping[int, Any]) -> bool:
    return tags.get(SAMPLE_FORMAT, SIGNED + 1) in (SIGNED, (SIGNED,))


def is_sixteen(image: Image.Image) -> bool:
    """Whether the numbers are of 16 bits: Pillow has them as 32 from some formats."""
    tags = getattr(image, "tag_v2", None)
    return image.mode != "I" or tags is None or tags.get(258, (32,))[0] <= 16
