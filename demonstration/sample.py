"""Clips straight from a training run, many at a time: a look at how far it is."""

from __future__ import annotations

import functools
import logging
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from demonstration import models, transformer
from demonstration.follow import judge
from demonstration.pool import LLAVA_SIDE
from demonstration.render import render_frame
from demonstration.state import begun_state, read_scale
from demonstration.windows import to_pixels
from demonstration.world import FULL_FRAMES, MOTIONS, Scene, sample_scene
from framewake.engine.contract import Engine, Weights
from framewake.media.image import clip_pixels
from framewake.models.vae import CausalVAE
from framewake.pipeline.velocity import Condition, Wrapping
from framewake.sampling.flow import schedule
from framewake.sampling.guide import sample
from framewake.weights.stores.store import Resident

log = logging.getLogger(__name__)
UNSEEN = 900_000  # seeds from here on are judged, and never trained on
LOOKED_AT = 800_000  # those of looks: a run that is chosen by what is judged seems better than it is


def look(engine: Engine, folder: Path, *, size_px: tuple[int, int], per_motion: int, steps: int = 12) -> None:
    """Sample scenes of every motion, judge them, and write a contact sheet ``look.png`` into the folder.

    Units: ``size_px`` is height and width.
    Raises: InputError when there is nothing to look at yet.
    """
    state, vae_state = begun_state(folder / "dit.safetensors"), begun_state(folder / "vae.safetensors")
    model = transformer.Model(engine, transformer.Texts(folder))
    weights = {n: engine.asarray(a) for n, a in state.average.items()}
    vae, vae_weights = CausalVAE(engine, models.VAE), {n: engine.asarray(a) for n, a in vae_state.average.items()}
    scale = read_scale(folder)
    good: dict[str, list[bool]] = defaultdict(list)
    rows = []
    for number, motion in enumerate(MOTIONS * per_motion):
        scene = sample_scene(np.random.default_rng(LOOKED_AT + number), size_px[1] / size_px[0], motion=motion)
        frames = clip_of(engine, (model, weights, vae, vae_weights, scale), scene, size_px, steps)
        verdict = judge(scene, frames)
        good[motion].append(verdict.follows)
        facts = (motion, verdict.follows, verdict.first_frame_psnr, verdict.colour_error, verdict.is_whole)
        log.info("%-10s %-5s psnr %.1f colour %.1f whole %s | %s | %s", *facts, scene.prompt, verdict.reason)
        if number < len(MOTIONS):
            rows.append(np.concatenate(list(frames[::4]), axis=1))
    Image.fromarray(np.concatenate(rows)).save(folder / "look.png")
    log.info("followed: %s", {motion: f"{sum(v)}/{len(v)}" for motion, v in good.items()})


def clip_of(engine: Engine, parts: tuple, scene: Scene, size_px: tuple[int, int], steps: int) -> np.ndarray:
    """Frames (F, H, W, 3) uint8 of one scene from its first frame and prompt."""
    model, weights, vae, vae_weights, scale = parts
    first = render_frame(scene, *size_px, 0.0)
    pixels = engine.asarray(to_pixels(first[None, None]))
    image = engine.numpy(vae.encode(vae_weights, pixels)[0] * scale)
    shape = (1, 16, (FULL_FRAMES - 1) // 4 + 1, size_px[0] // 8, size_px[1] // 8)
    noise = np.random.default_rng(3).standard_normal(shape).astype(np.float32)
    x = denoise(engine, model, weights, scene, (noise, image), (steps, 0))
    return decode_clip(engine, vae, vae_weights, x / np.float32(scale))


def decode_clip(engine: Engine, vae: CausalVAE, weights: Weights, latents: np.ndarray) -> np.ndarray:
    """Frames (F, H, W, 3) uint8 of a clip's unscaled latents (1, C, f, h, w)."""
    video = engine.numpy(vae.decode(weights, engine.asarray(latents)))[0]
    return (np.clip(video.transpose(1, 2, 3, 0) / 2 + 0.5, 0, 1) * 255).astype(np.uint8)


def denoise(
    engine: Engine,
    model: transformer.Model,
    weights: Weights,
    scene: Scene,
    start: tuple[np.ndarray, np.ndarray],
    steps: tuple[int, int],
) -> np.ndarray:
    """Scaled latents of a scene's clip; ``steps`` are all of the schedule's and how many of them are skipped.

    ``start`` is the noise and the latents to keep: the first frame's for a whole run, a clip's where steps are skipped.
    Shapes: noise (1, C, F, h, w), latents (1, C, 1 or F, h, w) -> (1, C, F, h, w) float32.
    """
    noise, clean = start
    _, _, frames, height, width = noise.shape
    first = render_frame(scene, height * 8, width * 8, 0.0)
    picture = clip_pixels(Image.fromarray(first), LLAVA_SIDE)[None]
    text = model.text(weights, transformer.Batch(np.zeros(0), picture, *model.texts.ids(scene.prompt)))
    wrapping = Wrapping(engine, models.DIT, noise.shape[1:], 4 * frames - 3, guidance=6.0, dtype="bfloat16")
    total, skipped = steps
    plan = schedule(total, 7.0)
    store = Resident(transformer.part(weights, "dit."))
    image = engine.asarray(np.ascontiguousarray(clean[:, :, :1]))
    level = float(plan.sigmas[skipped])
    x = engine.asarray(noise if not skipped else clean * np.float32(1 - level) + noise * np.float32(level))
    condition = Condition(text, image)
    velocity = wrapping.denoise(functools.partial(model.dit, store), condition)
    for step in sample(engine, velocity, x, plan, first_frame=wrapping.first_frame(condition), start=skipped):
        x = step.latents
    return engine.numpy(x)
