"""Weights of a model without blocks that stay on disk: every large tensor is read whenever it is asked for."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from framewake.engine.contract import Dtype, Engine, OnDemand, Tensor
from framewake.errors import CheckpointError
from framewake.weights.reading.mapped import Stretch
from framewake.weights.stores.shared import Divisible
from framewake.weights.stores.store import Resident

Shapes = Mapping[str, tuple[int, ...]]

SMALL = 1 << 20  # numbers of a tensor that stays: together they are a few hundredths of an autoencoder
ROWS = 1 << 25  # numbers at a time, of a tensor that can be used some rows after others
ROUND = 64  # rows: libraries of convolutions work on so many output channels at once


def is_on_demand(shape: Sequence[int]) -> bool:
    """Whether a tensor is read anew each time."""
    return math.prod(shape) > SMALL


class ByTensor(Resident):
    """The same interface over a file: what it holds is small, the rest comes when it is asked for.

    The values are those of ``Resident``. What uses some rows at a time may differ from it in the last place.
    Raises: CheckpointError when the file cannot be read, at any time, and when the weights were closed.
    """

    def __init__(self, engine: Engine, tensors: Divisible, dtype: Dtype, *, shapes: Shapes) -> None:
        self._read = _Read(engine, tensors, dtype, shapes)
        super().__init__(self._read)

    def close(self) -> None:
        """Let go of the file; using the weights afterwards is an error."""
        self._read.close()


class _Read(OnDemand):
    """One dict over a file."""

    def __init__(self, engine: Engine, tensors: Divisible, dtype: Dtype, shapes: Shapes) -> None:
        self._engine, self._tensors, self._dtype, self._is_closed = engine, tensors, dtype, False
        self._shapes = {name: tuple(shape) for name, shape in shapes.items() if is_on_demand(shape)}
        super().__init__({name: self._made(name) for name in shapes if name not in self._shapes})

    def __missing__(self, name: str) -> Tensor:
        if self._is_closed:
            raise CheckpointError(f"{name} is asked for, but these weights were closed.")
        if name not in self._shapes:
            raise KeyError(name)
        return self._made(name)

    def rows(self, name: str) -> Iterator[Tensor]:
        """A tensor some rows at a time."""
        if name in self:
            yield self[name]
            return
        count, *rest = self._shapes[name]
        row = math.prod(rest)
        each = max(1, ROWS // row // ROUND * ROUND or ROWS // row)
        if each >= count:
            yield self[name]
            return
        for first, last in itertools.pairwise([*range(0, count, each), count]):
            yield self._some(name, first, last)

    def close(self) -> None:
        self._is_closed = True
        self.clear()

    def _made(self, name: str) -> Tensor:
        return self._tensor(name, lambda: self._tensors.values(name, self._dtype))

    def _some(self, name: str, first: int, last: int) -> Tensor:
        """Rows of a tensor."""
        rest = self._shapes[name][1:]
        stretch = Stretch(name, first * math.prod(rest), (last - first) * math.prod(rest))
        return self._tensor(name, lambda: self._tensors.joined([stretch], self._dtype).reshape(-1, *rest))

    def _tensor(self, name: str, read: Callable[[], np.ndarray]) -> Tensor:
        try:
            values = read()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{name} cannot be read: {error}.") from error
        return self._engine.asarray(values, self._dtype)
