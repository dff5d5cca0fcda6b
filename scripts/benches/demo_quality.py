"""Does the demonstration checkpoint do what prompts say? Scenes never trained on, judged on the frames.

Every scene goes through the pipeline as a user's would: a picture file and a prompt. Writes each verdict to
results/bench-demo-quality.json and a table to docs/measurements.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from demo_clip import ROOT, machine, note, today
from PIL import Image

from framewake import Pipeline, Request, Result
from framewake.demo.follow import Verdict, judge
from framewake.demo.models import RESOLUTION_BASES
from framewake.demo.render import render_frame
from framewake.demo.sample import UNSEEN
from framewake.demo.world import MOTIONS, Scene, sample_scene

RECORD = ROOT / "results" / "bench-demo-quality.json"
HEADING = "## demo-quality"


def main() -> int:
    """Judge scenes, write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="torch:cpu")
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--resolution", default="720p", choices=sorted(RESOLUTION_BASES))
    parser.add_argument("--steps", type=int, help="the checkpoint's own number when left out")
    parser.add_argument("--no-notes", action="store_true", help="leave docs/measurements.md as it is")
    arguments = parser.parse_args()
    pipeline = Pipeline.load(arguments.checkpoint, engine=arguments.engine)
    side = RESOLUTION_BASES[arguments.resolution]
    found: dict[str, list[Verdict]] = defaultdict(list)
    by_count: dict[str, list[Verdict]] = defaultdict(list)
    records = []
    started = time.perf_counter()
    for number in range(arguments.scenes):
        scene = sample_scene(np.random.default_rng(UNSEEN + number), motion=MOTIONS[number % len(MOTIONS)])
        frames = make_clip(pipeline, scene, (side, number), arguments)
        verdict = judge(scene, frames)
        found[scene.motion].append(verdict)
        by_count["one shape" if len(scene.shapes) == 1 else "two shapes"].append(verdict)
        about = {"number": number, "prompt": scene.prompt, "motion": scene.motion, "shapes": len(scene.shapes)}
        records.append(about | vars(verdict))
        sys.stdout.write(f"{number} {scene.motion}: {scene.prompt!r} {verdict.reason or 'followed'}\n")
        sys.stdout.flush()
    seconds = time.perf_counter() - started
    RECORD.parent.mkdir(exist_ok=True)
    about = {"machine": machine(), "date": today(), "engine": arguments.engine, "resolution": arguments.resolution}
    RECORD.write_text(json.dumps(about | {"seconds": round(seconds, 1), "scenes": records}, indent=2) + "\n")
    rows = table(found, by_count)
    sys.stdout.write("\n".join(rows) + "\n")
    if not arguments.no_notes:
        title = f"{today()}, {arguments.engine}, {arguments.resolution} ({side} px), {arguments.scenes} scenes:"
        note(["", title, "", *rows], HEADING)
    return 0


def make_clip(pipeline: Pipeline, scene: Scene, size_and_seed: tuple[int, int], arguments) -> np.ndarray:
    """Frames of one scene, made from a picture file."""
    side, seed = size_and_seed
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(render_frame(scene, side, side, 0.0)).save(picture)
        request = Request(
            scene.prompt, image=str(picture), resolution=arguments.resolution, steps=arguments.steps, seed=seed
        )
        return next(event.frames for event in pipeline.run(request) if isinstance(event, Result))


def table(found: dict[str, list[Verdict]], by_count: dict[str, list[Verdict]]) -> list[str]:
    """One row a motion, one for each number of shapes, and one for all."""
    rows = [
        "| motion | followed | first frame PSNR, lowest and median | colour error, worst and median | whole |",
        "|---|---|---|---|---|",
    ]
    for name, verdicts in [
        *found.items(),
        *sorted(by_count.items()),
        ("all", [v for group in found.values() for v in group]),
    ]:
        psnr = [v.first_frame_psnr for v in verdicts]
        colour = [v.colour_error for v in verdicts]
        followed, whole = sum(v.follows for v in verdicts), sum(v.is_whole for v in verdicts)
        rows.append(
            f"| {name} | {followed}/{len(verdicts)} ({100 * followed / len(verdicts):.0f} %) | "
            f"{min(psnr):.1f}, {statistics.median(psnr):.1f} dB | {max(colour):.1f}, {statistics.median(colour):.1f} | "
            f"{whole}/{len(verdicts)} |"
        )
    return rows


if __name__ == "__main__":
    sys.exit(main())
