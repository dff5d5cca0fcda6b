"""What an error of latents costs: what it does to the picture.

The transformer's squared error says little of colours. A reader of two small convolutions is taught what colours
latents stand for, so that an error of latents can be measured in those too.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np

from demonstration import models
from demonstration.optimiser import Muon
from demonstration.state import load_state, save_state
from demonstration.train_vae import sample_pixels
from demonstration.windows import CELL, picture_latents
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.vae import CausalVAE

log = logging.getLogger(__name__)

FILE = "reader.safetensors"
WIDTH = 64
BLOCK = 4  # pixels of a side whose mean colour is read
SIDE, PICTURES, AT_ONCE = 128, 1920, 48
STEPS, BATCH = 2000, 24
LR_START, LR_END = 1e-3, 2e-5


def read_colours(engine: Engine, weights: Weights, latents: Tensor) -> Tensor:
    """Mean colours of blocks, in [-1, 1], from scaled latents.

    Shapes: (N, C, h, w) -> (N, 3 * blocks of a cell, h, w) in the order of ``colours_of``.
    """
    x = latents
    for name in ("first", "second"):
        x = engine.pad(x, ((1, 1), (1, 1)))
        x = engine.gelu(engine.conv2d(x, weights[f"{name}.weight"], weights[f"{name}.bias"]))
    return engine.conv2d(x, weights["last.weight"], weights["last.bias"])


def colours_of(pixels: np.ndarray) -> np.ndarray:
    """What is to be read. Shapes: (N, 3, H, W) -> (N, 3 * blocks of a cell, h, w)."""
    count, channels, height, width = pixels.shape
    side = CELL // BLOCK
    blocks = pixels.reshape(count, channels, height // CELL, side, BLOCK, width // CELL, side, BLOCK).mean((4, 7))
    return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(count, -1, height // CELL, width // CELL)


def begun_reader(engine: Engine, vae: CausalVAE, vae_weights: Weights, folder: Path, scale: float) -> Weights:
    """The folder's reader, taught in a minute where there is none yet."""
    state = load_state(folder / FILE)
    if state is None:
        weights = teach(engine, vae, vae_weights, scale)
        save_state(folder / FILE, engine, weights=weights, average=weights, progress={})
        return weights
    return {n: engine.asarray(a) for n, a in state.weights.items()}


def teach(
    engine: Engine,
    vae: CausalVAE,
    vae_weights: Weights,
    scale: float,
    *,
    pictures: int = PICTURES,
    steps: int = STEPS,
) -> Weights:
    """Train a reader on fresh pictures, by squared error."""
    rng = np.random.default_rng(78)
    latents, colours = [], []
    for _ in range(pictures // AT_ONCE):
        pixels = sample_pixels(rng, SIDE, 1, AT_ONCE)
        mean = picture_latents(engine, vae, vae_weights, engine.asarray(pixels))[0]
        latents.append(engine.numpy(engine.cast(mean, "float32"))[:, :, 0] * np.float32(scale))
        colours.append(colours_of(pixels[:, :, 0]))
    known, wanted = np.concatenate(latents), np.concatenate(colours)

    def loss(weights: Weights, given: Tensor, true: Tensor) -> Tensor:
        error = read_colours(engine, weights, given) - true
        return engine.mean(error * error, (0, 1, 2, 3))

    weights = {n: engine.asarray(a) for n, a in first_reader(rng).items()}
    optimiser, step = Muon(engine, weights, plain=("last",)), engine.grad(loss)
    errors = []
    for number in range(steps):
        chosen = rng.integers(0, len(known), BATCH)
        value, grads = step(weights, engine.asarray(known[chosen]), engine.asarray(wanted[chosen]))
        lr = LR_START * (LR_END / LR_START) ** (number / steps)
        weights = optimiser.step(weights, grads, lr, lr)
        errors.append(float(engine.numpy(value)))
    levels = math.sqrt(np.mean(errors[-50:])) * 127.5
    log.info("the reader is off by %.1f levels (root of the mean square)", levels)
    return weights


def first_reader(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Weights before training: N(0, 2 / fan_in)."""
    outputs = models.VAE.out_channels * (CELL // BLOCK) ** 2
    shapes = {
        "first": (WIDTH, models.VAE.latent_channels, 3, 3),
        "second": (WIDTH, WIDTH, 3, 3),
        "last": (outputs, WIDTH, 1, 1),
    }
    weights = {}
    for name, shape in shapes.items():
        weights[f"{name}.weight"] = rng.standard_normal(shape) * math.sqrt(2 / math.prod(shape[1:]))
        weights[f"{name}.bias"] = np.zeros(shape[0])
    return {n: a.astype(np.float32) for n, a in weights.items()}
