"""A batch of encoded clips on the engine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.models.dit import TextPart, TextStates, joined_texts
from framewake.train.cache import Cache
from framewake.train.draws import Draw, draw, fixed_draw, shown
from framewake.train.encode import Prepared
from framewake.train.settings import Training


class Batch(NamedTuple):
    """Everything of one forward pass but the weights.

    Shapes: clean and noise float32 (B, C, F, H, W), image (B, C, 1, H, W), sigma float32 (B,).
    """

    clean: Tensor
    image: Tensor
    text: TextStates
    noise: Tensor
    sigma: np.ndarray


def load_batch(engine: Engine, cache: Cache, clips: Sequence[Prepared], settings: Training, *, number: int) -> Batch:
    """Batch ``number`` of clips of one size, with its noise."""
    seen = _possible(clips, shown(len(clips), settings, number))
    return _assembled(engine, cache, clips, seen, draw((len(clips), *clips[0].latent), settings, number))


def fixed_batch(engine: Engine, cache: Cache, clip: Prepared, digest: str, *, level: int) -> Batch:
    """A clip that was left out at the level of a number, with its caption and its picture."""
    return _assembled(engine, cache, [clip], [(True, True)], fixed_draw(clip.latent, digest, level))


def _assembled(
    engine: Engine, cache: Cache, clips: Sequence[Prepared], seen: Sequence[tuple[bool, bool]], drawn: Draw
) -> Batch:
    arrays = [cache.read(clip.clip) for clip in clips]
    texts = [_text(engine, cache, clip.texts[kind]) for clip, kind in zip(clips, seen, strict=True)]
    clean, image = (np.stack([a[name] for a in arrays]).astype(np.float32) for name in ("latents", "image"))
    return Batch(
        engine.asarray(clean),
        engine.asarray(image),
        joined_texts(engine, texts),
        engine.asarray(drawn.noise),
        drawn.sigma,
    )


def _possible(clips: Sequence[Prepared], seen: Sequence[tuple[bool, bool]]) -> list[tuple[bool, bool]]:
    """Where a checkpoint sees no pictures, none can be left out."""
    return [kind if kind in clip.texts else (kind[0], True) for clip, kind in zip(clips, seen, strict=True)]


def _text(engine: Engine, cache: Cache, key: str) -> TextStates:
    parts = {name: engine.asarray(x[None]) for name, x in cache.read(key).items()}
    states, pooled = parts.pop("states"), parts.pop("pooled", None)
    further = {name: TextPart(x, (int(x.shape[1]),)) for name, x in parts.items()}
    return TextStates(states, (int(states.shape[1]),), pooled, further)
