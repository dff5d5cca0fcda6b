"""Frozen layers with factors in them: merged as at inference going forward, two narrow products going back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from framewake.engine.contract import Dtype, Engine, Tensor, Weights
from framewake.models.source import WeightSource
from framewake.train.factors import DOWN, UP, Factors, Shapes, module_of
from framewake.weights.lora.view import Merger


class AdaptedWeight:
    """Stands among a block's weights where a tensor stood.

    ``merged`` is the weight that inference has; it contains up @ down, and ``up`` the scale.
    Shapes: merged (O, I), up float32 (O, R), down float32 (R, I).
    """

    def __init__(self, merged: Tensor, up: Tensor, down: Tensor) -> None:
        self.merged, self.up, self.down = merged, up, down

    @property
    def shape(self) -> tuple[int, ...]:
        """The weight's shape."""
        return tuple(self.merged.shape)

    def __getitem__(self, rows: slice) -> AdaptedWeight:
        """Some rows of it."""
        return AdaptedWeight(self.merged[rows], self.up[rows], self.down)


class AdaptedLayers:
    """An engine whose linear layers may have an ``AdaptedWeight`` weight; everything else is the wrapped engine's."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def linear(
        self, x: Tensor, weight: Tensor | AdaptedWeight, bias: Tensor | None = None, activation: str | None = None
    ) -> Tensor:
        """As in the contract. Precision: the factors take part in x's type, their gradients are float32."""
        engine: Any = self._engine
        if not isinstance(weight, AdaptedWeight):
            return engine.linear(x, weight, bias, activation)
        kind = engine.dtype(x)
        factors = engine.cast(weight.up, kind), engine.cast(weight.down, kind)
        out = engine.adapted_linear(x, weight.merged, factors, bias)
        if activation is None:
            return out
        return engine.silu(out) if activation == "silu" else engine.gelu(out, "tanh")

    def cast(self, x: Tensor | AdaptedWeight, dtype: Dtype) -> Tensor | AdaptedWeight:
        """As in the contract: of a layer, its merged weight."""
        if not isinstance(x, AdaptedWeight):
            return self._engine.cast(x, dtype)
        return AdaptedWeight(self._engine.cast(x.merged, dtype), x.up, x.down)

    def dtype(self, x: Tensor | AdaptedWeight) -> Dtype:
        """As in the contract: of a layer, that of its merged weight."""
        return self._engine.dtype(x.merged if isinstance(x, AdaptedWeight) else x)


class Dressing:
    """Base weights dressed with factors, place by place; a place is a prefix of names, such as "double_blocks.3"."""

    def __init__(self, engine: Engine, modules: Shapes, rank: int, alpha: float) -> None:
        self.engine = engine
        self.modules, self.rank, self.alpha = modules, rank, alpha

    def names(self, place: str) -> tuple[str, ...]:
        """The factors at a place."""
        found = [module_of(name) for name in self.modules if name.startswith(place + ".")]
        return tuple(module + ending for module in found for ending in (DOWN, UP))

    def merged(self, place: str, base: Weights, factors: Weights) -> Weights:
        """What inference has at a place, added as the view of finished LoRAs does; a constant.

        ``factors`` are those of all places, on the host or on the device.
        """
        modules = {name: self.modules[name] for name in (f"{place}.{inner}" for inner in base) if name in self.modules}
        if not modules:
            return base
        merger = Merger(self.engine, [Factors(modules, self.rank, self.alpha, factors)])
        return {inner: merger.merged(f"{place}.{inner}", x, (1.0,)) for inner, x in base.items()}

    def adapted(self, place: str, merged: Weights, leaves: Weights) -> Weights:
        """The same for the gradients of a place's factors, which are the leaves."""
        found = dict(merged)
        for name, x in merged.items():
            full = f"{place}.{name}"
            if full in self.modules:
                up, down = leaves[module_of(full) + UP], leaves[module_of(full) + DOWN]
                found[name] = AdaptedWeight(x, up * (self.alpha / self.rank), down)
        return found


class Dressed:
    """A store whose parts are merged and, where there are leaves, adapted. For what is small and read at once."""

    def __init__(
        self, dressing: Dressing, store: WeightSource, factors: Weights, *, leaves: Weights | None = None
    ) -> None:
        self._dressing, self._store = dressing, store
        self._factors, self._leaves = factors, leaves

    def part(self, prefix: str) -> Weights:
        """The tensors below a prefix."""
        return self._worn(prefix, self._store.part(prefix))

    def blocks(self, name: str, count: int | None = None) -> Iterator[Weights]:
        """The blocks below a name."""
        for number, block in enumerate(self._store.blocks(name, count)):
            yield self._worn(f"{name}.{number}", block)

    def _worn(self, place: str, base: Weights) -> Weights:
        found = self._dressing.merged(place, base, self._factors)
        return found if self._leaves is None else self._dressing.adapted(place, found, self._leaves)
