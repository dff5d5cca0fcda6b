"""Encoded clips on disk, made by one process and read by another while it grows.

A shard holds clips of one size; each clip has the latents of every fourth frame, each encoded as a picture of its own
(see ``train_vae``), what LLaVA sees, and several ways to say what happens.
"""

from __future__ import annotations

import json
import logging
import math
import os
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from demonstration import models
from demonstration.render import render_frame
from demonstration.state import begun_state
from demonstration.windows import to_pixels
from demonstration.world import FULL_FRAMES, MOTIONS, RARE_ACTIONS, Scene, sample_scene, write_prompt
from framewake.engine.contract import Dtype, Engine, Weights
from framewake.media.image import clip_crop
from framewake.models.vae import CausalVAE

log = logging.getLogger(__name__)

SHARD_CLIPS = 64
COMMON_PROMPTS = 6  # for a clip
BARE_PROMPTS = 2  # of these, where only the kind says which of two shapes is meant: it is learned last
RARE_PROMPTS = 2  # beside them, with a word that no other way has: "falls" would be one of 36 to say it
LLAVA_SIDE = 64
LATENT_STEPS = (FULL_FRAMES - 1) // 4


@dataclass(frozen=True)
class Shard:
    """Clips of one size.

    Shapes: latents (n, C, F, h, w) float16, pictures (n, S, S, 3) uint8.
    """

    latents: np.ndarray
    pictures: np.ndarray
    prompts: list[list[str]]


class Lot(NamedTuple):
    """Clips that are drawn alike: how many shards of a size (H, W), the share of scenes with two shapes, the motions
    that are drawn from, which scenes are not drawn again, and how many more prompts of a clip name the acting shape by
    its colour alone ("the red shape spins"): its kind must then be seen."""

    shards: Mapping[tuple[int, int], int]
    pairs: float
    motions: Sequence[str] = MOTIONS
    is_wanted: Callable[[Scene], bool] = lambda _scene: True
    by_colour: int = 0

    def cut(self, share: float) -> Lot:
        """A share of it, of every size one shard at least."""
        return self._replace(shards={size_px: math.ceil(shards * share) for size_px, shards in self.shards.items()})


def fill(engine: Engine, vae: CausalVAE, weights: Weights, folder: Path, lots: Sequence[Lot]) -> None:
    """Add what is missing of some lots; numbers are seeds, so that no scene is made twice."""
    numbers: dict[tuple[int, int], Iterator[int]] = defaultdict(count)
    for lot in lots:
        for size_px, shards in lot.shards.items():
            for number in islice(numbers[size_px], shards):
                _fill_shard(engine, vae, weights, folder, lot, size_px=size_px, number=number)


def _fill_shard(
    engine: Engine,
    vae: CausalVAE,
    weights: Weights,
    folder: Path,
    lot: Lot,
    *,
    size_px: tuple[int, int],
    number: int,
) -> None:
    height, width = size_px
    target = folder / f"{height}x{width}" / f"{number:05d}.npz"
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([height, width, number])
    scenes: list[Scene] = []
    while len(scenes) < SHARD_CLIPS:
        scene = sample_scene(rng, width / height, motion=str(rng.choice(lot.motions)), pairs=lot.pairs)
        scenes += [scene] if lot.is_wanted(scene) else []
    latents, pictures = [], []
    for scene in scenes:
        frames = np.stack([render_frame(scene, height, width, i / LATENT_STEPS) for i in range(LATENT_STEPS + 1)])
        means = engine.numpy(vae.encode(weights, engine.asarray(to_pixels(frames[:, None])))[0])
        latents.append(means[:, :, 0].swapaxes(0, 1))
        pictures.append(clip_crop(Image.fromarray(frames[0]), LLAVA_SIDE))
    prompts = [_prompts(rng, scene, lot.by_colour) for scene in scenes]
    partial = target.with_suffix(".partial")
    with partial.open("wb") as file:
        np.savez(
            file,
            latents=np.stack(latents).astype(np.float16),
            pictures=np.stack(pictures),
            prompts=np.array(json.dumps(prompts)),
        )
    os.replace(partial, target)
    log.info("shard %s of %s", number, target.parent.name)


def _prompts(rng: np.random.Generator, scene: Scene, by_colour: int) -> list[str]:
    bare = BARE_PROMPTS if len(scene.shapes) > 1 else 0
    more = [write_prompt(rng, scene, called_by="kind" if i < bare else None) for i in range(COMMON_PROMPTS - 1)]
    rare = [write_prompt(rng, scene, actions=RARE_ACTIONS) for _ in range(RARE_PROMPTS)]
    return [scene.prompt, *more, *rare, *(write_prompt(rng, scene, called_by="colour") for _ in range(by_colour))]


def read_shard(path: Path) -> Shard:
    """One shard."""
    with np.load(path, allow_pickle=False) as file:
        prompts = json.loads(str(file["prompts"]))
        return Shard(file["latents"], file["pictures"], prompts)


def frozen_vae(engine: Engine, folder: Path):
    """The autoencoder and its weights for encoding, bfloat16 where that is quicker.

    Raises: InputError when it has not been trained yet.
    """
    state = begun_state(folder / "vae.safetensors")
    kind: Dtype = "bfloat16" if "bfloat16" in engine.traits.products else "float32"
    return CausalVAE(engine, models.VAE), {n: engine.cast(engine.asarray(v), kind) for n, v in state.average.items()}
