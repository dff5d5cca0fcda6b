"""A training run on disk, beside its LoRA: everything needed to continue."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.errors import CheckpointError, InputError
from framewake.train.optimiser import OptimiserState
from framewake.train.settings import Training, training_from
from framewake.weights.reading.files import TensorFile
from framewake.weights.writing.sealed import open_sealed, write_sealed

KEY = "framewake_training"
ENDING = ".training.safetensors"
_ABOUT = {"step": int, "data": str, "base": str, "engine": str, "recomputes": bool, "devices": int, "settings": dict}
_PARTS = ("factors", "first", "second")


class Run(NamedTuple):
    """A saved run. ``data`` tells its clips and captions from others, ``base`` its transformer's weights.

    ``engine`` is the one that it was saved on, ``devices`` how many of them; ``recomputes``: blocks worked through runs
    of tokens, which rounds otherwise.
    """

    state: OptimiserState
    settings: Training
    data: str
    base: str
    engine: str
    recomputes: bool
    devices: int


def state_path(target: Path) -> Path:
    """Where a LoRA's state lies."""
    return target.with_name(target.name.removesuffix(".safetensors") + ENDING)


def save_run(target: Path, run: Run) -> None:
    """Write the state, whole or not at all. Nothing of the random draws is in it: they follow from step and seed.

    Raises: UnwritableError, DiskFullError.
    """
    tensors = {
        f"{part}.{name}": np.ascontiguousarray(x) for part in _PARTS for name, x in getattr(run.state, part).items()
    }
    about = {name: getattr(run, name) for name in ("data", "base", "engine", "recomputes", "devices")}
    about |= {"step": run.state.step, "settings": dataclasses.asdict(run.settings)}
    write_sealed(state_path(target), tensors, metadata={KEY: json.dumps(about, sort_keys=True)})


def load_run(target: Path) -> Run:
    """The saved run of a LoRA.

    Raises: InputError when there is none, CheckpointError when it is damaged.
    """
    path = state_path(target)
    about, file = _read(path)
    shapes: dict[str, dict[str, tuple[int, ...]]] = {part: {} for part in _PARTS}
    for name in file.names():
        part, _, rest = name.partition(".")
        shapes.setdefault(part, {})[rest] = file.shape(name)
    if shapes != dict.fromkeys(_PARTS, shapes["factors"]):
        raise unfit(target)
    parts = {part: {name: file.read(f"{part}.{name}") for name in shapes[part]} for part in _PARTS}
    state, settings = OptimiserState(about["step"], **parts), training_from(about["settings"])
    return Run(state, settings, about["data"], about["base"], about["engine"], about["recomputes"], about["devices"])


def saved_settings(target: Path) -> tuple[Training, int]:
    """The settings of a saved run and how many updates it has behind it; no tensor is read.

    Raises: InputError when there is none, CheckpointError when it is damaged.
    """
    about, _ = _read(state_path(target))
    return training_from(about["settings"]), int(about["step"])


def unfit(target: Path) -> CheckpointError:
    """The error for a state that another program must have made."""
    return CheckpointError(f"{state_path(target)} does not fit its own settings: begin anew under another name.")


def other_clips(data: Path) -> InputError:
    """The error for clips that a run did not begin with."""
    return InputError(
        f"the clips or captions in {data} are not those that the run began with: put them back, or train a new file."
    )


def _read(path: Path) -> tuple[dict[str, Any], TensorFile]:
    if not path.exists():
        raise InputError(f"there is no saved run {path}: leave out --resume to begin one.")
    try:
        file = open_sealed(path)
        about = json.loads(file.metadata[KEY])
    except CheckpointError as error:
        raise CheckpointError(f"{error} It cannot be gone on from: begin anew under another name.") from error
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no saved run: begin anew under another name.") from error
    if not isinstance(about, dict) or {name: type(value) for name, value in about.items()} != _ABOUT:
        raise CheckpointError(f"{path} was saved by another version: begin anew under another name.")
    return about, file
