"""What the transformer gets wrong, so that the decoder can be trained on it: clips with the latents' misses."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import numpy as np

from framewake.demo import transformer
from framewake.demo.render import background, render
from framewake.demo.sample import denoise
from framewake.demo.state import begun_state, read_scale
from framewake.demo.windows import DRAWN, MISS_SIDE, MISSES, picture_latents, to_pixels
from framewake.demo.world import sample_scene
from framewake.engine.contract import Engine, Weights
from framewake.models.vae import CausalVAE

log = logging.getLogger(__name__)

STEPS, SKIPPED = 8, 2  # of the schedule; the rest begins at so much noise that the transformer decides nearly all
FIRST_SEED = 700_000  # judged scenes have other seeds


def fill(engine: Engine, vae: CausalVAE, vae_weights: Weights, folder: Path, *, count: int) -> None:
    """Add clips to ``folder / "misses"`` until there are ``count``, made by the transformer as it stands.

    A file holds a clip, ``frames`` (F, H, W, 3) uint8, what is behind its shapes, ``ground`` (H, W, 3) float32 of
    0..255, and what its latents are off by, ``miss`` (C, f, h, w) float16.
    Raises: InputError when the transformer has not been trained yet.
    """
    target = folder / MISSES
    target.mkdir(parents=True, exist_ok=True)
    state = begun_state(folder / "dit.safetensors")
    model = transformer.Model(engine, transformer.Texts(folder))
    weights = {n: engine.asarray(a) for n, a in state.average.items()}
    scale = read_scale(folder)
    for number in range(len(list(target.glob("*.npz"))), count):
        rng = np.random.default_rng(FIRST_SEED + number)
        scene = sample_scene(rng, motion=str(rng.choice(DRAWN)))
        frames = render(scene, MISS_SIDE, MISS_SIDE)
        pixels = engine.asarray(to_pixels(frames[None]))
        clean = engine.numpy(picture_latents(engine, vae, vae_weights, pixels)[0]).astype(np.float32)
        noise = rng.standard_normal(clean.shape).astype(np.float32)
        found = denoise(engine, model, weights, scene, (noise, clean * np.float32(scale)), (STEPS, SKIPPED))
        miss = (found / np.float32(scale) - clean)[0].astype(np.float16)
        partial = target / f"{number:05d}.partial"
        with partial.open("wb") as file:
            np.savez_compressed(file, frames=frames, ground=background(scene, MISS_SIDE, MISS_SIDE), miss=miss)
        os.replace(partial, target / f"{number:05d}.npz")
        log.info("miss %s: deviation %.3f", number, float(miss[:, 1:].std()) * scale)
