"""A training run on disk, beside its LoRA: everything that is needed to go on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import CheckpointError, InputError
from framewake.train.optimiser import State
from framewake.train.settings import Training, training_from
from framewake.weights.files import TensorFile
from framewake.weights.writing import write_tensors

KEY = "framewake_training"
ENDING = ".training.safetensors"
_PARTS = ("factors", "first", "second")


class Run(NamedTuple):
    """A saved run. ``data`` tells its clips and captions from others, ``base`` its transformer's weights.

    ``engine`` is the one that it was saved on.
    """

    state: State
    settings: Training
    data: str
    base: str
    engine: str


def state_path(target: Path) -> Path:
    """Where a LoRA's state lies."""
    return target.with_name(target.name.removesuffix(".safetensors") + ENDING)


def save_run(engine: Engine, target: Path, run: Run) -> None:
    """Write the state, whole or not at all. Nothing of the random draws is in it: they follow from step and seed.

    Raises: UnwritableError, DiskFullError.
    """
    tensors: dict[str, np.ndarray] = {}
    for part in _PARTS:
        values = getattr(run.state, part)
        tensors |= {f"{part}.{name}": np.ascontiguousarray(engine.numpy(x)) for name, x in values.items()}
    about = {"step": run.state.step, "data": run.data, "base": run.base, "engine": run.engine}
    about["settings"] = dataclasses.asdict(run.settings)
    write_tensors(state_path(target), tensors, metadata={KEY: json.dumps(about, sort_keys=True)})


def load_run(engine: Engine, target: Path) -> Run:
    """The saved run of a LoRA.

    Raises: InputError when there is none, CheckpointError when it is damaged.
    """
    path = state_path(target)
    about, file = _read(path)
    parts: dict[str, dict[str, Any]] = {part: {} for part in _PARTS}
    for name in file.names():
        part, _, rest = name.partition(".")
        parts[part][rest] = engine.asarray(file.read(name), "float32")
    state, settings = State(about["step"], **parts), training_from(about["settings"])
    return Run(state, settings, about["data"], about["base"], about["engine"])


def saved_settings(target: Path) -> tuple[Training, int]:
    """The settings of a saved run and how many updates it has behind it; no tensor is read.

    Raises: InputError when there is none, CheckpointError when it is damaged.
    """
    about, _ = _read(state_path(target))
    return training_from(about["settings"]), int(about["step"])


def _read(path: Path) -> tuple[dict[str, Any], TensorFile]:
    if not path.exists():
        raise InputError(f"there is no saved run {path}: leave out --resume to begin one.")
    file = TensorFile(path)
    try:
        about = json.loads(file.metadata[KEY])
        known = {"step", "data", "base", "engine", "settings"}
    except (KeyError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no saved run: begin anew under another name.") from error
    if not isinstance(about, dict) or set(about) != known:
        raise CheckpointError(f"{path} was saved by another version: begin anew under another name.")
    return about, file
