"""How far clips with skipped steps are from full runs, beside the control: fewer steps at the same cost.

Fixed scenes of the demonstration world that were never trained on, each made in full, with every step cache and with
fewer steps, compared on the frames and judged by whether they show what their prompts say. Writes every clip's figures
to results/bench-quality.json, a table to docs/measurements/quality.md and a picture to docs/images/cache-frontier.png.
These are figures of the demonstration model; they say nothing about the 13 B model.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
from measuring import record
from measuring.record import ROOT
from PIL import Image

from demonstration.follow import judge
from demonstration.models import RESOLUTION_BASES
from demonstration.render import render_frame
from demonstration.sample import UNSEEN
from demonstration.world import MOTIONS, sample_scene
from framewake import Pipeline, Request, Result
from framewake.media.quality import compare

PICTURE = ROOT / "docs" / "images" / "cache-frontier.png"
NAME = "quality"
FULL = "full"
CONTROL = "fewer steps"
CACHES = (
    *("easy:0.02", "easy:0.05", "easy:0.1", "easy:0.2", "first-block:0.05", "first-block:0.1", "tea:0.1", "tea:0.2"),
    *("taylor1:2", "taylor1:3", "taylor1:4", "taylor2:3", "taylor2:4", "fixed:2", "fixed:3"),
)
CONTROL_SHARES = (0.75, 0.5, 0.35, 0.25)  # of the full run's steps
TARGET_SPEED, TARGET_PSNR, TARGET_MARGIN = 2.0, 33.0, 5.0


class Work(NamedTuple):
    """What every scene is made with."""

    checkpoint: str
    engine: str
    resolution: str
    frames: int | None
    steps: int
    caches: tuple[str, ...]


def main() -> int:
    """Measure, write down, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=100)
    parser.add_argument("--checkpoint", default="demo")
    parser.add_argument("--engine", default="torch:cpu")
    parser.add_argument("--resolution", default="360p", choices=sorted(RESOLUTION_BASES))
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--steps", type=int, default=20, help="of the full run")
    parser.add_argument("--caches", nargs="+", default=list(CACHES))
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    record.with_notes(parser)
    given = parser.parse_args()
    work = Work(given.checkpoint, given.engine, given.resolution, given.frames, given.steps, tuple(given.caches))
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    clips: list[dict] = []
    with concurrent.futures.ProcessPoolExecutor(
        given.workers, mp_context=context, initializer=begin, initargs=(work,)
    ) as pool:
        for number, found in enumerate(pool.map(scene_figures, range(given.scenes)), start=1):
            clips += found
            seconds = time.perf_counter() - started
            sys.stdout.write(f"scene {number} of {given.scenes}, {seconds:.0f} s\n")
            sys.stdout.flush()
    rows = summary(clips)
    seconds = round(time.perf_counter() - started, 1)
    content = {"seconds": seconds, "work": work._asdict(), "summary": rows, "clips": clips}
    lines = table(rows, work.steps)
    title = f"{record.today()}, {work.engine}, {work.resolution} class, {work.frames} frames, {given.scenes} scenes:"
    text = ["", title, "", *lines, "", verdict(rows, work.steps)]
    record.write(NAME, content, text, has_notes=not given.no_notes)
    if not given.no_notes:
        draw(rows, work, given.scenes)
    return 0


# --- in each process

_PIPELINE: Pipeline
_WORK: Work


def begin(work: Work) -> None:
    """Load the checkpoint once a process."""
    global _PIPELINE, _WORK  # a pool's initializer has no other place
    _PIPELINE, _WORK = Pipeline.load(work.checkpoint, engine=work.engine), work


def scene_figures(number: int) -> list[dict]:
    """Figures of one scene: the full run, every cache, every shorter run."""
    side = RESOLUTION_BASES[_WORK.resolution]
    scene = sample_scene(np.random.default_rng(UNSEEN + number), motion=MOTIONS[number % len(MOTIONS)])
    found: list[dict] = []
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "picture.png"
        Image.fromarray(render_frame(scene, side, side, 0.0)).save(picture)

        def made(name: str, cache: str, steps: int) -> np.ndarray:
            request = Request(
                scene.prompt,
                image=str(picture),
                resolution=_WORK.resolution,
                frames=_WORK.frames,
                steps=steps,
                seed=number,
                cache=cache,
            )
            result = next(event for event in _PIPELINE.run(request) if isinstance(event, Result))
            computed = steps if result.cached is None else result.cached.computed
            seconds = result.timings["denoise"]
            about = {"scene": number, "name": name, "computed": computed, "denoise_seconds": round(seconds, 3)}
            found.append(about | {"follows": judge(scene, result.frames).follows})
            return result.frames

        full = made(FULL, "off", _WORK.steps)
        kinds = [(cache, cache, _WORK.steps) for cache in _WORK.caches]
        kinds += [(f"{CONTROL} {n}", "off", n) for n in (round(s * _WORK.steps) for s in CONTROL_SHARES)]
        for name, cache, steps in kinds:
            frames = made(name, cache, steps)
            found[-1] |= compare(frames, full, every=4)._asdict()
    return found


# --- what came out


def summary(clips: list[dict]) -> list[dict]:
    """Means over scenes for each way, with its margin over the control at the same cost."""
    names = list(dict.fromkeys(clip["name"] for clip in clips))
    rows = []
    for name in names:
        mine = [clip for clip in clips if clip["name"] == name]
        row = {"name": name, "scenes": len(mine), "follows": sum(clip["follows"] for clip in mine)}
        for key in ("computed", "psnr", "ssim", "flip", "denoise_seconds"):
            values = [clip[key] for clip in mine if clip.get(key) is not None]
            row[key] = statistics.fmean(values) if values else None
        row["lowest"] = min((clip["psnr"] for clip in mine if "psnr" in clip), default=None)
        rows.append(row)
    control = sorted((row["computed"], row["psnr"]) for row in rows if row["name"].startswith(CONTROL))
    for row in rows:
        if row["psnr"] is not None and control:
            row["margin"] = row["psnr"] - float(np.interp(row["computed"], *zip(*control, strict=True)))
    return rows


def table(rows: list[dict], steps: int) -> list[str]:
    """Every way in a row of its own."""
    lines = [
        "| way | computed steps | times fewer | PSNR dB, mean and lowest clip | over control | SSIM | FLIP | prompt "
        "followed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        followed = f"{row['follows']}/{row['scenes']}"
        start = f"| {row['name']} | {row['computed']:.1f} | {steps / row['computed']:.2f} |"
        if row["psnr"] is None:
            lines.append(f"{start} | | | | {followed} |")
            continue
        flip = "" if row["flip"] is None else f"{row['flip']:.4f}"
        margin = "" if row["name"].startswith(CONTROL) else f"{row['margin']:+.1f} dB"
        figures = f"{row['psnr']:.1f}, {row['lowest']:.1f} | {margin} | {row['ssim']:.4f} | {flip}"
        lines.append(f"{start} {figures} | {followed} |")
    return lines


def verdict(rows: list[dict], steps: int) -> str:
    """Which ways reach the target."""
    good = [
        row["name"]
        for row in rows
        if row["psnr"] is not None
        and not row["name"].startswith(CONTROL)
        and steps / row["computed"] >= TARGET_SPEED
        and row["psnr"] >= TARGET_PSNR
        and row["margin"] >= TARGET_MARGIN
    ]
    target = f"at least {TARGET_SPEED:g} times fewer computed steps, PSNR at least {TARGET_PSNR:g} dB, "
    target += f"{TARGET_MARGIN:g} dB above the control"
    return f"Target ({target}): " + (f"reached by {', '.join(good)}." if good else "reached by none.")


def draw(rows: list[dict], work: Work, scenes: int) -> None:
    """Quality over cost, one line a rule."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    lines: dict[str, list[tuple[float, float, str]]] = {}
    for row in rows:
        if row["psnr"] is not None:
            rule, _, number = row["name"].partition(":")
            is_control = rule.startswith(CONTROL)
            kind = CONTROL + " (control)" if is_control else rule
            label = "" if is_control else number
            lines.setdefault(kind, []).append((row["computed"], row["psnr"], label))
    for kind, points in lines.items():
        points.sort()
        style = "k--s" if kind.startswith(CONTROL) else "-o"
        axes.plot([p[0] for p in points], [p[1] for p in points], style, label=kind, markersize=4, linewidth=1.2)
        for x, y, label in points:
            axes.annotate(label, (x, y), textcoords="offset points", xytext=(4, 4), fontsize=7)
    axes.axvline(work.steps / TARGET_SPEED, color="grey", linewidth=0.6, linestyle=":")
    axes.set_xlabel(f"computed steps of {work.steps} (mean over {scenes} scenes)")
    axes.set_ylabel("PSNR against the full run, dB")
    axes.set_title(
        f"Step caches on the demonstration model ({work.resolution} class, {work.frames} frames)", fontsize=10
    )
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    sys.exit(main())
