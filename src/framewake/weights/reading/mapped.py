"""A component's file seen under our names, and the check that it belongs to the model."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from framewake import pulse
from framewake.engine.contract import Dtype
from framewake.errors import CheckpointError
from framewake.weights.reading.names import NameRule
from framewake.weights.reading.narrow import BITS
from framewake.weights.reading.storage import Tensors

BLOCKS_LISTED = 8
NAMES_LISTED = 4
Shapes = Mapping[str, tuple[int, ...]]


class Empty(Protocol):
    """Where values are read into."""

    def __call__(self, shape: tuple[int, ...], dtype: np.dtype, *, start: int) -> np.ndarray:
        """Memory for a tensor whose bits begin at a byte of a file."""


class Stretch(NamedTuple):
    """Some of a tensor's numbers: so many, from a number on."""

    name: str
    first: int
    numbers: int


class MappedTensors:
    """The tensors of a file under our names; data is read only when a tensor is asked for.

    Raises: CheckpointError when the table of names gives one of ours twice.
    """

    def __init__(self, file: Tensors, rules: Iterable[NameRule]) -> None:
        self.file = file
        self._rules: dict[str, NameRule] = {}
        for rule in rules:
            if rule.ours in self._rules:
                raise CheckpointError(f"{file.path} holds {rule.ours!r} twice, under {rule.theirs} and another name.")
            self._rules[rule.ours] = rule
        self._held = set(file.names())

    def names(self) -> tuple[str, ...]:
        """Every name of ours that the file has in full."""
        return tuple(name for name, rule in self._rules.items() if self._held.issuperset(rule.theirs))

    def rules(self) -> list[NameRule]:
        """The table of names."""
        return list(self._rules.values())

    def shape(self, name: str) -> tuple[int, ...]:
        """Our tensor's shape, from headers only."""
        return self._rules[name].shape(self.file.shape)

    def read(self, name: str) -> np.ndarray:
        """Our tensor's values; bfloat16 and float8 widened to float32."""
        return self._rules[name].join(self.file.read)

    def values(self, name: str, dtype: Dtype, *, empty: Empty | None = None) -> np.ndarray:
        """Our tensor's values in a type, as ``engine.asarray`` takes them without further work.

        ``empty`` gives the memory for them; without it that is new.
        Shapes: the tensor's own; bfloat16 as bits in uint16.
        """
        pulse.beat()
        rule = self._rules[name]
        shape, kind = self.shape(name), BITS[dtype]
        out = np.empty(shape, kind) if empty is None else empty(shape, kind, start=self.file.start(rule.theirs[0]))
        for their, rows in rule.places(out):
            self.file.fill(their, rows, dtype)
        return rule.swap(out)

    def joined(self, stretches: Sequence[Stretch], dtype: Dtype, *, empty: Empty | None = None) -> np.ndarray:
        """Stretches of our tensors one behind the other, as ``values``; nothing else is read where a file allows it.

        Shapes: (numbers of all of them,).
        """
        pulse.beat()
        numbers, kind = sum(each.numbers for each in stretches), BITS[dtype]
        if empty is None or not stretches:
            out = np.empty(numbers, kind)
        else:
            start = self.file.start(self._rules[stretches[0].name].theirs[0])
            out = empty((numbers,), kind, start=start + stretches[0].first * kind.itemsize)
        for each, behind in zip(stretches, itertools.accumulate(each.numbers for each in stretches), strict=True):
            self._fill(each, out[behind - each.numbers : behind], dtype)
        return out

    def _fill(self, wanted: Stretch, out: np.ndarray, dtype: Dtype) -> None:
        rule, at = self._rules[wanted.name], -wanted.first
        if rule.is_swapped:
            out[...] = self.values(wanted.name, dtype).reshape(-1)[wanted.first : wanted.first + wanted.numbers]
            return
        for their in rule.theirs:
            size = math.prod(self.file.shape(their))
            low, high = max(at, 0), min(at + size, wanted.numbers)
            if low < high:
                self.file.fill(their, out[low:high], dtype, first=low - at)
            at += size

    def check(self, expected: Shapes, unused: Iterable[str] = ()) -> None:
        """Compare the file with what the model needs, before any data is read.

        ``unused`` are patterns of names that belong to the model but that nothing here computes with.
        Raises: CheckpointError, one for all missing, unexpected and mis-shaped names, grouped by block.
        """
        faults = []
        for name, shape in expected.items():
            rule = self._rules.get(name)
            if rule is None or not self._held.issuperset(rule.theirs):
                lacking = [their for their in rule.theirs if their not in self._held] if rule else []
                faults.append((name, f"missing {_tail(name)}" + (f" ({', '.join(lacking)})" if lacking else "")))
                continue
            try:
                found = self.shape(name)
            except CheckpointError as error:
                faults.append((name, str(error)))
                continue
            if found != tuple(shape):
                faults.append((name, f"{_tail(name)} is {list(found)} instead of {list(shape)}"))
        patterns = [re.compile(pattern) for pattern in unused]
        wanted = {their for name in expected if name in self._rules for their in self._rules[name].theirs}
        ours = {their: rule.ours for rule in self._rules.values() for their in rule.theirs}
        for their in sorted(self._held - wanted):
            name = ours.get(their, their)
            if not any(pattern.fullmatch(name) for pattern in patterns):
                faults.append((name, f"unexpected {_tail(their)}"))
        if faults:
            raise CheckpointError(_report(self.file.path, faults))


def _block(name: str) -> str:
    """The part of a name up to its last number, or up to its first dot."""
    match = re.match(r"(.*\.\d+)\.", name)
    return match.group(1) if match else name.split(".", maxsplit=1)[0]


def _tail(name: str) -> str:
    return name.removeprefix(_block(name) + ".")


def _report(path: object, faults: list[tuple[str, str]]) -> str:
    blocks: dict[str, list[str]] = {}
    for name, fault in faults:
        blocks.setdefault(_block(name), []).append(fault)
    lines = [f"{path} does not fit the model: {len(faults)} differences in {len(blocks)} blocks."]
    for block, found in itertools.islice(blocks.items(), BLOCKS_LISTED):
        more = f", and {len(found) - NAMES_LISTED} more" if len(found) > NAMES_LISTED else ""
        lines.append(f"  {block}: {'; '.join(found[:NAMES_LISTED])}{more}")
    if len(blocks) > BLOCKS_LISTED:
        lines.append(f"  and {len(blocks) - BLOCKS_LISTED} more blocks")
    lines.append("Check that the file belongs to this model and was copied in full.")
    return "\n".join(lines)
