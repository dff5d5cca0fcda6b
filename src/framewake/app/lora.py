"""``framewake lora``: inspect, convert, merge and train LoRAs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from framewake.app.launch import refuse_copies
from framewake.app.options import (
    JSON,
    REQUIRED,
    Given,
    argument,
    checkpoint_option,
    engine_option,
    filled,
    hung,
    local,
    named,
    switch,
)
from framewake.app.train_options import train_parameters

if TYPE_CHECKING:
    from framewake.weights.checkpoint.load import Checkpoint
    from framewake.weights.lora.file import Lora
    from framewake.weights.lora.targets import Targets

HELP = "Inspect, convert, merge and train LoRAs."
app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

CHECKPOINT = checkpoint_option(
    "The checkpoint it is for, or demo for the embedded one. Default: the published model that its tensors fit."
)
ADAPTER = named("--adapter", "NAME", "Which adapter, when a file holds several of PEFT's.")
LONGEST = 100  # characters of a value of the metadata, as JSON has all of it
PARTIAL = switch("--lora-partial", text="Use what fits of a file instead of refusing it.")


@app.callback(help=HELP)
def alone(context: typer.Context) -> None:
    """All of these but training are for one process."""
    if context.invoked_subcommand != "train":
        refuse_copies()


@hung(
    app,
    "info",
    argument("file", "FILE", "A LoRA of any format, or PEFT's folder.", parser=filled("FILE")),
    *(CHECKPOINT, PARTIAL, ADAPTER, JSON),
)
def info(given: Given) -> None:
    """Show what a LoRA is and what it matches.

    That is its format, ranks and alpha, what the file says of how it was trained and, with a checkpoint, how much it
    changes.

    \b
    Examples:
      framewake lora info style.safetensors
      framewake lora info style.safetensors --checkpoint /models/HunyuanVideo-I2V
    """
    from framewake.console.escape import inline
    from framewake.weights.lora.report import report
    from framewake.weights.lora.sizes import check_sizes

    opened, model, _, lora = _opened(given, given["file"])
    check_sizes(lora)
    norm_of = None
    if opened is not None:
        tensors = opened.tensors("dit")

        def norm_of(name: str) -> float:
            values = tensors.read(name).reshape(-1)
            return math.sqrt(float(values @ values))

    facts = report(lora, norm_of)
    said = [f"\n  {inline(name)}: {_short(text)}" for name, text in sorted(facts.metadata.items())]
    words = f"{facts.sentence()}\n  model: {inline(model)}{''.join(said)}"
    record = facts.record() | {"model": model}
    text = json.dumps(record, indent=2, ensure_ascii=False) if given["json"] else words
    sys.stdout.write(text + "\n")


@hung(
    app,
    "convert",
    argument("source", "IN", "A LoRA of any format.", parser=filled("IN")),
    argument("target", "OUT", "The file to write.", parser=filled("OUT")),
    named("--format", "[official|kohya|diffusers|comfyui]", "The format to write.", default=REQUIRED),
    *(CHECKPOINT, PARTIAL, ADAPTER),
)
def convert(given: Given) -> None:
    """Write a LoRA in another format; the numbers stay as they are.

    \b
    Examples:
      framewake lora convert style.safetensors style-diffusers.safetensors \\
          --format diffusers
    """
    from framewake.errors import InputError, nearest
    from framewake.weights.lora.convert import convert as write
    from framewake.weights.lora.holding import unheld
    from framewake.weights.lora.keys import FORMATS

    source, target, style = given["source"], given["target"], given["format"]
    known = next((name for name in FORMATS if name == style), None)
    if known is None:
        raise InputError(f"--format {style!r} is unknown: choose {', '.join(FORMATS)}.{nearest(style, FORMATS)}")
    _, _, targets, lora = _opened(given, source)
    lost = unheld(lora, known, targets)
    count = write(lora, target, known, targets, allows_partial=given["lora_partial"])
    without = f", without {len(lost)} change{'s' if len(lost) > 1 else ''} that it cannot hold" if lost else ""
    sys.stdout.write(f"{target}: {count} modules in {style} format, from {lora.format} format{without}.\n")


@hung(
    app,
    "merge",
    argument("checkpoint", "CHECKPOINT", "The checkpoint folder, or demo.", parser=filled("CHECKPOINT")),
    argument(
        "places",
        "LORA[:WEIGHT]... OUT",
        "One LoRA or more, and the folder to write.",
        kind=list[str],
        parser=filled("LORA or OUT"),
    ),
    engine_option(),
    switch("--lora-ignore-alpha", text="Without alpha / rank, as the original does."),
    PARTIAL,
)
def merge(given: Given) -> None:
    """Write a checkpoint with LoRAs merged in for good.

    The checkpoint has to be in the diffusers layout; types stay as they are.

    \b
    Examples:
      framewake lora merge /models/HunyuanVideo-I2V style.safetensors:0.8 \\
          /models/with-style
    """
    from framewake import engine as engines
    from framewake.pipeline.adapters import targets_of
    from framewake.pipeline.checkpoint import find_checkpoint
    from framewake.weights.checkpoint.load import open_checkpoint
    from framewake.weights.lora.file import open_lora
    from framewake.weights.lora.fuse import fuse
    from framewake.weights.lora.sizes import check_sizes

    paths, scales, folder = _places(given["places"])
    opened = open_checkpoint(find_checkpoint(given["checkpoint"]))
    targets = targets_of(opened)
    allows_partial, ignores_alpha = given["lora_partial"], given["lora_ignore_alpha"]
    loras = [open_lora(p, targets, allows_partial=allows_partial, ignores_alpha=ignores_alpha) for p in paths]
    for lora in loras:
        check_sizes(lora)
    changed = fuse(opened, loras, scales, folder=folder, engine=engines.get(given["engine"]))
    sys.stdout.write(f"{folder}: a checkpoint with {changed} changed weights.\n")


@hung(
    app,
    "curve",
    argument("file", "FILE", "A LoRA that was trained here, or its .training.csv.", parser=local("FILE")),
)
def curve(given: Given) -> None:
    """Draw the losses of a training run.

    The picture lies beside the run's .training.csv, which a spreadsheet opens.

    \b
    Examples:
      framewake lora curve style.safetensors
    """
    from pathlib import Path

    from framewake.console.escape import inline
    from framewake.lasting import written_whole
    from framewake.media.curve import Curve, drawn
    from framewake.train.log import log_path, read_log

    path = Path(given["file"])
    rows = read_log(path)
    averages = [(row.update, row.average) for row in rows if row.average is not None]
    lines = [
        Curve("loss", [(row.update, row.loss) for row in rows if row.loss is not None], "#b8cbe4", 1),
        Curve("average", averages, "#1f5fa8", 2),
    ]
    held = [(row.update, row.validation) for row in rows if row.validation is not None]
    lines += [Curve("validation", held, "#c0392b", 2)] if held else []
    target = (log_path(path) if path.suffix == ".safetensors" else path).with_suffix(".png")
    with written_whole(target) as part:
        drawn(lines, title=target.stem, across="update").save(part, "PNG")
    step, average = averages[-1]
    sys.stdout.write(f"{inline(target)}: {step} updates, loss {average:.4f}\n")


@hung(app, "train", *train_parameters())
def train(given: Given) -> None:
    """Train a LoRA on a folder of clips with captions.

    Clips and captions are encoded once and kept, so that a second run starts at once. The run is saved every
    --save-every updates and at Ctrl-C; --resume goes on from there, and the file becomes the same as without the stop.

    \b
    Examples:
      framewake lora train clips/ style.safetensors \\
          --checkpoint /models/HunyuanVideo-I2V --steps 2000 --warmup 100
      framewake lora train clips/ style.safetensors --resume
      framewake lora train clips/ small.safetensors --rank 16 \\
          --target "single_blocks.*" --lr 3e-4 --batch 4
      framewake lora train clips/ style.safetensors --sample-every 200 \\
          --sample-image a.png --sample-prompt "she smiles"
      framewake lora train clips/ style.safetensors --format diffusers \\
          --dtype bfloat16
    """
    from framewake.app.train import train as run

    code = run(given)
    if code:
        raise typer.Exit(code)


def _short(text: str) -> str:
    """A value of a file's metadata as one line; trainers write whole lists of words."""
    from framewake.console.escape import inline

    line = inline(text)
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."


def _places(places: Sequence[str]) -> tuple[list[str], list[float], str]:
    """LoRA paths, their weights, and the folder at the end.

    Raises: InputError without one of them, or for weights by step.
    """
    from framewake.errors import InputError
    from framewake.lora import parse_lora

    if len(places) < 2:
        raise InputError("a LoRA and a new folder are needed: `framewake lora merge CHECKPOINT LORA[:WEIGHT]... OUT`.")
    *texts, folder = places
    uses = [parse_lora(text) for text in texts]
    for use, text in zip(uses, texts, strict=True):
        if use.spans[0].stop is not None:
            raise InputError(f"LoRA {text!r}: a merged weight is the same at every step; give one number.")
    return [use.path for use in uses], [use.weight(0) for use in uses], folder


def _opened(given: Given, file: str) -> tuple[Checkpoint | None, str, Targets, Lora]:
    """The checkpoint, None without one, the model's name, what a LoRA can adapt in it, and the LoRA.

    A LoRA that ships is for the embedded checkpoint.
    Raises: CheckpointError.
    """
    from framewake.demo import LORAS, shipped
    from framewake.pipeline.adapters import targets_of
    from framewake.pipeline.checkpoint import find_checkpoint
    from framewake.weights.checkpoint.load import open_checkpoint
    from framewake.weights.lora.file import open_lora

    checkpoint = given["checkpoint"] or ("demo" if shipped(file, LORAS) else None)
    if checkpoint is None:
        name, targets = _told(file, given["adapter"])
        return None, name, targets, _lora(file, targets, given)
    opened = open_checkpoint(find_checkpoint(checkpoint))
    targets = targets_of(opened)
    lora = open_lora(file, targets, allows_partial=given["lora_partial"], adapter=given["adapter"])
    return opened, opened.settings.name, targets, lora


def _told(file: str, adapter: str | None) -> tuple[str, Targets]:
    """The published model that a LoRA's tensors fit, the first one where they fit none, and what it can adapt there.

    Raises: InputError where they fit two alike, CheckpointError for a file that cannot be read.
    """
    from framewake.errors import InputError
    from framewake.pipeline.adapters import published_targets
    from framewake.weights.lora.file import count_fitting
    from framewake.weights.lora.opening import lora_file

    known, tensors = published_targets(), lora_file(file)
    counts = {name: count_fitting(tensors, targets, adapter) for name, targets in known.items()}
    best = max(counts, key=lambda name: counts[name])
    if counts[best] and list(counts.values()).count(counts[best]) > 1:
        raise InputError(
            f"{file} does not tell its model: its tensors fit {' and '.join(known)} alike. Name the checkpoint that it "
            "is for with --checkpoint."
        )
    return best, known[best]


def _lora(file: str, targets: Targets, given: Given) -> Lora:
    """A LoRA against a published transformer, which nobody has named.

    Raises: CheckpointError.
    """
    from framewake.errors import CheckpointError
    from framewake.pipeline.adapters import published_targets
    from framewake.weights.lora.file import open_lora

    try:
        return open_lora(file, targets, allows_partial=given["lora_partial"], adapter=given["adapter"])
    except CheckpointError as error:
        if "this transformer" in str(error):
            names = " and ".join(published_targets())
            error.args = (f"{error} It was held against {names} as published: name another with --checkpoint.",)
        raise
