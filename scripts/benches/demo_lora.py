"""Does the demonstration LoRA do what it is for? Trails behind moving shapes, with and without it, on unseen scenes.

Every scene goes through the pipeline as a user's would. Writes each scene to results/bench-demo-lora.json and a table
to docs/measurements/demo-lora.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from measuring import record
from PIL import Image

from demonstration.follow import judge
from demonstration.lora import LORA, SIDE_PX
from demonstration.lora_clips import MOVES, trail_share
from demonstration.render import render_frame
from demonstration.sample import UNSEEN
from demonstration.world import Scene, sample_scene
from framewake import Pipeline, Request, Result

NAME = "demo-lora"
VISIBLE = 0.5  # of the trail that should be there


def main() -> int:
    """Measure trails, write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="torch:cpu")
    parser.add_argument("--lora", default=str(LORA))
    parser.add_argument("--weight", type=float, default=1.0)
    parser.add_argument("--scenes", type=int, default=20)
    parser.add_argument("--steps", type=int, help="the checkpoint's own number when left out")
    record.with_notes(parser)
    parser.add_argument("--sheet", help="write a picture of all clips: without above, with below")
    arguments = parser.parse_args()
    pipeline = Pipeline.load("demo", engine=arguments.engine)
    found: dict[str, list[float]] = {"without": [], "with": []}
    followed = {"without": 0, "with": 0}
    scenes, rows, started = [], [], time.perf_counter()
    for number in range(arguments.scenes):
        scene = sample_scene(np.random.default_rng(UNSEEN + 50_000 + number), motion=MOVES[number % len(MOVES)])
        entry: dict = {"number": number, "prompt": scene.prompt}
        for kind, loras in (("without", ()), ("with", (f"{arguments.lora}:{arguments.weight:g}",))):
            frames = make_clip(pipeline, scene, number, loras, arguments.steps)
            share, verdict = trail_share(scene, frames), judge(scene, frames)
            found[kind].append(share)
            followed[kind] += verdict.follows
            entry[kind] = {"trail": round(share, 3), "follows": verdict.follows, "reason": verdict.reason}
            rows.append(np.concatenate(list(frames[::4]), axis=1))
        scenes.append(entry)
        trails = f"trail {entry['without']['trail']} without, {entry['with']['trail']} with"
        sys.stdout.write(f"{number} {scene.prompt!r}: {trails}\n")
        sys.stdout.flush()
    if arguments.sheet:
        Image.fromarray(np.concatenate(rows)).save(arguments.sheet)
    about = {"engine": arguments.engine, "weight": arguments.weight, "seconds": time.perf_counter() - started}
    lines = [line(arguments, kind, found[kind], followed[kind]) for kind in found]
    record.write(NAME, about | {"scenes": scenes}, lines, has_notes=not arguments.no_notes)
    return 0


def line(arguments: argparse.Namespace, kind: str, shares: list[float], followed: int) -> str:
    """A row of the table."""
    visible = sum(share >= VISIBLE for share in shares)
    count = len(shares)
    spread = f"{statistics.median(shares):.2f} | {min(shares):.2f} | {max(shares):.2f}"
    name = kind if kind == "without" else f"with, weight {arguments.weight:g}"
    return f"| {record.today()} | {arguments.engine} | {name} | {visible}/{count} | {spread} | {followed}/{count} |"


def make_clip(pipeline: Pipeline, scene: Scene, seed: int, loras: tuple[str, ...], steps: int | None) -> np.ndarray:
    """Frames of one scene, made from a picture file."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(render_frame(scene, SIDE_PX, SIDE_PX, 0.0)).save(picture)
        request = Request(scene.prompt, image=str(picture), steps=steps, seed=seed, loras=loras)
        return next(event.frames for event in pipeline.run(request) if isinstance(event, Result))


if __name__ == "__main__":
    sys.exit(main())
