"""The state of a training run on disk: weights, their moving average, and how far each stage is."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from framewake.engine.contract import Engine, Weights
from framewake.errors import InputError


@dataclass(frozen=True)
class TrainingState:
    """What a run needs to go on. Units: ``progress`` holds seconds spent in each stage."""

    weights: dict[str, np.ndarray]
    average: dict[str, np.ndarray]
    progress: dict[str, float]


def save_state(path: Path, engine: Engine, *, weights: Weights, average: Weights, progress: dict[str, float]) -> None:
    """Write a state beside its final name, then rename it."""
    tensors = {f"weights.{n}": np.ascontiguousarray(engine.numpy(w)) for n, w in weights.items()}
    tensors |= {f"average.{n}": np.ascontiguousarray(engine.numpy(w)) for n, w in average.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file(tensors, partial, metadata={"progress": json.dumps(progress)})
    os.replace(partial, path)


def begun_state(path: Path) -> TrainingState:
    """The state in a file that an earlier step has written.

    Raises: InputError when the run has not come so far.
    """
    state = load_state(path)
    if state is None:
        raise InputError(
            f"{path} is not there: run the steps before this one first (`python -m demonstration all {path.parent}`), "
            "or begin with the shipped weights (the step adopt)."
        )
    return state


def read_scale(folder: Path) -> float:
    """The factor that gives latents unit variance, measured when the encoder was settled.

    Raises: InputError when it has not been yet.
    """
    path = folder / "scale.txt"
    if not path.exists():
        raise InputError(f"{path} is not there: run the step freeze first, or adopt.")
    return float(path.read_text())


def write_scale(folder: Path, scale: float) -> None:
    """Keep the factor for ``read_scale``; its file says that the encoder is settled, so it is whole or not there."""
    partial = folder / "scale.partial"
    partial.write_text(str(scale))
    os.replace(partial, folder / "scale.txt")


def load_state(path: Path) -> TrainingState | None:
    """The state in a file, or None when the run has not begun."""
    if not path.exists():
        return None
    with safe_open(path, framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        progress = json.loads(file.metadata()["progress"])
    pick = lambda prefix: {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}  # noqa: E731
    return TrainingState(pick("weights."), pick("average."), progress)
