"""What an error of latents costs: colours more than the rest.

Three directions of the latents carry the mean colour of a cell. Their part of the transformer's squared error is small
(a tenth), so that it was content to give every shape its colour name's usual colour, 10 to 20 levels off the picture's.
"""

from __future__ import annotations

import math

import numpy as np

from framewake.demo.train_vae import sample_pixels
from framewake.demo.windows import CELL, picture_latents
from framewake.engine.contract import Engine, Weights
from framewake.models.vae import CausalVAE

COLOUR_WEIGHT = 10.0  # of squared error in those directions, beside 1 in all others
PICTURES, SIDE = 64, 128


def colour_metric(engine: Engine, vae: CausalVAE, weights: Weights) -> np.ndarray:
    """What errors of latents are multiplied by: the directions that carry colours are fitted by least squares.

    Shapes: (C, C) float32, symmetric.
    """
    pixels = sample_pixels(np.random.default_rng(78), SIDE, 1, PICTURES)
    latents = engine.numpy(engine.cast(picture_latents(engine, vae, weights, engine.asarray(pixels))[0], "float32"))
    cells = SIDE // CELL
    colours = pixels.reshape(PICTURES, 3, cells, CELL, cells, CELL).mean((3, 5))
    flat = np.moveaxis(latents[:, :, 0], 1, -1).reshape(-1, latents.shape[1])
    flat = np.concatenate([flat, np.ones_like(flat[:, :1])], 1)
    found = np.linalg.lstsq(flat, np.moveaxis(colours, 1, -1).reshape(-1, 3), rcond=None)[0]
    basis, _ = np.linalg.qr(found[:-1])
    longer = (math.sqrt(COLOUR_WEIGHT) - 1) * basis @ basis.T
    return (np.eye(len(longer)) + longer).astype(np.float32)
