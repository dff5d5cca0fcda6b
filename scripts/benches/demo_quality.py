"""Does the demonstration checkpoint do what prompts say? Scenes never trained on, judged on the frames.

Every scene goes through the pipeline as a user's would: a picture file and a prompt. Writes each verdict to
results/bench-demo-quality.json and a table to docs/measurements/demo-quality.md.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from measuring import record
from PIL import Image

from demonstration.follow import LEAST_PSNR, MOST_COLOUR_ERROR, Verdict, judge
from demonstration.models import RESOLUTION_BASES
from demonstration.recipe import as_tensors, read_all
from demonstration.render import render, render_frame
from demonstration.sample import UNSEEN, decode_clip
from demonstration.windows import encode_pictures
from demonstration.world import MOTIONS, Scene, sample_scene
from framewake import Pipeline, Request, Result
from framewake.models.vae import CausalVAE

NAME = "demo-quality"
FOLLOWED = 0.95  # of the scenes of each motion


def main() -> int:
    """Judge scenes, write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", default="torch:cpu")
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--scenes", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="number of the first scene")
    parser.add_argument("--motion", choices=MOTIONS, help="of every scene; all of them by turns when left out")
    parser.add_argument("--resolution", default="720p", choices=sorted(RESOLUTION_BASES))
    parser.add_argument("--steps", type=int, help="the checkpoint's own number when left out")
    parser.add_argument(
        "--true-latents", action="store_true", help="decode the scenes' own latents: what the autoencoder alone does"
    )
    record.with_notes(parser)
    arguments = parser.parse_args()
    pipeline = Pipeline.load(arguments.checkpoint, engine=arguments.engine)
    side = RESOLUTION_BASES[arguments.resolution]
    autoencoder = Autoencoder(pipeline) if arguments.true_latents else None
    found: dict[str, list[Verdict]] = defaultdict(list)
    by_count: dict[str, list[Verdict]] = defaultdict(list)
    records = []
    started = time.perf_counter()
    for number in range(arguments.first, arguments.first + arguments.scenes):
        motion = arguments.motion or MOTIONS[number % len(MOTIONS)]
        scene = sample_scene(np.random.default_rng(UNSEEN + number), motion=motion)
        if autoencoder:
            frames = autoencoder.there_and_back(scene, side)
        else:
            frames = make_clip(pipeline, scene, (side, number), arguments)
        verdict = judge(scene, frames)
        found[scene.motion].append(verdict)
        by_count["one shape" if len(scene.shapes) == 1 else "two shapes"].append(verdict)
        about = {"number": number, "prompt": scene.prompt, "motion": scene.motion, "shapes": len(scene.shapes)}
        records.append(about | vars(verdict))
        sys.stdout.write(f"{number} {scene.motion}: {scene.prompt!r} {verdict.reason or 'followed'}\n")
        sys.stdout.flush()
    seconds = time.perf_counter() - started
    about = {"engine": arguments.engine, "resolution": arguments.resolution, "seconds": round(seconds, 1)}
    title = f"{record.today()}, {arguments.engine}, {arguments.resolution} ({side} px), {arguments.scenes} scenes"
    title += " of true latents" if autoencoder else ""
    title += (f" from number {arguments.first}" if arguments.first else "") + ":"
    rows = ["", title, "", *table(found, by_count), "", target(found)]
    record.write(NAME, about | {"scenes": records}, rows, has_notes=not arguments.no_notes)
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


class Autoencoder:
    """The checkpoint's autoencoder by itself: what is lost before a transformer has done anything."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.engine = pipeline.engine
        self.vae = CausalVAE(self.engine, pipeline.checkpoint.vae)
        self.weights = as_tensors(self.engine, read_all(pipeline.checkpoint.tensors("vae")))

    def there_and_back(self, scene: Scene, side: int) -> np.ndarray:
        """Frames of a scene's true latents, which are those of every fourth frame encoded as a picture."""
        pictures = render(scene, side, side)[::4]
        latents = encode_pictures(self.engine, self.vae, self.weights, pictures).swapaxes(0, 1)[None]
        return decode_clip(self.engine, self.vae, self.weights, np.ascontiguousarray(latents))


def table(found: dict[str, list[Verdict]], by_count: dict[str, list[Verdict]]) -> list[str]:
    """One row a motion, one for each number of shapes, and one for all."""
    rows = [
        "| motion | followed | first frame PSNR, lowest and median | colour error, mean | its worst and median scene "
        "| the same in the worst channel | whole |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, verdicts in [
        *found.items(),
        *sorted(by_count.items()),
        ("all", [v for group in found.values() for v in group]),
    ]:
        psnr = [v.first_frame_psnr for v in verdicts]
        colour, channel = ([getattr(v, name) for v in verdicts] for name in ("mean_colour_error", "colour_error"))
        followed, whole = sum(v.follows for v in verdicts), sum(v.is_whole for v in verdicts)
        rows.append(
            f"| {name} | {followed}/{len(verdicts)} ({100 * followed / len(verdicts):.3g} %) | "
            f"{min(psnr):.1f}, {statistics.median(psnr):.1f} dB | {statistics.mean(colour):.1f} | "
            f"{max(colour):.1f}, {statistics.median(colour):.1f} | "
            f"{max(channel):.1f}, {statistics.median(channel):.1f} | {whole}/{len(verdicts)} |"
        )
    return rows


def target(found: dict[str, list[Verdict]]) -> str:
    """Which motions and how many scenes miss what the checkpoint is to reach."""
    verdicts = [verdict for group in found.values() for verdict in group]
    shares = {motion: sum(v.follows for v in group) / len(group) for motion, group in found.items()}
    missed = [f"{motion} followed {share:.0%}" for motion, share in shares.items() if share < FOLLOWED]
    for name, held in (
        (f"first frame under {LEAST_PSNR:g} dB", [v.is_near_the_picture for v in verdicts]),
        (f"a channel off by {MOST_COLOUR_ERROR:g} levels or more", [v.keeps_colours for v in verdicts]),
        (
            f"the mean of the channels off by {MOST_COLOUR_ERROR:g} levels or more",
            [v.mean_colour_error < MOST_COLOUR_ERROR for v in verdicts],
        ),
        ("torn apart", [v.is_whole for v in verdicts]),
    ):
        missed += [] if all(held) else [f"{name} in {held.count(False)} of {len(held)} scenes"]
    wanted = f"every motion followed in at least {FOLLOWED:.0%}; in every scene the first frame at {LEAST_PSNR:g} dB, "
    wanted += f"colours within {MOST_COLOUR_ERROR:g} levels, nothing torn apart"
    return f"Target ({wanted}): " + (f"missed: {', '.join(missed)}." if missed else "reached.")


if __name__ == "__main__":
    sys.exit(main())
