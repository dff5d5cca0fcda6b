"""A model through the whole program on this machine: random weights of the published size, a few frames.

Makes the checkpoint (42 GB, or 34 GB with --model hunyuanvideo-1.5: step-distilled at 480p), runs `framewake animate`
on it in a process of its own, and compares each step with two floors measured in the same run: all bytes of the
transformer over the disk's bandwidth, all operations over the best rate of a matrix product. Memory is the process's
own, without pages of mapped files (measuring/watched.py says how). With --convert the transformer is converted too, and
the memory for that is measured; --only-convert does nothing else. Adds a line to docs/measurements/full-size.md, or to
full-size-15.md.

With --train one update of a LoRA is made in place of a clip: within 450 s, 6.5 GB of own memory, and half of the speed
of its floor (docs/measurements/full-size-train.md).

With --keep the checkpoint stays, whatever happens, and one that is there is used: nothing has to be written twice
because a later part was stopped.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from measuring import clocks, device, record, training_run
from measuring.full_checkpoint import FEW_LAYERS, FIRST, Published, Sizes, size_of, write_full, write_part
from measuring.full_checkpoint15 import SECOND
from measuring.watched import Watched, watch
from PIL import Image

from framewake import engine as engines
from framewake.media.framing import FRAMES
from framewake.pipeline.condition import TextReader
from framewake.pipeline.forecast.cost import Scene, step_operations
from framewake.pipeline.forecast.probe import cache_folder
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.direct import DirectFile
from framewake.weights.stores.room import Room

NAME = "full-size"
MODELS = {"hunyuanvideo-i2v": FIRST, "hunyuanvideo-1.5": SECOND}
PROMPT = "The red circle moves slowly to the right"
LIMIT = 4 * 10**9
TARGET = 1.25
READ = 3 * 2**30
PIECE = 16 << 20
SPARE = 2 * 10**9


def main() -> int:
    """Make the checkpoint, run the program, write down what was found."""
    options = record.parser(__doc__, rounds=1)
    options.add_argument("--model", choices=MODELS, default="hunyuanvideo-i2v")
    options.add_argument("--folder", type=Path, default=cache_folder() / "full-size", help="where the checkpoint goes")
    options.add_argument("--keep", action="store_true", help="leave the checkpoint, and take one that is there")
    options.add_argument("--small", action="store_true", help="few layers and a narrow autoencoder: a trial")
    options.add_argument("--frames", type=int, default=5)
    options.add_argument("--steps", type=int, default=2)
    options.add_argument("--memory", help="what the program may use: 4GB for a clip, 6.5GB for an update")
    options.add_argument("--train", action="store_true", help="an update of a LoRA in place of a clip")
    options.add_argument("--convert", metavar="TYPE", help="convert the transformer afterwards")
    options.add_argument("--only-convert", metavar="TYPE", help="convert it, and measure nothing else")
    arguments = options.parse_args()
    model = MODELS[arguments.model]
    sizes = model.small if arguments.small else model.full
    if model is SECOND and (arguments.train or arguments.convert or arguments.only_convert):
        raise SystemExit("--train and --convert are for hunyuanvideo-i2v.")
    found: dict = {"command": sys.argv[1:], "prompt": PROMPT}
    if arguments.only_convert:
        with made(arguments, model, sizes, found), clocks.Watch() as others:
            found["convert"] = converted(arguments.folder, arguments.only_convert)
        record.write(f"{NAME}-convert", found | {"machine_was": others.words()}, [], has_notes=False)
        say(f"{found['convert']}; the machine was {others.words()}")
        return found["convert"]["code"]
    arguments.memory = arguments.memory or ("6.5GB" if arguments.train else "4GB")
    if arguments.train:
        with made(arguments, model, sizes, found), clocks.Watch() as others:
            found |= trained(arguments, sizes)
        found["machine_was"] = others.words()
        has_notes = not (arguments.no_notes or arguments.small)
        record.write(f"{NAME}-train", found, [training_run.row(found)], has_notes=has_notes)
        return 0 if found["train"]["is_met"] else 1
    with made(arguments, model, sizes, found):
        with clocks.Watch() as others:
            found |= measured(arguments, model, sizes)
        found["machine_was"] = others.words()
        if arguments.convert:
            found["convert"] = converted(arguments.folder, arguments.convert)
            say(found["convert"])
    has_notes = not (arguments.no_notes or arguments.small)
    record.write(model.page, found, [row(found)], has_notes=has_notes)
    return 0 if found["own_peak"] <= LIMIT else 1


@contextlib.contextmanager
def made(arguments: argparse.Namespace, model: Published, sizes: Sizes, found: dict) -> Iterator[None]:
    """The checkpoint on disk while the block runs."""
    folder, needed = arguments.folder, size_of(model, sizes)
    found["checkpoint_bytes"] = needed
    if arguments.keep and (folder / "model_index.json").exists():
        # A conversion leaves a small text encoder behind, which is all that it needs.
        if model is FIRST and not arguments.only_convert and open_checkpoint(folder).llava != sizes["llava"]:
            write_part(folder, model, "llava", sizes["llava"])
        yield
        return
    if arguments.keep and is_unfinished(folder):
        shutil.rmtree(folder)
    if folder.exists() and any(folder.iterdir()):
        raise SystemExit(f"{folder} is not empty: name another --folder, or --keep to use the checkpoint in it.")
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed + SPARE > free:
        raise SystemExit(f"{folder} needs {needed / 1e9:.1f} GB and has {free / 1e9:.1f} GB: name another --folder.")
    try:
        begin = time.perf_counter()
        write_full(folder, model, sizes, prompt=PROMPT)
        os.sync()
        seconds = time.perf_counter() - begin
        found["write_seconds"] = seconds
        say(f"wrote {needed / 1e9:.1f} GB in {seconds:.0f} s ({needed / seconds / 1e9:.2f} GB/s)")
        yield
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)


def is_unfinished(folder: Path) -> bool:
    """Whether a checkpoint was being written here: its description comes last."""
    return (folder / "transformer").is_dir() and not (folder / "model_index.json").exists()


def smallest(model: Published) -> tuple[int, int]:
    """The smallest bucket, and of the two the tall one: a wide picture need not get a bucket of its own shape."""
    found = FRAMES[model.full["dit"].framing].buckets(model.side_px)
    return min(found, key=lambda size: (math.prod(size), -size[0]))


def trained(arguments: argparse.Namespace, sizes: Sizes) -> dict:
    """One update, and its floors before and after it."""
    folder, size = arguments.folder, smallest(FIRST)
    data = training_run.write_clip(folder, size, arguments.frames, PROMPT)
    engine, file = engines.get("torch:cpu"), next((folder / "transformer").glob("*.safetensors"))
    rates, disks = [device.matrix_ceiling(engine, "bfloat16")], read_rates(file)
    found = training_run.train(folder, data, arguments.memory, arguments.frames, say)
    rates.append(device.matrix_ceiling(engine, "bfloat16"))
    disks += read_rates(file)
    text = TextReader(open_checkpoint(folder)).lengths(PROMPT).kept
    tokens = ((arguments.frames - 1) // 4 + 1) * (size[0] // 16) * (size[1] // 16)
    scene = Scene(1, tokens, text, "bfloat16", False)
    floors = training_run.floors(sizes["dit"], scene, product_rate=max(rates), disk_rate=max(disks))
    return {
        "size": [arguments.frames, *size],
        "tokens": scene.joined,
        "matrix_rates": rates,
        "disk_rates": disks,
        "floors": floors,
        "train": training_run.judged(found, max(floors.values())),
    }


def measured(arguments: argparse.Namespace, model: Published, sizes: Sizes) -> dict:
    """One clip, and its floors before and after it."""
    folder = arguments.folder
    height, width = smallest(model)
    picture = folder / "picture.png"
    shade = np.linspace(0, 255, height * width * 3).reshape(height, width, 3).astype(np.uint8)
    Image.fromarray(shade).save(picture)
    engine = engines.get("torch:cpu")
    file = next((folder / "transformer").glob("*.safetensors"))
    rates = [device.matrix_ceiling(engine, "bfloat16")]
    disks = read_rates(file)
    command = [str(Path(sys.executable).with_name("framewake")), "animate", str(picture), PROMPT]
    command += ["--checkpoint", str(folder), "--engine", "torch:cpu", "--precision", "bfloat16"]
    command += ["--resolution", model.resolution, "--frames", str(arguments.frames)]
    command += ["--steps", str(arguments.steps), "--memory", arguments.memory]
    command += ["--seed", "1", "--json", "-o", str(folder / "clip.mp4")]
    run = watch(command, say=say)
    if run.code:
        raise SystemExit(f"framewake animate ended with {run.code}")
    rates.append(device.matrix_ceiling(engine, "bfloat16"))
    disks += read_rates(file)
    latent_frames = (arguments.frames - 1) // 4 + 1
    text = model.family.reader(open_checkpoint(folder)).lengths(PROMPT).kept
    scene = Scene(
        1,
        latent_frames * (height // 16) * (width // 16),
        text,
        "bfloat16",
        False,
    )
    operations = step_operations(sizes["dit"], scene)
    steps = [event["seconds"] for event in run.events if event["event"] == "step"]
    floors = {"disk": file.stat().st_size / max(disks), "operations": operations / max(rates)}
    return {
        "size": [arguments.frames, height, width],
        "tokens": scene.joined,
        "steps": steps,
        "operations": operations,
        "matrix_rates": rates,
        "disk_rates": disks,
        "floors": floors,
        "ratio": min(steps) / max(floors.values()),
        "target": TARGET,
        "limit": LIMIT,
        **memory_of(run),
    }


def memory_of(run: Watched) -> dict:
    """What a run took, for the record."""
    timings = next((event["timings"] for event in reversed(run.events) if event["event"] == "result"), {})
    return {
        "own_peak": run.own_peak,
        "resident_peak": run.resident_peak,
        "own_peaks": run.peaks,
        "seconds": run.seconds,
        "timings": timings,
        "plan": next((event["text"] for event in run.events if event["event"] == "note"), ""),
    }


def read_rates(file: Path) -> list[float]:
    """Bytes a second from the disk itself, through the system's file cache and around it.

    What the system still holds of the file is dropped first.
    """
    with open(file, "rb") as source:
        os.posix_fadvise(source.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    source, room, found = DirectFile(file), Room(lies_as_file=True), []
    starts = range(0, min(READ, file.stat().st_size - PIECE), PIECE)
    for place in (1, 0):  # memory that lies as the file does is filled around the cache
        held = room.empty((PIECE,), np.dtype(np.uint8), start=place)
        begin = time.perf_counter()
        for start in starts:
            source.fill(held, start)
        found.append(len(starts) * PIECE / (time.perf_counter() - begin))
    return found


def converted(folder: Path, kind: str) -> dict:
    """The transformer in another type; a small text encoder takes the large one's place, for room on the disk."""
    if open_checkpoint(folder).llava != FEW_LAYERS:
        write_part(folder, FIRST, "llava", FEW_LAYERS)
    target = folder.with_name(folder.name + "-converted")
    shutil.rmtree(target, ignore_errors=True)  # of a conversion that was killed
    command = [str(Path(sys.executable).with_name("framewake")), "checkpoints", "convert", str(folder), str(target)]
    try:
        run = watch([*command, "--dtype", kind, "--layout", "framewake"], say=say)
    finally:
        shutil.rmtree(target, ignore_errors=True)
    return {"type": kind, "code": run.code, "seconds": run.seconds, "own_peak": run.own_peak}


def row(found: dict) -> str:
    """A row of the benchmark's table."""
    steps = ", ".join(f"{seconds:.1f}" for seconds in found["steps"])
    floors = found["floors"]
    cells = [
        record.setting()["date"],
        record.setting()["machine"],
        "x".join(map(str, found["size"])),
        found["tokens"],
        steps,
        f"{floors['disk']:.1f} ({max(found['disk_rates']) / 1e9:.2f} GB/s)",
        f"{floors['operations']:.1f} ({max(found['matrix_rates']) / 1e9:.0f} Gflop/s)",
        f"{found['ratio']:.2f}",
        f"{found['own_peak'] / 1e9:.2f}",
        f"{found['resident_peak'] / 1e9:.2f}",
        f"{found['seconds']:.0f}",
        found["machine_was"],
    ]
    return "| " + " | ".join(map(str, cells)) + " |"


def say(text: object) -> None:
    """A line for whoever watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
