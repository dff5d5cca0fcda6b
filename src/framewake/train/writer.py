"""The trained factors as a LoRA file that every loader reads."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from framewake.config import DiTConfig
from framewake.lasting import guarded, publish, removed_at_end, temporary_path
from framewake.train.factors import DOWN, UP
from framewake.train.optimiser import OptimiserState
from framewake.train.settings import Training
from framewake.weights.lora.convert import convert
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.keys import OFFICIAL
from framewake.weights.lora.targets import Targets
from framewake.weights.reading.names import diffusers_dit
from framewake.weights.reading.narrow import STORED, narrowed
from framewake.weights.writing.files import write_tensors

KINDS: dict[str, str] = {dtype: kind for kind, dtype in STORED.items()}


def write_lora(
    target: Path, state: OptimiserState, settings: Training, *, base: DiTConfig, about: Mapping[str, str]
) -> None:
    """Write a run's factors in the format and type of its settings; the file changes at once or not at all.

    ``base`` is the shape of the transformer that they are for, ``about`` the file's metadata.
    Raises: UnwritableError, DiskFullError.
    Source: specification, sections 9 and 10.5.
    """
    alpha = alpha_of(settings)
    tensors: dict[str, np.ndarray] = {}
    for key, x in state.factors.items():
        ending = DOWN if key.endswith(DOWN) else UP
        values = narrowed(np.ascontiguousarray(x), settings.stored)  # type: ignore[arg-type]
        tensors[OFFICIAL + key.removesuffix(ending).replace(".", "_") + ending] = values
    kinds = dict.fromkeys(tensors, KINDS[settings.stored])
    for key in [key.removesuffix(DOWN) for key in tensors if key.endswith(DOWN)]:
        tensors[key + ".alpha"] = np.asarray(alpha, np.float32)
    # Wider types first, so that every tensor begins where other readers want it.
    ordered = dict(sorted(tensors.items(), key=lambda item: -item[1].itemsize))
    if settings.format == "official":
        write_tensors(target, ordered, metadata=about, kinds=kinds)
        return
    with guarded(target, 0), removed_at_end(temporary_path(target)) as folder:
        folder.mkdir()
        first, second = folder / "official.safetensors", folder / target.name
        write_tensors(first, ordered, kinds=kinds)
        rules = diffusers_dit(base)
        targets = Targets(_shapes(state), rules)
        convert(open_lora(first, targets), second, settings.format, rules, targets, about=about)  # type: ignore[arg-type]
        publish(second, target)


def alpha_of(settings: Training) -> float:
    """The run's alpha, the rank where none is named."""
    return float(settings.rank if settings.alpha is None else settings.alpha)


def _shapes(state: OptimiserState) -> dict[str, tuple[int, ...]]:
    """The shapes of the adapted weights."""
    found: dict[str, tuple[int, ...]] = {}
    for key, up in state.factors.items():
        if key.endswith(UP):
            module = key.removesuffix(UP)
            found[f"{module}.weight"] = (int(up.shape[0]), int(state.factors[module + DOWN].shape[1]))
    return found
