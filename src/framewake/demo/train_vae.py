"""Training the demonstration autoencoder: encoder and decoder on pictures, then the decoder alone on clips.

Between the two, ``inflate`` makes the picture weights a clip's: a latent frame is then the picture latent of every
fourth frame, and what the decoder learns afterwards is the frames in between.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framewake.demo import models
from framewake.demo.optimiser import Muon, blend, clip_norm
from framewake.demo.render import background, render, render_frame
from framewake.demo.state import load_state, save_state
from framewake.demo.world import FULL_FRAMES, MOTIONS, sample_scene
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.vae import CausalVAE

log = logging.getLogger(__name__)

KL_WEIGHT = 4e-4
MISS = 0.7  # largest deviation of noise on latents (theirs is about 1.4) for the decoder alone
PLACE_WEIGHT = 8.0  # of the places that anything passes in a clip, beside 1 for those where nothing happens
SHAPE_WEIGHT = 8.0  # added where a shape is while it passes: what is in doubt is to have its colour
MISSES, MISS_SIDE = "misses", 128  # clips of one size whose latents are the transformer's
DRAWN = (*MOTIONS, "bounce", "bounce")  # what moves fastest tears most easily
SAVE_SECONDS = 120.0
REPORT_STEPS = 60


class Stage(NamedTuple):
    """How long, at which rates, on what: (side in pixels, frames, batch) by turns."""

    seconds: float
    lr_start: float
    lr_end: float
    turns: tuple[tuple[int, int, int], ...]
    trains_encoder: bool


STAGES = {
    "pictures": Stage(1500, 1.5e-3, 1e-4, ((64, 1, 32), (128, 1, 8), (96, 1, 14)), True),
    "decoder": Stage(3700, 1e-3, 1.5e-4, ((64, 33, 1), (128, 9, 1), (96, 17, 1), (128, 17, 1)), False),
}


def train(engine: Engine, folder: Path, stage: str, *, seconds: float | None = None) -> None:
    """Run one stage for its time, from where the folder's state stands; safe to stop and start again."""
    plan = STAGES[stage]
    duration = seconds or plan.seconds
    vae = CausalVAE(engine, models.VAE)
    state = load_state(folder / "vae.safetensors")
    weights = {n: engine.asarray(a) for n, a in (state.weights if state else models.start_vae(vae.shapes(), 0)).items()}
    average = {n: engine.asarray(a) for n, a in state.average.items()} if state else weights
    spent = state.progress.get(stage, 0.0) if state else 0.0
    trained = {n: w for n, w in weights.items() if plan.trains_encoder or n.startswith(("decoder.", "post_quant"))}
    optimiser = Muon(engine, trained, plain=("decoder.conv_out", "encoder.conv_in", "quant_conv", "post_quant_conv"))
    value_and_grad = engine.grad(
        lambda w, fixed, *data: loss(engine, vae, {**fixed, **w}, *data, is_posterior=plan.trains_encoder)
    )
    rng = np.random.default_rng(int(spent * 1000) + 17)
    start = saved = time.monotonic()
    errors: list[float] = []
    while spent + time.monotonic() - start < duration:
        share = (spent + time.monotonic() - start) / duration
        lr = plan.lr_start * (plan.lr_end / plan.lr_start) ** share * min(1.0, (optimiser.steps + 1) / 20)
        turn = plan.turns[optimiser.steps % len(plan.turns)]
        (drawn, grounds), noise = draw(rng, turn, is_posterior=plan.trains_encoder)
        known = [] if plan.trains_encoder else sorted((folder / MISSES).glob("*.npz"))
        if known and turn[0] == MISS_SIDE:
            (drawn, grounds), noise = draw_miss(rng, known[int(rng.integers(len(known)))], turn[1])
        pixels, weight, noise = (engine.asarray(array) for array in (drawn, place_weight(drawn, grounds), noise))
        fixed = {n: w for n, w in weights.items() if n not in trained}
        value, grads = value_and_grad(trained, fixed, pixels, weight, noise)
        grads, norm = clip_norm(engine, grads, 1.0)
        trained = optimiser.step(trained, grads, lr, lr)
        weights = {**weights, **trained}
        average = blend(average, weights, min(0.995, 1 - 1 / (optimiser.steps + (200 if state else 1))))
        errors.append(float(engine.numpy(value)))
        if optimiser.steps % REPORT_STEPS == 0:
            seconds_done = spent + time.monotonic() - start
            log.info("%s %d %.0fs loss %.5f norm %.3f lr %.1e psnr %.2f", stage, optimiser.steps, seconds_done,
                     np.mean(errors[-REPORT_STEPS:]), norm, lr, psnr_on_new(engine, vae, average, turn[1]))  # fmt: skip
        if time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            _save(engine, folder, weights, average, {**(state.progress if state else {}), stage: spent + saved - start})
    _save(engine, folder, weights, average, {**(state.progress if state else {}), stage: duration})


def loss(
    engine: Engine,
    vae: CausalVAE,
    weights: Weights,
    pixels: Tensor,
    weight: Tensor,
    noise: Tensor,
    *,
    is_posterior: bool = True,
) -> Tensor:
    """Squared and absolute pixel error plus a small divergence from N(0, 1).

    The noise is in units of the posterior's deviation, or, where ``is_posterior`` is false, of the latents.
    Shapes: pixels (B, 3, F, H, W), weight of ``place_weight``, noise as the latents.
    """
    half = {n: engine.cast(w, "bfloat16") for n, w in weights.items()} if engine.kind == "torch" else weights
    mean, logvar = (engine.cast(x, "float32") for x in picture_latents(engine, vae, half, pixels))
    divergence = engine.mean(mean * mean + engine.exp(logvar) - logvar - 1.0, (0, 1, 2, 3, 4)) * 0.5
    latents = mean + (engine.exp(logvar * 0.5) * noise if is_posterior else noise)
    error = engine.cast(vae.decode(half, latents), "float32") - pixels
    squared = error * error
    absolute = engine.sqrt(squared + 1e-4) * weight
    squared = squared * weight
    return engine.mean(squared, (0, 1, 2, 3, 4)) + engine.mean(absolute, (0, 1, 2, 3, 4)) * 0.2 + divergence * KL_WEIGHT


Drawn = tuple[tuple[np.ndarray, np.ndarray], np.ndarray]


def draw(rng: np.random.Generator, turn: tuple[int, int, int], *, is_posterior: bool) -> Drawn:
    """Fresh scenes (as ``sample_pixels`` has them) and noise for their latents: of deviation 1 for the posterior, else
    mostly little, and hardly any in the first frame.

    Shapes: noise (B, 16, f, side / 8, side / 8) float32.
    """
    side, frames, batch = turn
    scenes = sample_pixels(rng, side, frames, batch)
    noise = rng.standard_normal((batch, 16, 1 + (frames - 1) // 4, side // 8, side // 8)).astype(np.float32)
    if not is_posterior:
        spread = np.repeat(MISS * rng.random((batch, 1, 1, 1, 1)) ** 2, noise.shape[2], 2)
        spread[:, :, 0] = 0.05
        noise *= spread.astype(np.float32)
    return scenes, noise


def draw_miss(rng: np.random.Generator, path: Path, frames: int) -> Drawn:
    """A part of a clip and how far the transformer's latents of it are off (see ``framewake.demo.misses``).

    Shapes: as ``draw`` has them, B = 1.
    """
    with np.load(path, allow_pickle=False) as file:
        clip, ground, miss = file["frames"], file["ground"], file["miss"]
    count = 1 + (frames - 1) // 4
    first = 0 if rng.random() < 0.3 else int(rng.integers(0, miss.shape[1] - count + 1))
    part = clip[4 * first : 4 * first + frames]
    scenes = _to_pixels(part[None]), _to_pixels(ground[None, None])[:, :, 0]
    return scenes, np.ascontiguousarray(miss[None, :, first : first + count].astype(np.float32))


def place_weight(pixels: np.ndarray, grounds: np.ndarray) -> np.ndarray:
    """More weight where a clip changes at any moment, and most where the shape then is, mean 1: there its colours
    smear, and it is the smaller part.

    Shapes: pixels and grounds of ``sample_pixels`` -> (B, 1, F, H, W) float32; all ones for pictures.
    """
    is_passed = np.abs(pixels - pixels[:, :, :1]).max((1, 2))[:, None, None] > 0.1
    is_shape = np.abs(pixels - grounds[:, :, None]).max(1, keepdims=True) > 0.1
    weight = 1 + is_passed * (PLACE_WEIGHT + SHAPE_WEIGHT * is_shape)
    return (weight / weight.mean((1, 2, 3, 4), keepdims=True)).astype(np.float32)


def picture_latents(engine: Engine, vae: CausalVAE, weights: Weights, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and log variance of every fourth frame of clips, each encoded as a picture of its own.

    Shapes: pixels (B, 3, 1 + 4 n, H, W) -> two of (B, C, 1 + n, h, w).
    """
    pictures = pixels[:, :, ::4]
    batch, channels, count, height, width = pictures.shape
    flat = engine.reshape(engine.permute(pictures, (0, 2, 1, 3, 4)), (batch * count, channels, 1, height, width))
    pair = []
    for part in vae.encode(weights, flat):
        split = engine.reshape(part, (batch, count, *part.shape[1:2], *part.shape[3:]))
        pair.append(engine.permute(split, (0, 2, 1, 3, 4)))
    return pair[0], pair[1]


def inflate(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Weights that treat each frame of a clip as the given ones treat a picture.

    A picture is one frame repeated into the past, so the taps in time add up; here the present's tap takes their sum.
    """
    inflated = {}
    for name, value in weights.items():
        inflated[name] = value
        if value.ndim == 5 and value.shape[2] == 3:
            inflated[name] = np.zeros_like(value)
            inflated[name][:, :, 2] = value.sum(2)
    return inflated


def sample_pixels(rng: np.random.Generator, side: int, frames: int, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """Random scenes and what is behind their shapes; clips begin anywhere in a motion.

    Shapes: (B, 3, F, side, side) and (B, 3, side, side), float32 in [-1, 1].
    """
    clips, grounds = [], []
    for _ in range(batch):
        scene = sample_scene(rng, motion=str(rng.choice(DRAWN)))
        if frames == 1:
            clip = render_frame(scene, side, side, rng.random())[None]
        else:
            clip = render(scene, side, side)
            first = 0 if rng.random() < 0.3 else int(rng.integers(0, FULL_FRAMES - frames + 1))
            clip = clip[first : first + frames]
        clips.append(clip)
        grounds.append(background(scene, side, side)[None])
    return _to_pixels(np.stack(clips)), _to_pixels(np.stack(grounds))[:, :, 0]


def _to_pixels(clips: np.ndarray) -> np.ndarray:
    """Clips (B, F, H, W, 3) of 0..255 as (B, 3, F, H, W) float32 in [-1, 1]."""
    return (clips.transpose(0, 4, 1, 2, 3) / np.float32(127.5) - 1).astype(np.float32)


def psnr_on_new(engine: Engine, vae: CausalVAE, weights: Weights, frames: int) -> float:
    """PSNR in dB of reconstructions in float32, over six fixed scenes of 128 px never trained on."""
    pixels = engine.asarray(sample_pixels(np.random.default_rng(987654321), 128, frames, 6)[0])
    mean, _ = picture_latents(engine, vae, weights, pixels)
    error = engine.clip(vae.decode(weights, mean), -1, 1) - pixels
    return float(10 * np.log10(4 / engine.numpy(engine.mean(error * error, (0, 1, 2, 3, 4)))))


def _save(engine: Engine, folder: Path, weights: Weights, average: Weights, progress: dict[str, float]) -> None:
    save_state(folder / "vae.safetensors", engine, weights=weights, average=average, progress=progress)
