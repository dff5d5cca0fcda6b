"""What the transformer gets wrong, so that the decoder can be trained on it: clips with the latents' misses.

A decoder that is to draw a shape where the scene has it, from latents that have it a pixel beside, can only learn to
blur: so the clip to draw is the one that the latents are nearest to.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from demonstration import transformer
from demonstration.render import background, render, render_poses
from demonstration.sample import denoise
from demonstration.state import begun_state, read_scale
from demonstration.windows import DRAWN, MISS_SIDE, MISSES, encode_pictures
from demonstration.world import FULL_FRAMES, Pose, Scene, pose, sample_scene
from framewake.engine.contract import Engine, Weights
from framewake.models.vae import CausalVAE

log = logging.getLogger(__name__)

STEPS, SKIPPED = 12, 3  # of the schedule; the rest begins at so much noise that the transformer decides nearly all
FIRST_SEED = 700_000  # judged scenes have other seeds
ROUNDS = 3  # of Gauss-Newton
# What a pose is varied in: how far at a time, how far it is usually off, how far at most. Units: shares of the shorter
# side, shares of the size, radians. Opacity is not: a shape that is blurred is to be drawn in full.
VARIED = {"x": (0.008, 0.02, 0.05), "y": (0.008, 0.02, 0.05), "size": (0.06, 0.08, 0.2), "angle": (0.08, 0.1, 0.4)}


def fill(engine: Engine, vae: CausalVAE, vae_weights: Weights, folder: Path, *, count: int) -> None:
    """Add clips to ``folder / "misses"`` until there are ``count``, made by the transformer as it stands.

    A file holds the clip that the latents are nearest to, ``frames`` (F, H, W, 3) uint8, what is behind its shapes,
    ``ground`` (H, W, 3) float32 of 0..255, and what its latents are off by, ``miss`` (C, f, h, w) float16.
    Raises: InputError when the transformer has not been trained yet.
    """
    target = folder / MISSES
    target.mkdir(parents=True, exist_ok=True)
    state = begun_state(folder / "dit.safetensors")
    model = transformer.Model(engine, transformer.Texts(folder))
    weights = {n: engine.asarray(a) for n, a in state.average.items()}
    scale = read_scale(folder)

    encode = functools.partial(encode_pictures, engine, vae, vae_weights)
    for number in range(len(list(target.glob("*.npz"))), count):
        rng = np.random.default_rng(FIRST_SEED + number)
        scene = sample_scene(rng, motion=str(rng.choice(DRAWN)))
        clean = encode(render(scene, MISS_SIDE, MISS_SIDE)[::4]).swapaxes(0, 1)[None]
        noise = rng.standard_normal(clean.shape).astype(np.float32)
        found = denoise(engine, model, weights, scene, (noise, clean * np.float32(scale)), (STEPS, SKIPPED))
        found /= np.float32(scale)
        first_miss = float((found - clean)[:, :, 1:].std()) * scale

        frames = render_found(scene, fit_poses(encode, scene, found[0]), MISS_SIDE)
        nearest = encode(frames[::4]).swapaxes(0, 1)
        miss = found[0] - nearest
        partial = target / f"{number:05d}.partial"
        with partial.open("wb") as file:
            np.savez_compressed(
                file, frames=frames, ground=background(scene, MISS_SIDE, MISS_SIDE), miss=miss.astype(np.float16)
            )
        os.replace(partial, target / f"{number:05d}.npz")
        log.info("miss %s: deviation %.3f, from the scene's own clip %.3f", number, float(miss[:, 1:].std()) * scale,
                 first_miss)  # fmt: skip


def fit_poses(encode: Callable[[np.ndarray], np.ndarray], scene: Scene, found: np.ndarray) -> list[list[Pose]]:
    """The poses of a scene's shapes at each latent frame that explain the latents best, near the scene's own.

    ``encode`` makes latents (N, C, h, w) of pictures (N, H, W, 3) uint8. The first frame is given, and keeps its poses.
    Shapes: found (C, f, h, w) -> f lists of one pose a shape.
    """
    moments = [4 * i / (FULL_FRAMES - 1) for i in range(found.shape[1])]
    start = [[pose(scene, index, moment) for index in range(len(scene.shapes))] for moment in moments]
    keys = [(index, name) for index in range(len(scene.shapes)) for name in VARIED]
    usual = np.array([VARIED[name][1] for _, name in keys])
    most = np.array([VARIED[name][2] for _, name in keys])
    steps = np.array([VARIED[name][0] for _, name in keys])
    off = np.zeros((len(moments), len(keys)))  # of each pose from the scene's own
    wanted = found.swapaxes(0, 1).reshape(len(moments), -1).astype(np.float64)
    best, tried = off.copy(), np.full(len(moments), np.inf)

    def latents_at(offs: np.ndarray) -> np.ndarray:
        pictures = [
            render_poses(scene, _moved(poses, keys, values), MISS_SIDE, MISS_SIDE)
            for poses, rows in zip(start, offs, strict=True)
            for values in rows
        ]
        return encode(np.stack(pictures)).reshape(*offs.shape[:2], -1).astype(np.float64)

    for _ in range(ROUNDS):
        varied = np.concatenate([off[:, None], off[:, None] + np.diag(steps)[None]], 1)
        latents = latents_at(varied)
        rest = wanted - latents[:, 0]
        squared = (rest**2).mean(1)
        is_better = squared < tried
        best[is_better], tried = off[is_better], np.minimum(squared, tried)
        slopes = (latents[:, 1:] - latents[:, :1]) / steps[:, None]
        prior = (squared[:, None] / usual**2)[:, :, None] * np.eye(len(keys))
        pull = np.einsum("tpn,tn->tp", slopes, rest) - np.einsum("tpq,tq->tp", prior, off)
        change = np.linalg.solve(np.einsum("tpn,tqn->tpq", slopes, slopes) + prior, pull[..., None])[..., 0]
        off = np.clip(off + change, -most, most)
        off[0] = 0
    squared = ((wanted - latents_at(off[:, None])[:, 0]) ** 2).mean(1)
    best[squared < tried] = off[squared < tried]
    best[0] = 0
    return [_moved(poses, keys, values) for poses, values in zip(start, best, strict=True)]


def render_found(scene: Scene, poses: list[list[Pose]], side_px: int) -> np.ndarray:
    """A clip (F, H, W, 3) uint8 of poses at every fourth frame; between them they are off by what their neighbours
    are."""
    own = [
        [pose(scene, index, i / (FULL_FRAMES - 1)) for index in range(len(scene.shapes))] for i in range(FULL_FRAMES)
    ]
    frames = []
    for number, moment in enumerate(own):
        before, share = number // 4, number % 4 / 4
        after = min(before + 1, len(poses) - 1)
        moved = []
        for index, mine in enumerate(moment):
            ends = [(poses[k][index], own[4 * k][index], weight) for k, weight in ((before, 1 - share), (after, share))]
            changes = {
                name: getattr(mine, name) + sum(w * (getattr(p, name) - getattr(o, name)) for p, o, w in ends)
                for name in VARIED
            }
            moved.append(replace(mine, **changes))
        frames.append(render_poses(scene, moved, side_px, side_px))
    return np.stack(frames)


def _moved(poses: list[Pose], keys: list[tuple[int, str]], values: np.ndarray) -> list[Pose]:
    """Poses with something added to what ``keys`` name; a size takes a share of itself."""
    moved = list(poses)
    for (index, name), value in zip(keys, values, strict=True):
        held = getattr(poses[index], name)
        moved[index] = replace(moved[index], **{name: held * (1 + value) if name == "size" else held + value})
    return moved
