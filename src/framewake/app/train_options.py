"""The options of ``framewake lora train``: those of ``Training``, declared there, and those for input and output."""

from __future__ import annotations

import inspect

from framewake.app.options import EVENTS, PLACES, argument, local, named, option, path, switch
from framewake.train.settings import training_settings


def train_parameters() -> list[inspect.Parameter]:
    """The parameters of the command: clips and file by position, everything else by name."""
    data = (
        "A folder of clips (.mp4, .gif, .webp, folders of .png files), each with a .txt file of the same name "
        'that says what happens; or with a metadata.jsonl of {"file": ..., "caption": ...}. Or a dataset file of '
        "musubi-tuner, ending in .toml."
    )
    cache = "Where encoded clips and captions are kept for the next run. Default: .framewake in DATA, or beside it."
    return [
        argument("data", "DATA", data, parser=local("DATA")),
        argument("target", "OUT", "The LoRA to write, ending in .safetensors.", parser=local("OUT")),
        *(option(name, setting) for name, setting in training_settings().items()),
        PLACES["checkpoint"],
        PLACES["engine"],
        path("--cache", "DIR", cache),
        named(
            "--memory",
            "SIZE",
            "The most this may use on the device, such as 12GB; on a CPU, of memory. Frozen weights are streamed, "
            "activations kept in the host's memory and tokens computed again where that is needed. Default: what is "
            "free.",
        ),
        named(
            "--devices",
            "N|LIST",
            "Train by several devices, each with batches of its own, as if they were --accumulate: how many, or which. "
            "torchrun and msrun start it too.",
        ),
        switch("--resume", text="Continue OUT where it was stopped, with its own settings."),
        EVENTS,
    ]
