"""The trained factors as a LoRA file that every loader reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from framewake.train.factors import DOWN, UP
from framewake.train.optimiser import OptimiserState
from framewake.train.settings import Training
from framewake.weights.lora.convert import write_pairs
from framewake.weights.lora.pieces import FactorPiece
from framewake.weights.lora.targets import Targets
from framewake.weights.reading.narrow import STORED, narrowed

KINDS: dict[str, str] = {dtype: kind for kind, dtype in STORED.items()}


def write_lora(
    target: Path, state: OptimiserState, settings: Training, *, targets: Targets, about: Mapping[str, str]
) -> None:
    """Write a run's factors in the format and type of its settings; the file changes at once or not at all.

    ``targets`` are those of the transformer that they are for, ``about`` is the file's metadata.
    Raises: UnwritableError, DiskFullError.
    Source: specification, sections 9 and 10.5.
    """
    kind, alpha = KINDS[settings.stored], alpha_of(settings)
    pairs: dict[str, list[FactorPiece]] = {}
    for key, x in state.factors.items():
        if key.endswith(UP):
            module = key.removesuffix(UP)
            up, down = (_stored(values, settings) for values in (x, state.factors[module + DOWN]))
            pairs[f"{module}.weight"] = [FactorPiece(0, x.shape[0], up, down, kind, alpha)]
    write_pairs(target, pairs, settings.format, targets, metadata=about, others={})  # type: ignore[arg-type]


def _stored(values: np.ndarray, settings: Training) -> np.ndarray:
    return narrowed(np.ascontiguousarray(values), settings.stored)  # type: ignore[arg-type]


def alpha_of(settings: Training) -> float:
    """The run's alpha, the rank where none is named."""
    return float(settings.rank if settings.alpha is None else settings.alpha)
