"""A small picture of unfinished latents, without the decoder.

One linear map from latent channels to colours is fitted by least squares on a picture whose latent is
already known: the input image, or a chart of colours when there is none. So it fits any autoencoder and
costs microseconds a step; it shows layout, colour and motion, not detail.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Preview:
    """A fitted map. Shapes: ``matrix`` (C + 1, 3), the last row is the offset."""

    matrix: np.ndarray

    def __call__(self, latents: np.ndarray) -> np.ndarray:
        """The middle frame. Shapes: latents (1, C, F, H, W) -> uint8 (H, W, 3)."""
        return self.frames(latents[:, :, latents.shape[2] // 2][:, :, None])[0]

    def frames(self, latents: np.ndarray) -> np.ndarray:
        """Every latent frame. Shapes: latents (1, C, F, H, W) -> uint8 (F, H, W, 3)."""
        colours = np.moveaxis(latents[0], 0, -1) @ self.matrix[:-1] + self.matrix[-1]
        return np.clip(np.nan_to_num(colours) * 255.0, 0.0, 255.0).astype(np.uint8)


def fit(latent: np.ndarray, picture: np.ndarray) -> Preview:
    """Fit latent cells to the mean colours of the pixels they stand for.

    A little ridge keeps a flat picture from giving an arbitrary map.

    Shapes: latent (1, C, 1, H, W), picture uint8 (8H, 8W, 3) or any whole multiple.
    """
    channels, height, width = latent.shape[1], latent.shape[3], latent.shape[4]
    rows, columns = picture.shape[0] // height, picture.shape[1] // width
    cells = picture[: height * rows, : width * columns].reshape(height, rows, width, columns, 3)
    colours = cells.mean(axis=(1, 3)).reshape(-1, 3) / 255.0
    inputs = np.concatenate([latent[0, :, 0].reshape(channels, -1).T, np.ones((height * width, 1))], axis=1)
    inputs = inputs.astype(np.float64)
    ridge = 1e-3 * height * width * np.eye(channels + 1)
    ridge[-1, -1] = 1e-9
    return Preview(np.linalg.solve(inputs.T @ inputs + ridge, inputs.T @ colours).astype(np.float32))


def chart(height: int, width: int) -> np.ndarray:
    """A picture with many colours, for text-to-video. Shapes: uint8 (height, width, 3)."""
    rows, columns = np.mgrid[0:height, 0:width]
    red = columns * 255 // max(width - 1, 1)
    green = rows * 255 // max(height - 1, 1)
    blue = ((rows // 16 + columns // 16) % 3) * 127
    return np.stack([red, green, blue], axis=-1).astype(np.uint8)
