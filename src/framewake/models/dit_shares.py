"""The transformer's share of one device among several: what it cuts from a call, and how it attends to everything.

Text tokens stand on every device: they are few, and cut they would have to be exchanged too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framewake.engine.contract import Engine, Tensor
from framewake.errors import InputError
from framewake.models.arrangement import Arrangement, Division
from framewake.models.dit_blocks import TokenCounts


class Share:
    """One device's part of a call; alone, all of it and nothing is exchanged."""

    def __init__(self, engine: Engine, division: Division) -> None:
        self.engine = engine
        self.division = division
        self.is_alone = division.arrangement.size == 1

    def sample(self, x: Any) -> Any:
        """Of something that has an entry for each sample, this device's. Shapes: (B, ...) -> (B, ...) or (1, ...)."""
        if x is None or not self.division.arrangement.is_halved:
            return x
        return x[self.division.sample : self.division.sample + 1]

    def counts(self, counts: TokenCounts) -> TokenCounts:
        """The token groups cut to this device's run; lengths are those of all keys."""
        start, stop = self.division.run
        image, first = [], 0
        for count in counts.image:
            image.append(max(min(stop, first + count) - max(start, first), 0))
            first += count
        return counts._replace(image=tuple(image))

    def rows(self, x: Tensor) -> Tensor:
        """This device's rows of a table with one for each image token. Shapes: (N, E) -> (n, E)."""
        start, stop = self.division.run
        return x if stop - start == x.shape[0] else x[start:stop]

    def attending(self, engine: Engine) -> Any:
        """An engine for blocks, from one that attends to the tokens of one device."""
        return engine if self.is_alone else Attending(engine, self.division)

    def gathered(self, x: Tensor) -> Tensor:
        """The tokens of all devices. Shapes: (B, n, D) -> (B, N, D), of both samples where they are apart."""
        if self.is_alone:
            return x
        division, arrangement = self.division, self.division.arrangement
        shapes = [(*x.shape[:1], stop - start, x.shape[2]) for start, stop in map(division.run_of, self._ranks)]
        pieces = self.engine.exchange([x] * arrangement.size, shapes)()
        count = arrangement.neighbours * arrangement.groups
        samples = [self.engine.concat(pieces[i : i + count], 1) for i in range(0, arrangement.size, count)]
        return samples[0] if len(samples) == 1 else self.engine.concat(samples, 0)

    @property
    def _ranks(self) -> range:
        return range(self.division.arrangement.size)


def share_of(engine: Engine, arrangement: Arrangement, tokens: int, heads: int) -> Share:
    """This device's share of a call with so many image tokens.

    Raises: InputError for more devices than there are tokens or heads to share, and another number than there is.
    """
    if arrangement.size not in (1, engine.size()):
        raise InputError(f"{engine.size()} processes work together, which is no {arrangement}.")
    rank = engine.rank() if arrangement.size > 1 else 0
    return Share(engine, Division(arrangement, rank, tokens, heads).check())


class Attending:
    """An engine whose ``attention`` covers the image tokens of all devices; the rest is the engine's own.

    Each device gets some heads of all queries of its group, and of all keys, does plain attention in one device's
    order of keys, and hands back what belongs to the others' tokens: two exchanges. Keys go from each device to each
    of the groups at once: through the group's own neighbours would be as many bytes and one exchange more.
    """

    def __init__(self, engine: Engine, division: Division) -> None:
        self._engine = engine
        self._division = division

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, lengths: Any = None) -> Tensor:
        """Shapes: q, k, v (B, n + T, A, E), this device's image tokens and all text -> (B, n + T, A, E)."""
        division, engine = self._division, self._engine
        own = division.run[1] - division.run[0]
        text = q.shape[1] - own
        parts = self._spread(q[:, :own], k[:, :own], v[:, :own])
        low, high = division.heads_of(division.rank)
        joined = [engine.concat([*part, x[:, own:, low:high]], 1) for part, x in zip(parts, (q, k, v), strict=True)]
        out = engine.attention(joined[0], joined[1], joined[2], scale=scale, lengths=lengths)
        return out if division.arrangement.neighbours == 1 else self._returned(out, text)

    def _spread(self, q: Tensor, k: Tensor, v: Tensor) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """This device's heads of the group's queries and of all keys and values, in the order of the tokens."""
        division, engine = self._division, self._engine
        batch, _, _, width = q.shape
        mine = division.heads_of(division.rank)
        sent, shapes = {}, {}
        for rank in division.together:
            low, high = division.heads_of(rank)
            few = [x[:, :, low:high] for x in ((q, k, v) if rank in division.near else (k, v))]
            sent[rank] = engine.stack(few, 0)
            start, stop = division.run_of(rank)
            shapes[rank] = (len(few), batch, stop - start, mine[1] - mine[0], width)
        arrived = self._exchanged(sent, shapes)
        everyone = [arrived[rank] for rank in division.together]
        return [arrived[rank][0] for rank in division.near], [x[-2] for x in everyone], [x[-1] for x in everyone]

    def _returned(self, out: Tensor, text: int) -> Tensor:
        """All heads of this device's tokens, from some heads of the group's. Shapes: (B, n_group + T, a, E)."""
        division, engine = self._division, self._engine
        batch, tokens, _, width = out.shape
        first, (start, stop) = division.run_of(division.near[0])[0], division.run
        sent, shapes = {}, {}
        for rank in division.near:
            begin, end = division.run_of(rank)
            sent[rank] = engine.concat([out[:, begin - first : end - first], out[:, tokens - text :]], 1)
            low, high = division.heads_of(rank)
            shapes[rank] = (batch, stop - start + text, high - low, width)
        arrived = self._exchanged(sent, shapes)
        return engine.concat([arrived[rank] for rank in division.near], 2)

    def _exchanged(self, sent: dict[int, Tensor], shapes: Mapping[int, tuple[int, ...]]) -> list[Tensor]:
        """What comes from every rank; with those that are not named, nothing is exchanged."""
        nothing = self._engine.zeros((0,), self._engine.dtype(sent[self._division.rank]))
        ranks = range(self._division.arrangement.size)
        pieces = [sent.get(rank, nothing) for rank in ranks]
        return self._engine.exchange(pieces, [shapes.get(rank, (0,)) for rank in ranks])()
