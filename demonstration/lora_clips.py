"""Clips for the demonstration LoRA: a shape that moves leaves a fading trail of itself.

The checkpoint alone knows no trails, and a trail needs no word in the prompt: the LoRA is a style.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np

from demonstration.render import background, coverage
from demonstration.world import DIRECTIONS, FRAMES_PER_SECOND, FULL_FRAMES, Scene, pose, sample_scene
from framewake.media.video import write_video

MOVES = tuple(DIRECTIONS)
NEWEST, OLDEST = 0.7, 0.35  # opacity of a trail right behind the shape, and where the clip began
SUBSTEPS = 2  # of a frame, so that a trail has no gaps
FIRST_SEED = 700_000  # the judges' scenes have other seeds


def trail_scene(number: int) -> Scene:
    """Scene ``number`` of the LoRA's clips: one shape, or two of which one stays, and a straight way."""
    return sample_scene(np.random.default_rng(FIRST_SEED + number), motion=MOVES[number % len(MOVES)])


def render_trail(scene: Scene, height_px: int, width_px: int, *, frames: int = FULL_FRAMES) -> np.ndarray:
    """A scene as uint8 frames (F, H, W, 3), its first shape with a trail; the first frame is that without one."""
    return np.stack([_frame(scene, height_px, width_px, i / (FULL_FRAMES - 1)) for i in range(frames)])


def trail_opacity(scene: Scene, height_px: int, width_px: int, progress: float) -> np.ndarray:
    """How strong the trail is at each pixel at one moment. Shapes: -> float32 (H, W), 0 to 1."""
    unit_px, shape = min(height_px, width_px), scene.shapes[0]
    found = np.zeros((height_px, width_px), np.float32)
    count = round(progress * (FULL_FRAMES - 1) * SUBSTEPS)
    for step in range(count):
        then = progress * step / count
        rows, columns, share = coverage(shape.kind, pose(scene, 0, then), unit_px, (height_px, width_px))
        opacity = OLDEST + (NEWEST - OLDEST) * (1 - (progress - then))
        found[rows, columns] = np.maximum(found[rows, columns], share * opacity)
    return found


def write_clips(folder: Path, count: int, side_px: int) -> None:
    """Fill a folder with clips and captions, as ``framewake lora train`` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        scene = trail_scene(number)
        frames = render_trail(scene, side_px, side_px)
        write_video(folder / f"{number:04d}.webp", frames, fps=FRAMES_PER_SECOND, metadata={})
        (folder / f"{number:04d}.txt").write_text(scene.prompt + "\n")


def _frame(scene: Scene, height_px: int, width_px: int, progress: float) -> np.ndarray:
    """One moment: background, trail, then the shapes over it."""
    picture = background(scene, height_px, width_px)
    opacity = trail_opacity(scene, height_px, width_px, progress)[..., None]
    picture += (np.asarray(scene.shapes[0].colour, np.float32) - picture) * opacity
    for index, shape in enumerate(scene.shapes):
        moment = pose(scene, index, progress)
        rows, columns, share = coverage(shape.kind, moment, min(height_px, width_px), (height_px, width_px))
        patch = picture[rows, columns]
        picture[rows, columns] = patch + (np.asarray(shape.colour, np.float32) - patch) * share[..., None]
    return np.rint(picture).astype(np.uint8)


def trail_share(scene: Scene, frames: np.ndarray) -> float:
    """How much of the trail that should be there is there in a clip's last frame: 0 none, 1 all of it.

    Only places count that the shape has left by a few pixels and that no other shape covers. There, the frame's
    colour lies between background and shape; its way towards the shape is compared with the trail's.
    Shapes: frames uint8 (F, H, W, 3).
    """
    height_px, width_px = frames.shape[1:3]
    unit_px, progress = min(height_px, width_px), (len(frames) - 1) / (FULL_FRAMES - 1)
    wanted = trail_opacity(scene, height_px, width_px, progress)
    for index in range(len(scene.shapes)):
        moment = pose(scene, index, progress)
        grown = dataclasses.replace(moment, size=moment.size * 1.25)
        rows, columns, share = coverage("circle", grown, unit_px, (height_px, width_px))
        wanted[rows, columns] *= share < 0.5
    left = wanted > 0.5 * OLDEST
    if not left.any():
        return float("nan")
    ground = background(scene, height_px, width_px)
    towards = np.asarray(scene.shapes[0].colour, np.float32) - ground
    found = ((frames[-1].astype(np.float32) - ground) * towards).sum(-1) / (towards**2).sum(-1)
    return float(np.clip(found[left] / wanted[left], 0, 1).mean())
