"""All randomness of a run as a function of the seed and a number: no state needs saving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from framewake.train.settings import Training

# Which stream: each purpose has its own, so that none depends on how much another has drawn.
START, ORDER, SHOWN, NOISE, HELD, FIXED = 1, 2, 3, 4, 5, 6
LEVELS = (0.1, 0.3, 0.5, 0.7, 0.9)  # of noise, where clips that were left out are looked at


class Draw(NamedTuple):
    """What is random about one batch. Shapes: noise (B, C, F, H, W), all else (B,). Units: ``sigma`` in [0, 1]."""

    sigma: np.ndarray
    noise: np.ndarray


def generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """The stream of (seed, purpose, number)."""
    key = np.asarray([seed, (purpose << 48) + number], np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


class Sized(NamedTuple):
    """What decides with which others an example is computed: its latents' shape, and how many at a time."""

    latent: tuple[int, ...]
    batch: int


def batch_count(examples: Sequence[Sized]) -> int:
    """How many batches there are until each example came once."""
    return sum(-(-examples.count(kind) // kind.batch) for kind in set(examples))


def batch_of(examples: Sequence[Sized], *, seed: int, number: int) -> list[int]:
    """Which examples make batch ``number``: all come once before any comes again, only equal ones together."""
    groups: dict[Sized, list[int]] = {}
    for index, kind in enumerate(examples):
        groups.setdefault(kind, []).append(index)
    count = batch_count(examples)
    epoch, position = divmod(number, count)
    rng = generator(seed, ORDER, epoch)
    batches = []
    for (_, batch), group in groups.items():
        mixed = [group[i] for i in rng.permutation(len(group))]
        batches += [mixed[i : i + batch] for i in range(0, len(mixed), batch)]
    return batches[rng.permutation(count)[position]]


def shown(count: int, settings: Training, number: int) -> list[tuple[bool, bool]]:
    """For each clip of batch ``number``: are its caption and its picture there?"""
    left_out = generator(settings.seed, SHOWN, number).random((count, 2))
    return [(bool(c >= settings.caption_drop), bool(p >= settings.picture_drop)) for c, p in left_out]


def draw(shape: tuple[int, ...], settings: Training, number: int) -> Draw:
    """Noise and noise levels of batch ``number``, a level for each clip.

    Precision: levels in float64 until they are shifted, then float32; the original rounds them to float16.
    Source: specification, section 10.3.
    """
    rng, shift = generator(settings.seed, NOISE, number), settings.flow_shift
    is_normal = settings.timesteps == "lognormal"
    even = 1 / (1 + np.exp(-rng.standard_normal(shape[0]))) if is_normal else rng.random(shape[0])
    sigma = (shift * even / (1 + (shift - 1) * even)).astype(np.float32)
    return Draw(sigma, rng.standard_normal(shape, dtype=np.float32))


def fixed_draw(shape: tuple[int, ...], digest: str, number: int) -> Draw:
    """One clip at level ``number``, with noise that depends on its content alone: the same in every run."""
    noise = generator(int(digest[:15], 16), FIXED, number).standard_normal((1, *shape), dtype=np.float32)
    return Draw(np.asarray([LEVELS[number]], np.float32), noise)
