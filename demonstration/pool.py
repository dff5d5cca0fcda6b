"""Encoded clips on disk, made by one process and read by another while it grows.

A shard holds clips of one size; each clip has the latents of every fourth frame, each encoded as a picture of its own
(see ``train_vae``), what LLaVA sees, and several ways to say what happens.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
HARD = ("spin", "spin", "bounce", "grow", "shrink")  # drawn more often than the others
LATENT_STEPS = (FULL_FRAMES - 1) // 4


@dataclass(frozen=True)
class Shard:
    """Clips of one size.

    Shapes: latents (n, C, F, h, w) float16, pictures (n, S, S, 3) uint8.
    """

    latents: np.ndarray
    pictures: np.ndarray
    prompts: list[list[str]]


class Plan(NamedTuple):
    """Clips to encode: the share of scenes with two shapes, size (H, W) -> how many shards there are then, the motions
    that are drawn from, which scenes are not drawn again, and how many more prompts of a clip name the acting shape by
    its colour alone ("the red shape spins"): its kind must then be seen."""

    pairs: float
    sizes: dict[tuple[int, int], int]
    motions: Sequence[str] = MOTIONS + HARD
    is_wanted: Callable[[Scene], bool] = lambda _scene: True
    by_colour: int = 0


def fill(engine: Engine, vae: CausalVAE, weights: Weights, folder: Path, plan: Plan) -> None:
    """Add freshly drawn scenes until there are so many shards; numbers are seeds, so that none is made twice."""
    for size_px, shards in plan.sizes.items():
        _fill_size(engine, vae, weights, folder, plan, size_px=size_px, shards=shards)


def _fill_size(
    engine: Engine,
    vae: CausalVAE,
    weights: Weights,
    folder: Path,
    plan: Plan,
    *,
    size_px: tuple[int, int],
    shards: int,
) -> None:
    height, width = size_px
    target = folder / f"{height}x{width}"
    target.mkdir(parents=True, exist_ok=True)
    done = len(list(target.glob("*.npz")))
    for number in range(done, shards):
        rng = np.random.default_rng([height, width, number])
        scenes: list[Scene] = []
        while len(scenes) < SHARD_CLIPS:
            scene = sample_scene(rng, width / height, motion=str(rng.choice(plan.motions)), pairs=plan.pairs)
            scenes += [scene] if plan.is_wanted(scene) else []
        latents, pictures = [], []
        for scene in scenes:
            frames = np.stack([render_frame(scene, height, width, i / LATENT_STEPS) for i in range(LATENT_STEPS + 1)])
            means = engine.numpy(vae.encode(weights, engine.asarray(to_pixels(frames[:, None])))[0])
            latents.append(means[:, :, 0].swapaxes(0, 1))
            pictures.append(clip_crop(Image.fromarray(frames[0]), LLAVA_SIDE))
        prompts = [_prompts(rng, scene, plan.by_colour) for scene in scenes]
        partial = target / f"{number:05d}.partial"
        with partial.open("wb") as file:
            np.savez(
                file,
                latents=np.stack(latents).astype(np.float16),
                pictures=np.stack(pictures),
                prompts=np.array(json.dumps(prompts)),
            )
        os.replace(partial, target / f"{number:05d}.npz")
        log.info("shard %s of %s", number, target.name)


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
