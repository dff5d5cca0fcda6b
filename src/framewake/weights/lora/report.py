"""What a LoRA is and does, for a person: format, ranks, alpha, what it matched, how much it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from framewake.weights.lora.file import Lora
from framewake.weights.lora.refusal import summary
from framewake.weights.lora.sizes import gain_of, square
from framewake.weights.lora.updates import WeightUpdate

LOUD = 3.0  # times the weight itself; strong LoRAs at weight 2 stay below 1


class Report(NamedTuple):
    """Facts of a LoRA opened against a transformer.

    ``largest`` and ``largest_weight``: the largest relative change of a weight at weight 1 (Frobenius norm of the
    change over that of the weight), None when no weights were at hand or where all changes depend on them (DoRA).
    ``metadata`` is what the file says of itself. ``gain``: the largest of ``sizes.gain_of``, of which a layer itself
    has about 1.
    """

    path: str
    format: str
    methods: tuple[str, ...]
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    has_alpha: bool
    is_scaled: bool
    modules: int
    matched: int
    touched: int
    unmatched: tuple[str, ...]
    metadata: Mapping[str, str]
    gain: float
    largest: float | None = None
    largest_weight: str | None = None

    def sentence(self, weight: float | None = None) -> str:
        """The report as one line; ``weight`` is the one that it is applied with."""
        without = "no alpha (the rank is taken)" if self.ranks else "no alpha"
        alpha = f"alpha {_span(self.alphas)}" if self.has_alpha else without
        if self.methods != ("LoRA",):
            alpha += f", {' and '.join(self.methods)}"
        rank = f"rank {_span(self.ranks)}" if self.ranks else "no rank"
        text = f"LoRA {self.path}" + ("" if weight is None else f" at {weight:g}")
        text += f": {self.format} format, {rank}, {alpha}; {self.matched} of {self.modules} modules "
        text += f"matched, {self.touched} weights of the transformer touched"
        if self.unmatched:
            text += f", {summary(self.unmatched)}"
        if self.largest is not None:
            change = self.largest * (1.0 if weight is None else abs(weight))
            told = f"largest change {100 * change:.3g} % ({self.largest_weight})" if change else "it changes nothing"
            text += f"; {told}"
        change = (self.gain if self.largest is None else self.largest) * (1.0 if weight is None else abs(weight))
        if change > LOUD:
            text += f". A change of {change:.3g} times the weight itself is far more than LoRAs are made for: see "
            text += "whether the weight and alpha are meant"
        return text + "."

    def record(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return self._asdict() | {
            name: list(getattr(self, name)) for name in ("methods", "ranks", "alphas", "unmatched")
        }


def report(lora: Lora, norm_of: Callable[[str], float] | None = None) -> Report:
    """The facts of a LoRA; ``norm_of`` gives the Frobenius norm of a weight of the transformer.

    Raises: CheckpointError when a factor holds NaN or infinity.
    """
    weights = lora.by_weight()
    squares = {id(update): square(lora, update) for update in lora.updates}
    largest, largest_weight = (None, None) if norm_of is None else _largest(weights, squares, norm_of)
    given = [update.alpha for update in lora.updates if update.alpha is not None]
    return Report(
        path=str(lora.path),
        format=lora.format,
        methods=tuple(lora.methods()),
        ranks=_sorted(update.rank for update in lora.updates if update.rank),
        alphas=_sorted(given),
        has_alpha=bool(given),
        is_scaled=any(update.factor() != 1.0 for update in lora.updates),
        modules=lora.modules,
        matched=len({update.module.name for update in lora.updates}),
        touched=len(weights),
        unmatched=lora.unmatched,
        metadata=dict(lora.tensors.metadata),
        gain=max((gain_of(update, squares[id(update)]) for update in lora.updates), default=0.0),
        largest=largest,
        largest_weight=largest_weight,
    )


def _largest(
    weights: Mapping[str, Sequence[WeightUpdate]], squares: Mapping[int, float], norm_of: Callable[[str], float]
) -> tuple[float | None, str | None]:
    """The largest change of a weight, as a share of the weight itself, and which one that is."""
    found: list[tuple[float, str]] = []
    for name, updates in weights.items():
        added = [update for update in updates if update.method != "value" and "magnitude" not in update.keys]
        if not added or not name.endswith(".weight") or (norm := norm_of(name)) == 0:
            continue  # a bias may well be nothing, which every change exceeds
        found.append((float(np.sqrt(sum(squares[id(update)] for update in added))) / norm, name))
    return max(found, key=lambda each: each[0], default=(None, None))


def _sorted(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(set(values)))


def _span(values: tuple[float, ...]) -> str:
    if len(values) == 1:
        return f"{values[0]:g}"
    return f"{values[0]:g} to {values[-1]:g}"
