"""Tensor files seen differently: under other names, or several as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from framewake.engine.contract import Dtype
from framewake.errors import CheckpointError
from framewake.weights.reading.storage import Tensors


class View:
    """Tensors of one or more files under names of its own; what has no place here is left out.

    ``places``: a name -> the file that holds it, and its name there.
    """

    def __init__(self, path: Path, places: Mapping[str, tuple[Tensors, str]]) -> None:
        self.path = path
        self._places = places

    def names(self) -> tuple[str, ...]:
        """Every tensor name."""
        return tuple(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        file, theirs = self._places[name]
        return file.shape(theirs)

    def dtype(self, name: str) -> str:
        """A tensor's type as its file names it."""
        file, theirs = self._places[name]
        return file.dtype(theirs)

    def stored(self, name: str) -> str:
        """A tensor's type as it lies on the disk."""
        file, theirs = self._places[name]
        return file.stored(theirs)

    def raw(self, name: str) -> np.ndarray:
        """The stored bits."""
        file, theirs = self._places[name]
        return file.raw(theirs)

    def read(self, name: str) -> np.ndarray:
        """The values."""
        file, theirs = self._places[name]
        return file.read(theirs)

    def fill(self, name: str, out: np.ndarray, dtype: Dtype, *, first: int = 0) -> None:
        """The values from a number on into an array of a computing type."""
        file, theirs = self._places[name]
        file.fill(theirs, out, dtype, first=first)

    def start(self, name: str) -> int:
        """The byte of its file at which a tensor's bits begin."""
        file, theirs = self._places[name]
        return file.start(theirs)


def renamed(file: Tensors, names: Mapping[str, str]) -> View:
    """A file's tensors under other names. ``names``: the new one -> the file's."""
    return View(file.path, {name: (file, theirs) for name, theirs in names.items()})


def joined(files: Sequence[Tensors]) -> Tensors:
    """Several files used like one.

    Raises: CheckpointError when two hold the same name.
    """
    if len(files) == 1:
        return files[0]
    places: dict[str, tuple[Tensors, str]] = {}
    for file in files:
        for name in file.names():
            if name in places:
                raise CheckpointError(f"{places[name][0].path} and {file.path} both hold {name!r}.")
            places[name] = (file, name)
    return View(files[0].path, places)
