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

from demonstration import models
from demonstration.optimiser import Muon, blend, clip_norm
from demonstration.render import render_frame
from demonstration.state import load_state, save_state
from demonstration.windows import CELL, DRAWN, Drawn, Turn, Windows, draw_moments, picture_latents, to_pixels
from demonstration.world import sample_scene
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.vae import CausalVAE

log = logging.getLogger(__name__)

KL_WEIGHT, SQUARED_WEIGHT, ABSOLUTE_WEIGHT, COLOUR_WEIGHT = 4e-4, 10.0, 1.5, 5.0
PATCH = 16  # pixels of a side whose inner colour is compared
SAVE_SECONDS = 120.0
REPORT_STEPS = 60


class Stage(NamedTuple):
    """How long, at which rates, on what by turns."""

    seconds: float
    lr_start: float
    lr_end: float
    turns: tuple[Turn, ...]
    trains_encoder: bool


PICTURES = (Turn(64, 1, 32, 64), Turn(128, 1, 8, 128), Turn(96, 1, 14, 96))
SHAPES, LONG = Turn(128, 9, 4, 64), Turn(128, 33, 1, 96)  # a long one shows a shape where it was and where it is
PICTURE = Turn(128, 1, 12, 64)  # three times as many shapes in a third of the time
WHOLE = Turn(128, 9, 1, 128), Turn(96, 17, 1, 96), Turn(64, 33, 1, 64)
CLIPS = (SHAPES, PICTURE, LONG, SHAPES, PICTURE, WHOLE[0], SHAPES, PICTURE, LONG, SHAPES, PICTURE, WHOLE[1], LONG,
         PICTURE, WHOLE[2])  # fmt: skip
STAGES = {
    "pictures": Stage(1500, 1.5e-3, 1e-4, PICTURES, True),
    "decoder": Stage(14400, 1e-3, 3e-5, CLIPS, False),
}


def train(engine: Engine, folder: Path, stage: str, *, seconds: float) -> None:
    """Run one stage for some time, from where the folder's state stands; safe to stop and start again."""
    plan, duration = STAGES[stage], seconds
    vae = CausalVAE(engine, models.VAE)
    state = load_state(folder / "vae.safetensors")
    weights = {n: engine.asarray(a) for n, a in (state.weights if state else models.start_vae(vae.shapes(), 0)).items()}
    average = {n: engine.asarray(a) for n, a in state.average.items()} if state else weights
    spent = state.progress.get(stage, 0.0) if state else 0.0
    trained = {n: w for n, w in weights.items() if plan.trains_encoder or n.startswith(("decoder.", "post_quant"))}
    optimiser = Muon(engine, trained, plain=("decoder.conv_out", "encoder.conv_in", "quant_conv", "post_quant_conv"))
    halved = _halved(engine, weights)
    windows = None if plan.trains_encoder else Windows(engine, vae, halved, folder)
    step = engine.grad(lambda w, *data: loss(engine, vae, w, *data, is_posterior=not windows))
    rng = np.random.default_rng(int(spent * 1000) + 17)
    start = saved = time.monotonic()
    errors: list[float] = []
    while spent + time.monotonic() - start < duration:
        share = (spent + time.monotonic() - start) / duration
        lr = plan.lr_start * (plan.lr_end / plan.lr_start) ** share * min(1.0, (optimiser.steps + 1) / 20)
        turn = plan.turns[optimiser.steps % len(plan.turns)]
        drawn = windows.draw(rng, turn) if windows else draw_pictures(rng, turn)
        value, grads = step(trained, *(engine.asarray(array) for array in drawn))
        grads, norm = clip_norm(engine, grads, 1.0)
        trained = optimiser.step(trained, grads, lr, lr)
        weights = {**weights, **trained}
        average = blend(average, weights, min(0.995, 1 - 1 / (optimiser.steps + (200 if state else 1))))
        errors.append(float(engine.numpy(value)))
        if optimiser.steps % REPORT_STEPS == 0:
            seconds_done = spent + time.monotonic() - start
            psnr = psnr_on_new(engine, vae, average, turn.frames)
            log.info("%s %d %.0fs loss %.5f norm %.3f lr %.1e psnr %.2f", stage, optimiser.steps, seconds_done,
                     np.mean(errors[-REPORT_STEPS:]), norm, lr, psnr)  # fmt: skip
        if time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            _save(engine, folder, weights, average, {**(state.progress if state else {}), stage: spent + saved - start})
    _save(engine, folder, weights, average, {**(state.progress if state else {}), stage: duration})


def loss(
    engine: Engine,
    vae: CausalVAE,
    weights: Weights,
    *drawn: Tensor,
    is_posterior: bool = True,
) -> Tensor:
    """Squared and absolute error of pixels, absolute error of the mean colours inside shapes and, with an encoder to
    train, a small divergence from N(0, 1).

    The outlines of what moves are wrong in few pixels by much, and would be all that counts: a shape whose colour is
    off by 15 levels everywhere is hardly seen in the pixels' error, nor are thin arms that take on the ground's.

    ``drawn`` is a ``Drawn`` on the engine; where ``is_posterior``, what it gives is the noise that makes the latents.
    """
    pixels, weight, core, given = drawn
    half = _halved(engine, weights)
    latents, divergence = given, 0.0
    if is_posterior:
        mean, logvar = (engine.cast(x, "float32") for x in picture_latents(engine, vae, half, pixels))
        divergence = engine.mean(mean * mean + engine.exp(logvar) - logvar - 1.0, (0, 1, 2, 3, 4)) * 0.5
        latents = mean + engine.exp(logvar * 0.5) * given
    error = seen_errors(engine, engine.cast(vae.decode(half, latents), "float32"), pixels)
    squared = error * error
    absolute = engine.sqrt(squared + 1e-4) * weight
    squared = squared * weight
    off, area = inner_errors(engine, error, core)
    colour = engine.sqrt(off * off + 1e-4) * area
    everything = (0, 1, 2, 3, 4)
    share = engine.mean(area, everything)
    return (
        engine.mean(squared, everything) * SQUARED_WEIGHT
        + engine.mean(absolute, everything) * ABSOLUTE_WEIGHT
        + engine.mean(colour, everything) / (share + 1e-4) * COLOUR_WEIGHT
        + divergence * KL_WEIGHT
    )


def seen_errors(engine: Engine, found: Tensor, pixels: Tensor) -> Tensor:
    """What is off after clipping to [-1, 1]: to lie beyond an extreme that is wanted is no error.

    Counted as one, it keeps the purest colours short of where they should be.
    """
    error = found - pixels
    is_beyond = pixels * found > 1.0
    return engine.where(pixels * pixels >= 1.0, engine.where(is_beyond, error * 0.0, error), error)


def inner_errors(engine: Engine, error: Tensor, core: Tensor) -> tuple[Tensor, Tensor]:
    """Mean error inside shapes of every patch of 16 pixels, and the share of the patch that is inside.

    Shapes: error (B, C, F, H, W), core (B, 1, F, H, W) -> (B, C, F, H / 16, W / 16), (B, 1, F, H / 16, W / 16).
    """
    area = patch_means(engine, core)
    return patch_means(engine, error * core) / (area + 1e-4), area


def patch_means(engine: Engine, pixels: Tensor) -> Tensor:
    """Shapes: (B, C, F, H, W) -> (B, C, F, H / 16, W / 16)."""
    batch, channels, frames, height, width = pixels.shape
    patches = (batch, channels, frames, height // PATCH, PATCH, width // PATCH, PATCH)
    return engine.mean(engine.reshape(pixels, patches), (4, 6))


def draw_pictures(rng: np.random.Generator, turn: Turn) -> Drawn:
    """Fresh pictures in which every pixel counts the same."""
    pixels = sample_pixels(rng, turn.side, 1, turn.batch)
    cells = turn.side // CELL
    noise = rng.standard_normal((turn.batch, models.VAE.latent_channels, 1, cells, cells)).astype(np.float32)
    return Drawn(pixels, np.ones_like(pixels[:, :1]), np.ones_like(pixels[:, :1]), noise)


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


def sample_pixels(rng: np.random.Generator, side: int, frames: int, batch: int) -> np.ndarray:
    """Random scenes (B, 3, F, side, side) float32 in [-1, 1]; pictures are of any moment, clips begin at any."""
    clips = []
    for _ in range(batch):
        scene = sample_scene(rng, motion=str(rng.choice(DRAWN)))
        moments = draw_moments(rng, frames) if frames > 1 else [rng.random()]
        clips.append(np.stack([render_frame(scene, side, side, moment) for moment in moments]))
    return to_pixels(np.stack(clips))


def psnr_on_new(engine: Engine, vae: CausalVAE, weights: Weights, frames: int) -> float:
    """PSNR in dB of reconstructions in float32, over six fixed scenes of 128 px never trained on."""
    pixels = engine.asarray(sample_pixels(np.random.default_rng(987654321), 128, frames, 6))
    mean, _ = picture_latents(engine, vae, weights, pixels)
    error = engine.clip(vae.decode(weights, mean), -1, 1) - pixels
    return float(10 * np.log10(4 / engine.numpy(engine.mean(error * error, (0, 1, 2, 3, 4)))))


def _save(engine: Engine, folder: Path, weights: Weights, average: Weights, progress: dict[str, float]) -> None:
    save_state(folder / "vae.safetensors", engine, weights=weights, average=average, progress=progress)


def _halved(engine: Engine, weights: Weights) -> Weights:
    """Weights in bfloat16, where the engine multiplies in it."""
    has_half = "bfloat16" in engine.traits.products
    return {name: engine.cast(w, "bfloat16") for name, w in weights.items()} if has_half else weights
