"""Noise from a counter-based generator on the host: a seed means the same clip on every engine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.errors import InputError

# float32 values of the original's 0.999 and 1 - 0.999 (specification, section 6.2).
NOISE_SHARE = 0.9990000128746033
IMAGE_SHARE = 0.0009999871253967285
LESSER_SHARE = 0.3  # of a smaller clip where it is shown; the rest is noise (specification of 1.5, section 13)


def draw(shape: Sequence[int], seed: int) -> np.ndarray:
    """Standard normal float32 numbers of a seed.

    Raises: InputError for a seed below 0 or above 2**128 - 1.
    """
    if not 0 <= seed < 2**128:
        raise InputError(f"seed {seed} is out of range; use a whole number from 0 to 2**128 - 1.")
    generator = np.random.Generator(np.random.Philox(key=seed))
    return generator.standard_normal(tuple(shape), dtype=np.float32)


def stabilised(engine: Engine, noise: Tensor, image: Tensor) -> Tensor:
    """Noise with 0.1 % of the image latent in every frame, which calms the motion.

    Shapes: noise (B, C, F, H, W), image (B, C, 1, H, W) -> (B, C, F, H, W).
    Precision: mixed in float32, returned in the noise's type.
    Source: specification, section 6.2.
    """
    mixed = engine.cast(noise, "float32") * NOISE_SHARE + engine.cast(image, "float32") * IMAGE_SHARE
    return engine.cast(mixed, engine.dtype(noise))


def veiled(lesser: Tensor, noise: Tensor) -> Tensor:
    """A smaller clip as the larger one's transformer is shown it: most of it noise.

    Shapes: both (B, C, F, H, W), same out. Source: specification of 1.5, section 13.
    """
    return lesser * LESSER_SHARE + noise * (1.0 - LESSER_SHARE)
