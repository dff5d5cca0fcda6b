"""The options of ``framewake lora train``: those of ``Training``, declared there, and those for input and output."""

from __future__ import annotations

import inspect

import typer

from framewake.app.options import PLACES, local, option, parameter
from framewake.train.settings import training_settings


def train_parameters() -> list[inspect.Parameter]:
    """The parameters of the command: clips and file by position, everything else by name."""
    data = typer.Argument(
        parser=local("DATA"),
        metavar="DATA",
        show_default=False,
        help="A folder of clips (.mp4, .gif, .webp, folders of .png files), each with a .txt file of the same name "
        'that says what happens; or with a metadata.jsonl of {"file": ..., "caption": ...}.',
    )
    target = typer.Argument(
        parser=local("OUT"), metavar="OUT", show_default=False, help="The LoRA to write, ending in .safetensors."
    )
    found = [parameter("data", str, inspect.Parameter.empty, data, is_positional=True)]
    found.append(parameter("target", str, inspect.Parameter.empty, target, is_positional=True))
    found += [option(name, setting) for name, setting in training_settings().items()]
    found += [parameter(name, *PLACES[name]) for name in ("checkpoint", "engine")]
    cache = typer.Option(
        "--cache",
        parser=local("--cache"),
        metavar="DIR",
        show_default=False,
        help="Where encoded clips and captions are kept for the next run. Default: .framewake in DATA.",
    )
    found.append(parameter("cache", str | None, None, cache))
    resume = typer.Option("--resume", help="Continue OUT where it was stopped, with its own settings.")
    found.append(parameter("resume", bool, False, resume))
    as_json = typer.Option("--json", help="One JSON event per line on stdout, for programs.")
    found.append(parameter("json", bool, False, as_json))
    return found
