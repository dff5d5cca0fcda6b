"""What a LoRA is and does, for a person: format, ranks, alpha, what it matched, how much it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.lora.file import Lora, Update


class Report(NamedTuple):
    """Facts of a LoRA opened against a transformer.

    ``largest`` and ``largest_weight``: the largest relative change of a weight at weight 1 (Frobenius norm of the
    change over that of the weight), None when no weights were at hand.
    """

    path: str
    format: str
    ranks: tuple[int, ...]
    alphas: tuple[float, ...]
    has_alpha: bool
    is_scaled: bool
    modules: int
    matched: int
    touched: int
    unmatched: tuple[str, ...]
    largest: float | None = None
    largest_weight: str | None = None

    def sentence(self, weight: float | None = None) -> str:
        """The report as one line; ``weight`` is the one that it is applied with."""
        alpha = f"alpha {_span(self.alphas)}" if self.has_alpha else "no alpha (the rank is taken)"
        text = f"LoRA {self.path}" + ("" if weight is None else f" at {weight:g}")
        text += f": {self.format} format, rank {_span(self.ranks)}, {alpha}; {self.matched} of {self.modules} modules "
        text += f"matched, {self.touched} weights of the transformer touched"
        if self.unmatched:
            text += f", {len(self.unmatched)} keys left out"
        if self.largest is not None:
            change = self.largest * (1.0 if weight is None else abs(weight))
            told = f"largest change {100 * change:.3g} % ({self.largest_weight})" if change else "it changes nothing"
            text += f"; {told}"
        return text + "."

    def record(self) -> dict[str, Any]:
        """The report as plain values for JSON."""
        return self._asdict() | {name: list(getattr(self, name)) for name in ("ranks", "alphas", "unmatched")}


def report(lora: Lora, norm_of: Callable[[str], float] | None = None) -> Report:
    """The facts of a LoRA; ``norm_of`` gives the Frobenius norm of a weight of the transformer.

    Raises: CheckpointError when a factor holds NaN or infinity.
    """
    weights = lora.by_weight()
    largest: float | None = None
    largest_weight = None
    for name, updates in weights.items() if norm_of is not None else ():
        change = float(np.sqrt(sum(_square(lora, update) for update in updates))) / max(norm_of(name), 1e-30)
        if largest is None or change > largest:
            largest, largest_weight = change, name
    given = [update.alpha for update in lora.updates if update.alpha is not None]
    return Report(
        path=str(lora.path),
        format=lora.format,
        ranks=_sorted(update.rank for update in lora.updates),
        alphas=_sorted(given),
        has_alpha=bool(given),
        is_scaled=any(update.factor() != 1.0 for update in lora.updates),
        modules=lora.modules,
        matched=len(lora.updates),
        touched=len(weights),
        unmatched=lora.unmatched,
        largest=largest,
        largest_weight=largest_weight,
    )


def _square(lora: Lora, update: Update) -> float:
    """The squared Frobenius norm of an update, from two rank by rank matrices instead of the whole product."""
    up, down = lora.factors(update)
    with np.errstate(invalid="ignore", over="ignore"):  # told below, by name
        square = float(np.sum((up.T @ up) * (down @ down.T), dtype=np.float64)) * lora.factor(update) ** 2
    if not np.isfinite(square):
        raise CheckpointError(f"{lora.path}: the factors of {update.pair.module} hold NaN or infinity; it is damaged.")
    return max(square, 0.0)


def _sorted(values: Iterable[Any]) -> tuple[Any, ...]:
    return tuple(sorted(set(values)))


def _span(values: tuple[float, ...]) -> str:
    if len(values) == 1:
        return f"{values[0]:g}"
    return f"{values[0]:g} to {values[-1]:g}"
