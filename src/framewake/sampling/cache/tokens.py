"""The tokens that a step cache looks at: all of them here, or shared out among devices that must decide alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Engine, Tensor

# Rules compare at most this many tokens, evenly spread: what they remember stays small beside a clip's tokens.
MOST_TOKENS = 4096


class HeldRun(NamedTuple):
    """What one rank holds: the tokens [start, stop) of a sample, or of all samples where they are not apart."""

    sample: int
    start: int
    stop: int


class HeldTokens:
    """Means over all tokens, and tokens put together again; ``held`` has a run for each rank, none for one alone."""

    def __init__(self, engine: Engine, held: Sequence[HeldRun] = ()) -> None:
        self.engine = engine
        self._held = tuple(held)
        self._are_apart = len({run.sample for run in held}) > 1

    def samples(self, image: Tensor) -> int:
        """How many samples there are on all ranks."""
        return 1 + max(run.sample for run in self._held) if self._are_apart else int(image.shape[0])

    def whole_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of all tokens, of which ``shape`` are those here."""
        if not self._held:
            return shape
        samples = 1 + max(run.sample for run in self._held) if self._are_apart else shape[0]
        return (samples, max(run.stop for run in self._held), *shape[2:])

    def spread(self, x: Tensor) -> Tensor:
        """Evenly spread tokens in float32, as a tensor of their own. Shapes: (B, n, D) -> (B, fewer, D)."""
        run = self._run(x.shape[1])
        step = stride(self.whole_shape(tuple(x.shape))[1])
        # The product makes a copy: a view would hold on to all tokens.
        return self.engine.cast(x[:, -run.start % step :: step], "float32") * 1.0

    def means(self, *xs: Tensor) -> list[tuple[float, ...]]:
        """For each of some spread tensors, the mean magnitude of each sample; the same numbers on all ranks.

        Precision: float32 on a device, the devices' put together in float64.
        """
        engine = self.engine
        found = [engine.mean(engine.where(x < 0, -x, x), (1, 2)) for x in xs]
        if not self._held:
            return [tuple(float(mean) for mean in engine.numpy(x)) for x in found]
        own = engine.stack(found, 0)
        shapes = [tuple(own.shape)] * len(self._held)
        everyone = [engine.numpy(x) for x in engine.exchange([own] * len(shapes), shapes)()]
        results = []
        for sample in range(1 + max(run.sample for run in self._held)):
            ranks = [rank for rank, run in enumerate(self._held) if run.sample == sample]
            counts = np.array([self._count(rank, is_spread=True) for rank in ranks], np.float64)
            results.append(np.einsum("r,rxb->xb", counts, np.stack([everyone[r] for r in ranks])) / counts.sum())
        return [tuple(float(mean) for mean in row) for row in np.concatenate(results, 1)]

    def gathered(self, x: Tensor, *, is_spread: bool) -> Tensor:
        """All ranks' tokens on rank 0, the own ones on the others. Shapes: (B, n, D) -> (all samples, N, D)."""
        if not self._held:
            return x
        engine, rank = self.engine, self.engine.rank()
        nothing = engine.zeros((0,), engine.dtype(x))
        counts = [self._count(each, is_spread=is_spread) for each in range(len(self._held))]
        shapes = [(x.shape[0], count, x.shape[2]) if rank == 0 else (0,) for count in counts]
        arrived = engine.exchange([x if i == 0 else nothing for i in range(len(counts))], shapes)()
        if rank > 0:
            return x
        samples = sorted({run.sample for run in self._held})
        rows = [[arrived[r] for r, run in enumerate(self._held) if run.sample == sample] for sample in samples]
        return engine.concat([engine.concat(row, 1) for row in rows], 0)

    def part(self, x: Tensor, *, is_spread: bool) -> Tensor:
        """The tokens of this rank, out of all. Shapes: (all samples, N, D) -> (B, n, D)."""
        if not self._held:
            return x
        rank = self.engine.rank()
        run = self._held[rank]
        before = [r for r, other in enumerate(self._held) if other.sample == run.sample and other.start < run.start]
        first = sum(self._count(r, is_spread=is_spread) for r in before)
        x = x[run.sample : run.sample + 1] if self._are_apart else x
        return x[:, first : first + self._count(rank, is_spread=is_spread)]

    def _run(self, count: int) -> HeldRun:
        return self._held[self.engine.rank()] if self._held else HeldRun(0, 0, count)

    def _count(self, rank: int, *, is_spread: bool) -> int:
        """How many tokens a rank holds, or how many of its are among the spread ones."""
        run, step = self._held[rank], stride(max(run.stop for run in self._held)) if is_spread else 1
        return -(-run.stop // step) - -(-run.start // step)


def spread_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that ``HeldTokens.spread`` gives of all tokens."""
    batch, tokens, width = shape
    return batch, -(-tokens // stride(tokens)), width


def stride(tokens: int) -> int:
    """Of so many tokens, every which is looked at."""
    return -(-tokens // MOST_TOKENS)
