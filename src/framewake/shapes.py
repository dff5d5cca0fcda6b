"""Sizes of pictures, videos and latents, and the letters that name their axes.

Axis letters, in memory order:

    B batch     C channels      F latent frames (or frames)     H W latent grid (or pixels)
    N image tokens              T text tokens                   D width
    A heads                     E width of one head

A bucket is one of the (height, width) pairs that the model was trained on; the picture chooses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from framewake.errors import InputError, nearest

# Resolution class -> side in pixels of its square bucket. A checkpoint may bring its own table.
PUBLISHED_RESOLUTIONS: Mapping[str, int] = {"720p": 960, "540p": 720, "360p": 480}

RESOLUTIONS_15: Mapping[str, int] = {"1080p": 1440, "720p": 960, "480p": 640, "360p": 480}
STEP_15 = 16
# Of all families' checkpoints; which of them a checkpoint has, is looked at when it is known.
KNOWN_RESOLUTIONS = ("1080p", "720p", "540p", "480p", "360p")

BUCKET_STEP = 32  # every bucket side is a multiple of this
MAX_BUCKET_RATIO = 4.0
FIT = "fit"  # instead of the place of a crop


class PixelShape(NamedTuple):
    """Size of a video in frames and pixels."""

    frames: int
    height: int
    width: int


class LatentShape(NamedTuple):
    """Size of a latent video without its batch axis."""

    channels: int
    frames: int
    height: int
    width: int


def base_px(resolution: str, resolutions: Mapping[str, int] = PUBLISHED_RESOLUTIONS) -> int:
    """Side in pixels of the square bucket of a resolution class.

    Raises: InputError for a class that the checkpoint does not have.
    Source: specification, section 2.1.
    """
    if resolution not in resolutions:
        names = ", ".join(resolutions)
        if resolution in KNOWN_RESOLUTIONS:
            raise InputError(
                f"resolution {resolution!r} is not what this checkpoint was trained for: take {names}, or a checkpoint "
                f"for {resolution}."
            )
        raise InputError(
            f"resolution {resolution!r} is unknown: choose one of {names}." + nearest(resolution, resolutions)
        )
    return resolutions[resolution]


@lru_cache(maxsize=64)
def buckets(base_px: int, step: int = BUCKET_STEP) -> tuple[tuple[int, int], ...]:
    """All (height, width) buckets of a base size, from the tallest to the widest, their sides multiples of ``step``.

    The order matters: the first of two equally close buckets wins.

    Source: specification, section 2.1.
    """
    area = round((base_px / step) ** 2)  # round() is half to even here: 22.5 ** 2 -> 506
    if area < 1:
        raise InputError(f"bucket base of {base_px} px is too small: {step} px is the least.")
    found = []
    height, width = area, 1
    while height > 0:
        if max(height, width) / min(height, width) <= MAX_BUCKET_RATIO:
            found.append((height * step, width * step))
        if (width + 1) * height <= area:
            width += 1
        else:
            height -= 1
    return tuple(found)


def bucket_ratio(bucket: tuple[int, int]) -> float:
    """Height over width, rounded to five digits as the choice of a bucket needs it."""
    return round(bucket[0] / bucket[1], 5)


def choose_bucket(base_px: int, height_px: int, width_px: int) -> tuple[int, int]:
    """The bucket (height, width) for a picture.

    A bucket is never more elongated than its picture, so that the crop always fits.  A wide picture
    must be strictly wider than its bucket: 1280 x 720 gives 704 x 1248 at 720p, not 704 x 1280.

    Source: specification, section 2.2.
    """
    if height_px < 1 or width_px < 1:
        raise InputError(f"a picture of {width_px} x {height_px} px has no area: hand in one with at least 1 x 1 px.")
    ratio = height_px / width_px
    gaps = [(bucket_ratio(bucket) - ratio, bucket) for bucket in buckets(base_px)]
    eligible = [(gap, bucket) for gap, bucket in gaps if (gap <= 0 if ratio >= 1 else gap > 0)]
    return min(eligible, key=lambda entry: abs(entry[0]))[1]


def closest_bucket(base_px: int, height_px: int, width_px: int) -> tuple[int, int]:
    """The bucket (height, width) whose rounded ratio is closest to a picture's, as HunyuanVideo-1.5 chooses.

    Source: specification of 1.5, section 11.1.
    """
    if height_px < 1 or width_px < 1:
        raise InputError(f"a picture of {width_px} x {height_px} px has no area: hand in one with at least 1 x 1 px.")
    return min(buckets(base_px, STEP_15), key=lambda bucket: abs(bucket_ratio(bucket) - height_px / width_px))


def larger_bucket(bucket: tuple[int, int], base_px: int) -> tuple[int, int]:
    """The bucket of a larger base size for a clip of one: closest in width by height, the wider of two equal ones.

    Source: specification of 1.5, section 13.
    """
    return min(reversed(buckets(base_px, STEP_15)), key=lambda each: abs(each[1] / each[0] - bucket[1] / bucket[0]))


def covering_size(bucket: tuple[int, int], height_px: int, width_px: int) -> tuple[int, int]:
    """Size (height, width) of a picture that covers a bucket and has one side of it (specification of 1.5, 11.2)."""
    factor = max(bucket[1] / width_px, bucket[0] / height_px)
    return round(height_px * factor), round(width_px * factor)


def resized_size(bucket: tuple[int, int], height_px: int, width_px: int) -> tuple[int, int]:
    """Size (height, width) to which a picture is resized before a bucket is cropped from it.

    The shorter side becomes the bucket's shorter side and the longer one is cut to a whole number.

    Source: specification, section 2.4.
    """
    short = min(bucket)
    if width_px <= height_px:
        return int(short * height_px / width_px), short
    return short, int(short * width_px / height_px)


def crop_offset(size: int, crop: int, *, place: float = 0.5) -> int:
    """Where a bucket crop begins, from 0 for the first pixel to 1 for the last that it can begin at.

    Halves go to the even number (specification 2.4 and 16.5; there it is always centred).
    """
    return round((size - crop) * place)


def parse_crop(text: str) -> tuple[float, float] | None:
    """Where a crop lies across and down, from a text such as "0.5,0.5"; None for "fit", which cuts nothing away.

    Raises: InputError.
    """
    if text == FIT:
        return None
    try:
        across, down = (float(part) for part in text.split(","))
    except ValueError:
        across = down = -1.0
    if not (0 <= across <= 1 and 0 <= down <= 1):
        raise InputError(
            f"crop is {text[:40]!r}: expected two numbers from 0 to 1, such as 0.5,0.5 (centre) or 0,1 (left, bottom), "
            f"or {FIT} to keep the whole picture."
        )
    return across, down


def nearest_frames(frames: int) -> int:
    """The closest valid number of frames (4k + 1); the larger one of two equally close."""
    return max(1, 4 * ((frames + 1) // 4) + 1)


def check_frames(frames: int) -> int:
    """The number of frames itself when the autoencoder can make it.

    Raises: InputError with the nearest valid number when it is not 4k + 1.
    Source: specification, section 1.5.
    """
    if frames < 1 or (frames - 1) % 4:
        raise InputError(
            f"{frames} frames cannot be made: the number must be a multiple of 4 plus 1 (1, 5, 9, ... 129). "
            f"The nearest is {nearest_frames(frames)}."
        )
    return frames


def latent_shape(pixels: PixelShape, *, channels: int, spatial: int = 8, temporal: int = 4) -> LatentShape:
    """Size of the latents of a video.

    Units: ``spatial`` and ``temporal`` are the autoencoder's compression factors.
    Raises: InputError when the video does not divide into whole latent cells.
    Source: specification, sections 1.5 and 6.2.
    """
    if temporal == 4:
        check_frames(pixels.frames)
    elif pixels.frames < 1 or (pixels.frames - 1) % temporal:
        raise InputError(f"{pixels.frames} frames cannot be made: the number must be a multiple of {temporal} plus 1.")
    for name, side in (("height", pixels.height), ("width", pixels.width)):
        if side < spatial or side % spatial:
            below = max(spatial, side // spatial * spatial)
            raise InputError(
                f"a {name} of {side} px is impossible: it must be a multiple of {spatial}. Try {below} or "
                f"{below + spatial}."
            )
    return LatentShape(channels, (pixels.frames - 1) // temporal + 1, pixels.height // spatial, pixels.width // spatial)


def token_grid(latents: LatentShape, patch: tuple[int, int, int] = (1, 2, 2)) -> tuple[int, int, int]:
    """Tokens along frames, height and width.

    Raises: InputError when a side is not a whole number of patches.
    Source: specification, section 1.5.
    """
    sides = (latents.frames, latents.height, latents.width)
    if any(side % step for side, step in zip(sides, patch, strict=True)):
        raise InputError(f"latents of {sides} do not divide into patches of {patch}: choose another size.")
    frames, height, width = (side // step for side, step in zip(sides, patch, strict=True))
    return frames, height, width


def token_count(latents: LatentShape, patch: tuple[int, int, int] = (1, 2, 2)) -> int:
    """Number of image tokens N that the transformer sees."""
    frames, height, width = token_grid(latents, patch)
    return frames * height * width
