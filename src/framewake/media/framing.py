"""How a picture becomes what the models see: its bucket, its crop, and what the vision tower gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from PIL import Image

from framewake.config import Framing
from framewake.media.image import bucket_pixels, clip_pixels, covering_pixels, squeezed_pixels
from framewake.shapes import STEP_15, buckets, choose_bucket, closest_bucket, covering_size, resized_size

Colours = Sequence[float]


class Framed(NamedTuple):
    """One way; ``buckets``: base size -> every (height, width) of a clip, ``bucket``: (base size, height, width) -> the
    one for a picture, ``resized``: (bucket, height, width) -> the size before the crop; the crop: (picture, height,
    width, place) -> uint8 (H, W, 3).

    ``seen``: whole picture, crop, side, mean and deviation -> what the tower sees of it, and what it sees beside a
    negative prompt; ``sees_crop``: what it sees depends on the crop. Shapes: float32 (1, 3, S, S) each.
    """

    buckets: Callable[[int], tuple[tuple[int, int], ...]]
    bucket: Callable[[int, int, int], tuple[int, int]]
    resized: Callable[[tuple[int, int], int, int], tuple[int, int]]
    crop: Callable[..., np.ndarray]
    seen: Callable[[Image.Image, np.ndarray, int, Colours, Colours], tuple[np.ndarray, np.ndarray]]
    sees_crop: bool


def _whole(
    image: Image.Image, crop: np.ndarray, size: int, mean: Colours, std: Colours
) -> tuple[np.ndarray, np.ndarray]:
    black = Image.new("RGB", image.size)
    return clip_pixels(image, size, mean=mean, std=std)[None], clip_pixels(black, size, mean=mean, std=std)[None]


def _squeezed(
    image: Image.Image, crop: np.ndarray, size: int, mean: Colours, std: Colours
) -> tuple[np.ndarray, np.ndarray]:
    seen = squeezed_pixels(crop, size, mean=mean, std=std)[None]
    return seen, seen


FRAMES: Mapping[Framing, Framed] = {
    "inside": Framed(buckets, choose_bucket, resized_size, bucket_pixels, _whole, sees_crop=False),
    "closest": Framed(
        partial(buckets, step=STEP_15), closest_bucket, covering_size, covering_pixels, _squeezed, sees_crop=True
    ),
}
