"""Tensor files seen in another way: without a prefix, with their scales applied, or several as one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from framewake.engine.contract import Dtype
from framewake.errors import CheckpointError
from framewake.weights.narrow import CHUNK, narrowed
from framewake.weights.storage import Tensors, widen

# Beside an 8-bit weight: its scale, under the older and the newer name. Scales of inputs are for 8-bit products,
# which nothing here makes.
SCALES = (".scale_weight", ".weight_scale")
IGNORED = (".scale_input", ".input_scale", ".comfy_quant")
MARKERS = ("scaled_fp8",)


class Stripped:
    """The tensors below a prefix, without it; all others are left out.

    Loaders of single files give their parts a prefix, and the autoencoder's file may hold other parts as well
    (specification, section 7.2).
    """

    def __init__(self, file: Tensors, prefix: str) -> None:
        self.path = file.path
        self._file, self._prefix = file, prefix

    def names(self) -> tuple[str, ...]:
        """Every tensor name."""
        start = len(self._prefix)
        return tuple(name[start:] for name in self._file.names() if name.startswith(self._prefix))

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._file.shape(self._prefix + name)

    def dtype(self, name: str) -> str:
        """A tensor's type as its file names it."""
        return self._file.dtype(self._prefix + name)

    def raw(self, name: str) -> np.ndarray:
        """The stored bits."""
        return self._file.raw(self._prefix + name)

    def read(self, name: str) -> np.ndarray:
        """The values."""
        return self._file.read(self._prefix + name)

    def fill(self, name: str, out: np.ndarray, dtype: Dtype) -> None:
        """The values into an array of a computing type."""
        self._file.fill(self._prefix + name, out, dtype)

    def start(self, name: str) -> int:
        """The byte of its file at which a tensor's bits begin."""
        return self._file.start(self._prefix + name)


class Scaled:
    """Weights with their scales applied when they are read; the scales themselves are no tensors here.

    Raises: CheckpointError when a scale has no weight or another shape than one number or one for each row.
    """

    def __init__(self, file: Tensors) -> None:
        self.path = file.path
        self._file = file
        self._scales: dict[str, str] = {}
        names = file.names()
        for name in names:
            ending = next((ending for ending in SCALES if name.endswith(ending)), None)
            if ending is not None:
                self._scales[name.removesuffix(ending) + ".weight"] = name
        self._names = tuple(name for name in names if not is_about_scales(name))
        held = set(self._names)
        for weight, scale in self._scales.items():
            if weight not in held:
                raise CheckpointError(f"{self.path} has {scale!r} but no {weight!r}.")
            rows, found = file.shape(weight)[:1], file.shape(scale)
            if found not in ((), (1,), rows, (*rows, 1)):
                raise CheckpointError(f"{self.path}: {scale!r} is {list(found)}; expected one number or {list(rows)}.")

    def names(self) -> tuple[str, ...]:
        """Every tensor name."""
        return self._names

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._file.shape(name)

    def dtype(self, name: str) -> str:
        """A tensor's type; what has a scale is float32 once it is applied."""
        return "F32" if name in self._scales else self._file.dtype(name)

    def stored(self, name: str) -> str:
        """A tensor's type as its file names it, with a scale or without."""
        return self._file.dtype(name)

    def raw(self, name: str) -> np.ndarray:
        """The bits of the type that ``dtype`` names."""
        return self.read(name) if name in self._scales else self._file.raw(name)

    def read(self, name: str) -> np.ndarray:
        """The values, scaled in float32."""
        values = self._file.read(name)
        if name not in self._scales:
            return values
        scale = self._file.read(self._scales[name]).astype(np.float32)
        return values * scale.reshape(-1, *(1,) * (values.ndim - 1)) if scale.size > 1 else values * scale.reshape(())

    def fill(self, name: str, out: np.ndarray, dtype: Dtype) -> None:
        """The values into an array of a computing type, scaled in float32, some rows at a time."""
        if name not in self._scales:
            self._file.fill(name, out, dtype)
            return
        raw, stored = self._file.raw(name), self._file.dtype(name)
        scale = self._file.read(self._scales[name]).astype(np.float32).reshape(-1)
        flat, rows = raw.reshape(len(raw), -1), out.reshape(len(raw), -1)
        step = max(1, CHUNK // max(flat.shape[1], 1))
        for first in range(0, len(flat), step):
            factor = scale[first : first + step, None] if scale.size > 1 else scale
            values = widen(flat[first : first + step], stored) * factor
            rows[first : first + step] = narrowed(values, dtype)

    def start(self, name: str) -> int:
        """The byte of its file at which a tensor's bits begin."""
        return self._file.start(name)


def is_about_scales(name: str) -> bool:
    """Whether a tensor only says how others are scaled."""
    return name.endswith(SCALES + IGNORED) or name in MARKERS


def stored_kind(file: Tensors, name: str) -> str:
    """A tensor's type as it lies on the disk, where ``dtype`` is the type of its values."""
    return file.stored(name) if isinstance(file, Scaled | Joined) else file.dtype(name)


class Joined:
    """Several files used like one.

    Raises: CheckpointError when two hold the same name.
    """

    def __init__(self, files: Sequence[Tensors]) -> None:
        self.path = files[0].path
        self._places: dict[str, Tensors] = {}
        for file in files:
            for name in file.names():
                if name in self._places:
                    raise CheckpointError(f"{self._places[name].path} and {file.path} both hold {name!r}.")
                self._places[name] = file

    def names(self) -> tuple[str, ...]:
        """Every tensor name."""
        return tuple(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._places[name].shape(name)

    def dtype(self, name: str) -> str:
        """A tensor's type as its file names it."""
        return self._places[name].dtype(name)

    def stored(self, name: str) -> str:
        """A tensor's type as its file names it, with a scale or without."""
        return stored_kind(self._places[name], name)

    def raw(self, name: str) -> np.ndarray:
        """The stored bits."""
        return self._places[name].raw(name)

    def read(self, name: str) -> np.ndarray:
        """The values."""
        return self._places[name].read(name)

    def fill(self, name: str, out: np.ndarray, dtype: Dtype) -> None:
        """The values into an array of a computing type."""
        self._places[name].fill(name, out, dtype)

    def start(self, name: str) -> int:
        """The byte of its file at which a tensor's bits begin."""
        return self._places[name].start(name)
