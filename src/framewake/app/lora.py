"""``framewake lora``: inspect, convert, merge and train LoRAs."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from framewake.app.options import filled, with_parameters
from framewake.app.train_options import train_parameters

if TYPE_CHECKING:
    from framewake.config import DiTConfig
    from framewake.weights.checkpoint.load import Checkpoint
    from framewake.weights.lora.file import Lora
    from framewake.weights.lora.targets import Targets

app = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Inspect, convert, merge and train LoRAs.",
)

_CHECKPOINT = typer.Option(
    "--checkpoint",
    parser=filled("--checkpoint"),
    metavar="PATH",
    envvar="FRAMEWAKE_CHECKPOINT",
    show_default=False,
    help="The checkpoint it is for, or demo for the embedded one. Default: the published model's sizes.",
)
_ADAPTER = typer.Option(
    "--adapter", metavar="NAME", show_default=False, help="Which adapter, when a file holds several of PEFT's."
)
_PARTIAL = typer.Option("--lora-partial", help="Use what fits of a file instead of refusing it.")


@app.command()
def info(
    file: Annotated[
        str, typer.Argument(parser=filled("FILE"), metavar="FILE", help="A LoRA of any format, or PEFT's folder.")
    ],
    checkpoint: Annotated[str | None, _CHECKPOINT] = None,
    *,
    allows_partial: Annotated[bool, _PARTIAL] = False,
    adapter: Annotated[str | None, _ADAPTER] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")] = False,
) -> None:
    """Show what a LoRA is and what it matches.

    That is its format, ranks and alpha and, with a checkpoint, how much it changes.

    \b
    Examples:
      framewake lora info style.safetensors
      framewake lora info style.safetensors --checkpoint /models/HunyuanVideo-I2V
    """
    from framewake.weights.lora.report import report
    from framewake.weights.lora.sizes import check_sizes

    opened, targets, _ = _opened(checkpoint, file)
    lora = _lora(file, targets, allows_partial=allows_partial, adapter=adapter, is_guess=opened is None)
    check_sizes(lora)
    norm_of = None
    if opened is not None:
        tensors = opened.tensors("dit")

        def norm_of(name: str) -> float:
            values = tensors.read(name).reshape(-1)
            return math.sqrt(float(values @ values))

    facts = report(lora, norm_of)
    text = json.dumps(facts.record(), indent=2, ensure_ascii=False) if as_json else facts.sentence()
    sys.stdout.write(text + "\n")


@app.command()
def convert(
    source: Annotated[str, typer.Argument(parser=filled("IN"), metavar="IN", help="A LoRA of any format.")],
    target: Annotated[str, typer.Argument(parser=filled("OUT"), metavar="OUT", help="The file to write.")],
    style: Annotated[
        str, typer.Option("--format", metavar="[official|kohya|diffusers|comfyui]", help="The format to write.")
    ],
    *,
    checkpoint: Annotated[str | None, _CHECKPOINT] = None,
    allows_partial: Annotated[bool, _PARTIAL] = False,
    adapter: Annotated[str | None, _ADAPTER] = None,
) -> None:
    """Write a LoRA in another format; the numbers stay as they are.

    \b
    Examples:
      framewake lora convert style.safetensors style-diffusers.safetensors --format diffusers
    """
    from framewake.errors import InputError, nearest
    from framewake.weights.lora.convert import convert as write
    from framewake.weights.lora.holding import unheld
    from framewake.weights.lora.keys import FORMATS
    from framewake.weights.reading.names import diffusers_dit

    known = next((name for name in FORMATS if name == style), None)
    if known is None:
        raise InputError(f"--format {style!r} is unknown: choose {', '.join(FORMATS)}.{nearest(style, FORMATS)}")
    opened, targets, config = _opened(checkpoint, source)
    lora = _lora(source, targets, allows_partial=allows_partial, adapter=adapter, is_guess=opened is None)
    lost = unheld(lora, known, targets.tensors)
    count = write(lora, target, known, diffusers_dit(config), targets, allows_partial=allows_partial)
    without = f", without {len(lost)} change{'s' if len(lost) > 1 else ''} that it cannot hold" if lost else ""
    sys.stdout.write(f"{target}: {count} modules in {style} format, from {lora.format} format{without}.\n")


@app.command()
def merge(
    checkpoint: Annotated[
        str,
        typer.Argument(parser=filled("CHECKPOINT"), metavar="CHECKPOINT", help="The checkpoint folder, or demo."),
    ],
    places: Annotated[
        list[str],
        typer.Argument(
            parser=filled("LORA or OUT"),
            metavar="LORA[:WEIGHT]... OUT",
            help="One LoRA or more, and the folder to write.",
        ),
    ],
    *,
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", envvar="FRAMEWAKE_ENGINE")] = "auto",
    ignores_alpha: Annotated[
        bool, typer.Option("--lora-ignore-alpha", help="Without alpha / rank, as the original does.")
    ] = False,
    allows_partial: Annotated[bool, _PARTIAL] = False,
) -> None:
    """Write a checkpoint with LoRAs merged in for good.

    The checkpoint has to be in the diffusers layout; types stay as they are.

    \b
    Examples:
      framewake lora merge /models/HunyuanVideo-I2V style.safetensors:0.8 /models/with-style
    """
    from framewake import engine as engines
    from framewake.pipeline.adapters import targets_of
    from framewake.pipeline.checkpoint import find_checkpoint
    from framewake.weights.checkpoint.load import open_checkpoint
    from framewake.weights.lora.file import open_lora
    from framewake.weights.lora.fuse import fuse
    from framewake.weights.lora.sizes import check_sizes

    paths, scales, folder = _places(places)
    opened = open_checkpoint(find_checkpoint(checkpoint))
    targets = targets_of(opened)
    loras = [open_lora(p, targets, allows_partial=allows_partial, ignores_alpha=ignores_alpha) for p in paths]
    for lora in loras:
        check_sizes(lora)
    changed = fuse(opened, loras, scales, folder=folder, engine=engines.get(engine))
    sys.stdout.write(f"{folder}: a checkpoint with {changed} changed weights.\n")


def train(given: Mapping[str, Any]) -> None:
    """Train a LoRA on a folder of clips with captions.

    Clips and captions are encoded once and kept, so that a second run starts at once. The run is saved every
    --save-every updates and at Ctrl-C; --resume goes on from there, and the file becomes the same as without the stop.

    \b
    Examples:
      framewake lora train clips/ style.safetensors --checkpoint /models/HunyuanVideo-I2V --steps 2000 --warmup 100
      framewake lora train clips/ style.safetensors --resume
      framewake lora train clips/ small.safetensors --rank 16 --target "single_blocks.*" --lr 3e-4 --batch 4
      framewake lora train clips/ style.safetensors --sample-every 200 --sample-image a.png --sample-prompt "she smiles"
      framewake lora train clips/ style.safetensors --format diffusers --dtype bfloat16
    """
    from framewake.app.train import train as run

    run(given)


app.command("train")(with_parameters(train, train_parameters()))


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


def _lora(path: str, targets: Targets, *, allows_partial: bool, adapter: str | None, is_guess: bool) -> Lora:
    """A LoRA against a transformer; ``is_guess``: nobody named one, so it is the published one.

    Raises: CheckpointError.
    """
    from framewake.errors import CheckpointError
    from framewake.weights.lora.file import open_lora

    try:
        return open_lora(path, targets, allows_partial=allows_partial, adapter=adapter)
    except CheckpointError as error:
        if is_guess and "this transformer" in str(error):  # which nobody has named
            error.args = (f"{error} This transformer is the published model's: name another with --checkpoint.",)
        raise


def _opened(checkpoint: str | None, file: str) -> tuple[Checkpoint | None, Targets, DiTConfig]:
    """The checkpoint, None without one; what a LoRA can adapt; and the transformer's shape.

    A LoRA that ships is for the embedded checkpoint.
    """
    from framewake.config import HUNYUAN_DIT
    from framewake.pipeline.adapters import targets_for, targets_of
    from framewake.pipeline.checkpoint import find_checkpoint
    from framewake.weights.checkpoint.load import open_checkpoint
    from framewake.weights.lora.opening import is_shipped

    checkpoint = checkpoint or ("demo" if is_shipped(file) else None)
    if checkpoint is None:
        return None, targets_for(HUNYUAN_DIT), HUNYUAN_DIT
    opened = open_checkpoint(find_checkpoint(checkpoint))
    return opened, targets_of(opened), opened.dit
