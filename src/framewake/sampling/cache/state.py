"""What a step cache remembers from step to step: a value that is replaced and never changed, and that can be saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Dtype, Engine, Tensor
from framewake.errors import InputError

PREFIX = "cache_"


class State(NamedTuple):
    """After ``len(computed) + len(skipped)`` steps.

    ``tensors`` and ``numbers`` belong to the rule and to what replaces a step; numbers are one a sample or one a
    computed step.
    """

    computed: tuple[int, ...] = ()
    skipped: tuple[int, ...] = ()
    tensors: Mapping[str, Tensor] = {}
    numbers: Mapping[str, tuple[float, ...]] = {}

    def save(self, engine: Engine) -> dict[str, np.ndarray]:
        """The state as arrays that give exactly the same state back."""
        steps = {"computed": self.computed, "skipped": self.skipped}
        arrays = {f"{PREFIX}{name}": np.array(values, np.int64) for name, values in steps.items()}
        arrays |= {f"{PREFIX}number_{name}": np.array(values, np.float64) for name, values in self.numbers.items()}
        for name, tensor in self.tensors.items():
            values = engine.numpy(tensor)
            if engine.dtype(tensor) == "bfloat16":  # numpy has none: its bits
                values = (np.ascontiguousarray(values).view(np.uint32) >> 16).astype(np.uint16)
            arrays[f"{PREFIX}tensor_{name}"] = values
        return arrays


def load_state(engine: Engine, arrays: Mapping[str, np.ndarray]) -> State:
    """What ``State.save`` gave.

    Raises: InputError for arrays that are not of its making.
    """
    try:
        computed, skipped = (_whole(arrays[f"{PREFIX}{name}"]) for name in ("computed", "skipped"))
        tensors, numbers = {}, {}
        for name, values in arrays.items():
            kind, _, rest = name.removeprefix(PREFIX).partition("_")
            if kind == "tensor":
                dtype: Dtype | None = "bfloat16" if values.dtype == np.uint16 else None
                tensors[rest] = engine.asarray(values, dtype)
            elif kind == "number":
                numbers[rest] = tuple(float(value) for value in values.reshape(-1))
    except (KeyError, ValueError, TypeError, ArithmeticError) as error:
        raise InputError(
            f"the saved latents hold a broken step cache ({error}): delete the file, start anew."
        ) from error
    return State(computed, skipped, tensors, numbers)


def _whole(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in values.reshape(-1))
