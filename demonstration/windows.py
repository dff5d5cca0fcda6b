"""What the autoencoder's decoder is trained on by itself: windows of clips with latents like the transformer's.

A window is a part of the frame around a shape. The frame's latents are made first and cut then, so that a shape is
what it is in a whole frame; and most of a frame is ground, which is learned long before the shapes are.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from demonstration.follow import shrunk
from demonstration.render import background, render_frame
from demonstration.world import FULL_FRAMES, MOTIONS, Scene, sample_scene
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.vae import CausalVAE

NOISE = 0.4  # largest deviation of noise on latents, whose own is about 1.4
DRIFT = 24.0  # levels of 255, the largest deviation of a shape's colour from what it is in the first frame
PLACE_WEIGHT = 8.0  # of the places that anything passes in a clip, beside 1 for those where nothing happens
SHAPE_WEIGHT = 8.0  # added where a shape is: what is in doubt is to have its colour
MISSES, MISS_SIDE = "misses", 128  # clips of one size whose latents are the transformer's
MISSED = 0.5  # share of windows that are taken from those
FROM_START = 0.6  # share of windows that begin with a clip's first frame: it has no misses, and what follows can see it
DRAWN = (*MOTIONS, "bounce", "bounce")  # what moves fastest tears most easily
THIN, REDRAWN = ("star", "triangle"), 0.5  # what the ground bleeds into, and the share of scenes drawn again without it
CELL = 8  # pixels of a side that become one of the latents'


class Turn(NamedTuple):
    """What one training step works on. Units: ``side`` of the clips and ``window``, the part of it seen, in pixels."""

    side: int
    frames: int
    batch: int
    window: int


class Part(NamedTuple):
    """Some frames of a clip and, one for each latent frame, the pictures whose latents are given for it.

    Shapes: frames (F, H, W, 3) uint8, ground (H, W, 3) float32 of 0..255, pictures (f, H, W, 3) uint8, off
    (C, f, h, w) float32: what is added to their latents.
    """

    frames: np.ndarray
    ground: np.ndarray
    pictures: np.ndarray
    off: np.ndarray


class Drawn(NamedTuple):
    """A step's data, all float32.

    Shapes: pixels (B, 3, F, H, W), the weight of each (B, 1, F, H, W), cores (B, 1, F, H, W), 1 inside shapes, and what
    the latents are made of (B, C, f, h, w): latents, or where the encoder is trained the noise of the posterior.
    """

    pixels: np.ndarray
    weight: np.ndarray
    core: np.ndarray
    given: np.ndarray


class Windows:
    """Draws windows; ``weights`` are those of the encoder, which stays as it is."""

    def __init__(self, engine: Engine, vae: CausalVAE, weights: Weights, folder: Path) -> None:
        self.engine, self.vae, self.weights = engine, vae, weights
        self.misses = sorted((folder / MISSES).glob("*.npz"))

    def draw(self, rng: np.random.Generator, turn: Turn) -> Drawn:
        """A step's windows."""
        windows = [self._window(rng, turn) for _ in range(turn.batch)]
        return Drawn(*(np.concatenate(arrays) for arrays in zip(*windows, strict=True)))

    def _window(self, rng: np.random.Generator, turn: Turn) -> Drawn:
        is_miss = bool(self.misses) and turn.side == MISS_SIDE and rng.random() < MISSED
        part = draw_miss(rng, self.misses, turn.frames) if is_miss else draw_noisy(rng, turn)
        pixels, ground = to_pixels(part.frames[None]), to_pixels(part.ground[None, None])[:, :, 0]
        weight, core = place_weight(pixels, ground), cores(pixels, ground)
        latents = encode_pictures(self.engine, self.vae, self.weights, part.pictures).swapaxes(0, 1) + part.off
        latents = latents[None]
        top, left = draw_place(rng, weight, turn.window)
        seen = np.s_[..., top : top + turn.window, left : left + turn.window]
        cells = np.s_[..., top // CELL : (top + turn.window) // CELL, left // CELL : (left + turn.window) // CELL]
        return Drawn(pixels[seen], weight[seen], core[seen], latents[cells])


def draw_place(rng: np.random.Generator, weight: np.ndarray, window: int) -> tuple[int, int]:
    """Top and left edge in pixels, of whole cells, of a window around a place that matters at some moment."""
    height, width = weight.shape[-2:]
    matters = np.argwhere(weight.max((0, 1, 2)) > 2 * weight.min())
    middle = matters[rng.integers(len(matters))] if len(matters) else np.array([height // 2, width // 2])
    corner = (middle - window // 2 + rng.integers(-window // 5, window // 5 + 1, 2)) / CELL
    top, left = (int(np.clip(round(c), 0, (s - window) // CELL)) for c, s in zip(corner, (height, width), strict=True))
    return top * CELL, left * CELL


def draw_scene(rng: np.random.Generator) -> Scene:
    """A fresh scene: what is difficult is drawn more often."""
    scene = sample_scene(rng, motion=str(rng.choice(DRAWN)))
    is_easy = not any(shape.kind in THIN for shape in scene.shapes)
    return sample_scene(rng, motion=scene.motion) if is_easy and rng.random() < REDRAWN else scene


def draw_noisy(rng: np.random.Generator, turn: Turn) -> Part:
    """Some frames of a fresh scene; noise and drift are mostly little, and there is hardly any in the first frame."""
    scene = draw_scene(rng)
    moments = draw_moments(rng, turn.frames)
    frames = np.stack([render_frame(scene, turn.side, turn.side, p) for p in moments])
    drifting = drift(rng, scene, len(moments[::4]))
    pictures = [render_frame(each, turn.side, turn.side, p) for each, p in zip(drifting, moments[::4], strict=True)]
    cells = turn.side // CELL
    noise = rng.standard_normal((16, len(pictures), cells, cells)) * (NOISE * rng.random() ** 2)
    noise[:, 0] *= min(1.0, 0.05 / max(noise.std(), 1e-6))
    return Part(frames, background(scene, turn.side, turn.side), np.stack(pictures), noise.astype(np.float32))


def drift(rng: np.random.Generator, scene: Scene, count: int) -> list[Scene]:
    """A scene at successive latent frames, whose shapes' colours move away from what they are in the first: half of
    the way at once, as they do in what the transformer makes. The true ones can be seen in the first frame."""
    shifts = rng.standard_normal((len(scene.shapes), 3)) * (DRIFT * rng.random())
    scenes = [scene]
    for way in np.linspace(0.5, 1.0, count - 1):
        shapes = []
        for shape, shift in zip(scene.shapes, shifts, strict=True):
            red, green, blue = (int(v) for v in np.clip(np.asarray(shape.colour) + way * shift, 0, 255).round())
            shapes.append(replace(shape, colour=(red, green, blue)))
        scenes.append(replace(scene, shapes=tuple(shapes)))
    return scenes


def draw_moments(rng: np.random.Generator, frames: int) -> list[float]:
    """When successive frames of a clip are, from 0 to 1; they begin anywhere in it, often at its beginning."""
    first = 0 if rng.random() < FROM_START else int(rng.integers(0, FULL_FRAMES - frames + 1))
    return [(first + i) / (FULL_FRAMES - 1) for i in range(frames)]


def draw_miss(rng: np.random.Generator, paths: list[Path], frames: int) -> Part:
    """Some frames of a clip that the transformer has made (see ``demonstration.misses``)."""
    with np.load(paths[int(rng.integers(len(paths)))], allow_pickle=False) as file:
        clip, ground, miss = file["frames"], file["ground"], file["miss"]
    count = 1 + (frames - 1) // 4
    first = 0 if rng.random() < FROM_START else int(rng.integers(0, miss.shape[1] - count + 1))
    shown = clip[4 * first : 4 * first + frames]
    return Part(shown, ground, shown[::4], miss[:, first : first + count].astype(np.float32))


def place_weight(pixels: np.ndarray, grounds: np.ndarray) -> np.ndarray:
    """More weight where a clip changes at any moment and where a shape is, mean 1: there colours smear, and it is the
    smaller part.

    Shapes: pixels (B, 3, F, H, W), grounds (B, 3, H, W) -> (B, 1, F, H, W) float32.
    """
    is_passed = np.abs(pixels - pixels[:, :, :1]).max((1, 2))[:, None, None] > 0.1
    is_shape = np.abs(pixels - grounds[:, :, None]).max(1, keepdims=True) > 0.1
    weight = 1 + is_passed * PLACE_WEIGHT + is_shape * SHAPE_WEIGHT
    return (weight / weight.mean((1, 2, 3, 4), keepdims=True)).astype(np.float32)


def cores(pixels: np.ndarray, grounds: np.ndarray) -> np.ndarray:
    """1 inside shapes, where colours are judged, and 0 on outlines: half covered at least, and so is every neighbour.

    A pixel is half covered when it differs from the ground by half of what any pixel near it does.
    Shapes: pixels (B, 3, F, H, W), grounds (B, 3, H, W) -> (B, 1, F, H, W) float32.
    """
    amount = np.abs(pixels - grounds[:, :, None]).max(1, keepdims=True)
    most = amount
    for axis in (3, 4):
        margin = [(2, 2) if i == axis else (0, 0) for i in range(5)]
        most = sliding_window_view(np.pad(most, margin, mode="edge"), 5, axis).max(-1)
    return shrunk((amount > 0.5 * most) & (amount > 0.1)).astype(np.float32)


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


def encode_pictures(engine: Engine, vae: CausalVAE, weights: Weights, pictures: np.ndarray) -> np.ndarray:
    """Mean latents. Shapes: (N, H, W, 3) uint8 -> (N, C, h, w) float32."""
    mean = picture_latents(engine, vae, weights, engine.asarray(to_pixels(pictures[:, None])))[0]
    return engine.numpy(engine.cast(mean, "float32"))[:, :, 0]


def to_pixels(clips: np.ndarray) -> np.ndarray:
    """Clips (B, F, H, W, 3) of 0..255 as (B, 3, F, H, W) float32 in [-1, 1]."""
    return (clips.transpose(0, 4, 1, 2, 3) / np.float32(127.5) - 1).astype(np.float32)
