"""How far colours and sharpness wander over the segments of a longer clip, with and without the anchor.

The demonstration's red circle over eight segments, once standing still and once going to and fro. What does not move is
compared with the clip's first frame at the end of every segment. Adds rows to docs/measurements/extend.md and draws
docs/images/extend.webp: the first frame, and the last of each segment.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
from measuring import record
from measuring.record import ROOT
from PIL import Image

from framewake import Output, Pipeline, Request, Result
from framewake.media.quality import decibels
from framewake.pipeline.longer import Longer, begin, make_longer, plan_longer

PICTURE = ROOT / "docs" / "images" / "extend.webp"
PROMPTS = {
    "stays still": ("the red circle stays still",),
    "to and fro": ("the red circle moves right", "the red circle moves left"),
}
RED, AROUND = 40, 3  # levels that make a pixel one of the circle's, and pixels around it that are its edge


def main() -> int:
    """Measure, write down, draw."""
    options = record.with_notes(argparse.ArgumentParser(description=__doc__))
    options.add_argument("--segments", type=int, default=8)
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--engine", default="torch:cpu")
    given = options.parse_args()
    pipeline = Pipeline.load("demo", engine=given.engine)
    rows, strips, found = [], [], {}
    for name, prompts in PROMPTS.items():
        for is_anchored in (False, True):
            frames = clip_of(pipeline, prompts, given.segments, steps=given.steps, is_anchored=is_anchored)
            ends = frames[:: (len(frames) - 1) // given.segments]
            values = [wandered(ends[0], end, has_circle=name == "stays still") for end in ends[1:]]
            way = "yes" if is_anchored else "no"
            texts = [
                " ".join(f"{value[place]:.{digits}f}" for value in values) for place, digits in enumerate((1, 1, 2))
            ]
            rows.append(record.line([name, way, *texts]))
            found[f"{name}, anchor {way}"] = values
            strips.append(np.concatenate(list(ends), axis=1))
    if not given.no_notes:
        Image.fromarray(np.concatenate(strips)).save(PICTURE, quality=85)
    record.write("extend", {"cases": found}, rows, has_notes=not given.no_notes)
    return 0


def clip_of(pipeline: Pipeline, prompts: tuple[str, ...], count: int, *, steps: int, is_anchored: bool) -> np.ndarray:
    """All frames of a longer clip. Shapes: -> uint8 (F, H, W, 3)."""
    with tempfile.TemporaryDirectory() as folder:
        requests = tuple(
            Request(prompts[number % len(prompts)], image="demo/red-circle", seed=7 + number, steps=steps)
            for number in range(count)
        )
        longer = Longer(requests, Output(Path(folder, "clip.mp4")), is_anchored=is_anchored)
        longer = begin(longer, plan_longer(longer, pipeline.checkpoint))
        return next(event.frames for event in make_longer(pipeline, longer) if isinstance(event, Result))


def wandered(first: np.ndarray, last: np.ndarray, *, has_circle: bool) -> tuple[float, float, float]:
    """Mean error of the colours in levels, PSNR in dB, and sharpness against the first frame, of what does not move."""
    is_still = np.ones(first.shape[:2], bool) if has_circle else ~(circle_in(first) | circle_in(last))
    difference = last.astype(np.float64) - first
    error = float(np.abs(difference[is_still]).mean())
    sharpness = edges(last)[is_still].mean() / edges(first)[is_still].mean()
    return error, decibels(float(np.mean(difference[is_still] ** 2))), float(sharpness)


def circle_in(frame: np.ndarray) -> np.ndarray:
    """Where the circle and its edge are. Shapes: uint8 (H, W, 3) -> bool (H, W)."""
    values = frame.astype(int)
    found = values[..., 0] - values[..., 1:].max(axis=-1) > RED
    for axis in (0, 1):
        found = np.any([np.roll(found, by, axis) for by in range(-AROUND, AROUND + 1)], axis=0)
    return found


def edges(frame: np.ndarray) -> np.ndarray:
    """How steep a picture is at each pixel. Shapes: uint8 (H, W, 3) -> (H, W)."""
    down, right = np.gradient(frame.astype(np.float64), axis=(0, 1))
    return np.hypot(down, right).mean(axis=-1)


if __name__ == "__main__":
    sys.exit(main())
