"""The gradient of every factor with one block's activations at a time.

Forward, the walk keeps what each block began with. Backward it takes the blocks in reverse, computes one again and
multiplies: the cotangents of what a block gave become the gradients of its factors and the cotangents of its inputs.
Frozen blocks may so be streamed both ways, and what is kept may lie in the memory of the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.dit import Begun, DiT
from framewake.models.manner import PLAIN, Manner
from framewake.models.source import Key, Walkable
from framewake.nn.rope import with_plain_tokens
from framewake.train.adapted import Dressed, Dressing
from framewake.train.batch import Batch
from framewake.train.loss import FlowLoss

Gradients = dict[str, np.ndarray]
LAST = "final_layer"


class _Pass(NamedTuple):
    """One batch on its way: where it began, what the transformer was told, and what it computes with."""

    begun: Begun
    told: dict[str, Any]
    functions: tuple[Callable, Callable]
    rope: tuple[Tensor, Tensor]  # of all tokens
    factors: Weights


class Walk:
    """(factors, store, batch) -> the loss and its gradient for every factor.

    ``manner``: how blocks work; ``keeps_on_host``: what they began with leaves the device. Nothing in front of the
    blocks but what makes the text's tokens has factors, so that only image and text tokens have cotangents.
    """

    def __init__(
        self, model: DiT, loss: FlowLoss, dressing: Dressing, *, manner: Manner = PLAIN, keeps_on_host: bool = False
    ) -> None:
        self.engine: Engine = model.engine
        self.model, self.loss, self.dressing = model, loss, dressing
        self._manner, self._keeps_on_host = manner, keeps_on_host
        config = model.config
        keys = [("double_blocks", n) for n in range(config.double_blocks)]
        self.keys: list[Key] = keys + [("single_blocks", n) for n in range(config.single_blocks)]
        self.first = self._first()

    def _first(self) -> int:
        """The first block that the way back has to reach."""
        if self._text_names():
            return 0
        return next((place for place, key in enumerate(self.keys) if self.dressing.names(_place(key))), len(self.keys))

    def _text_names(self) -> tuple[str, ...]:
        """The factors of what makes the text's tokens."""
        return tuple(name for place in self.model.text_makers() for name in self.dressing.names(place))

    def __call__(self, factors: Weights, store: Walkable, batch: Batch) -> tuple[float, Gradients]:
        """Gradients are on the host. Precision: of the factors, float32; between them the store's type."""
        view, going = self._begin(factors, store, batch)
        # The last block turns around in its place, and the first stays for the next batch.
        blocks = store.walk([*self.keys, *reversed(self.keys[self.first :])])
        kept, x = self._forward(going, blocks, self.first)
        loss, gradients, cotangent = self._tail(going, view.part(LAST), x, batch)
        del x
        cotangents = self._backward(going, blocks, kept, cotangent, gradients)
        self._text(going, store, cotangents, gradients)
        return loss, gradients

    def value(self, factors: Weights, store: Walkable, batch: Batch) -> float:
        """The loss alone: the same operations forward, and nothing is kept."""
        view, going = self._begin(factors, store, batch)
        _, x = self._forward(going, store.walk(self.keys), len(self.keys))
        count = sum(going.begun.around.counts.image)
        velocity = self.model.tail(view.part(LAST), x[:, :count], going.begun)
        return float(self.engine.numpy(self.loss.error(velocity, batch)))

    def _begin(self, factors: Weights, store: Walkable, batch: Batch) -> tuple[Dressed, _Pass]:
        latents, told = self.loss.told(batch)
        view = Dressed(self.dressing, store, factors)
        begun = self.model.head(view, latents, **told, manner=self._manner)
        around = begun.around
        functions = self.model.block_functions(around, self._manner)
        rope = with_plain_tokens(self.engine, around.rope[0], around.rope[1], around.counts.text)
        return view, _Pass(begun, told, functions, rope, factors)

    def _forward(self, going: _Pass, blocks: Iterator[Weights], first: int) -> tuple[list[tuple[Tensor, ...]], Tensor]:
        """What each block began with from place ``first`` on, and the tokens behind the last."""
        kept: list[tuple[Tensor, ...]] = []
        x: tuple[Tensor, ...] = (going.begun.image, going.begun.around.text)
        for place, key in enumerate(self.keys):
            if place == self.model.config.double_blocks:
                x = (self.engine.concat(x, 1),)
            if place >= first:
                kept.append(self._put(x))
            merged = self.dressing.merged(_place(key), next(blocks), going.factors)
            x = self._block(going, key, merged, x)
            del merged
        return kept, x[0] if len(x) == 1 else self.engine.concat(x, 1)

    def _tail(
        self, going: _Pass, merged: Weights, x: Tensor, batch: Batch
    ) -> tuple[float, Gradients, tuple[Tensor, ...]]:
        """The loss, the gradients of the final layer's factors, and the cotangent of the tokens."""
        count = sum(going.begun.around.counts.image)

        def loss(leaves: Weights) -> Tensor:
            w = self.dressing.adapted(LAST, merged, leaves)
            return self.loss.error(self.model.tail(w, leaves["x"][:, :count], going.begun), batch)

        value, found = self.engine.grad(loss)({**self._leaves(self.dressing.names(LAST), going.factors), "x": x})
        cotangent = found.pop("x")
        return float(self.engine.numpy(value)), self._home(found), (cotangent,)

    def _backward(
        self,
        going: _Pass,
        blocks: Iterator[Weights],
        kept: list[tuple[Tensor, ...]],
        cotangents: tuple[Tensor, ...],
        gradients: Gradients,
    ) -> tuple[Tensor, ...]:
        """Fills in the gradients of every block's factors; the cotangents of what the first one began with."""
        doubles = self.model.config.double_blocks
        if doubles == len(self.keys):
            cotangents = self._parted(going, cotangents[0])
        for place in range(len(self.keys) - 1, self.first - 1, -1):
            key = self.keys[place]
            merged = self.dressing.merged(_place(key), next(blocks), going.factors)
            inputs = tuple(self.engine.to_device(x) for x in kept.pop())
            found, cotangents = self._product(going, key, merged, inputs, cotangents)
            del merged, inputs
            gradients.update(self._home(found))
            if place == doubles:
                cotangents = self._parted(going, cotangents[0])
        return cotangents

    def _product(
        self, going: _Pass, key: Key, merged: Weights, inputs: tuple[Tensor, ...], cotangents: tuple[Tensor, ...]
    ) -> tuple[Weights, tuple[Tensor, ...]]:
        """The gradients of one block's factors, and the cotangents of its inputs."""
        place, names = _place(key), [f"x{number}" for number in range(len(inputs))]

        def block(leaves: Weights, merged: Weights) -> tuple[Tensor, ...]:
            w = self.dressing.adapted(place, merged, leaves)
            return self._block(going, key, w, tuple(leaves[name] for name in names))

        leaves = {**self._leaves(self.dressing.names(place), going.factors), **dict(zip(names, inputs, strict=True))}
        found = self.engine.vjp(block)(leaves, cotangents, merged)
        return found, tuple(found.pop(name) for name in names)

    def _text(self, going: _Pass, store: Walkable, cotangents: tuple[Tensor, ...], gradients: Gradients) -> None:
        """Fills in the gradients of the factors in what makes the text's tokens."""
        names = self._text_names()
        if not names:
            return

        def tokens(leaves: Weights) -> Tensor:
            view = Dressed(self.dressing, store, going.factors, leaves=leaves)
            return self.model.refined(view, going.told["text"], going.told["timestep"])

        found = self.engine.vjp(tokens)(self._leaves(names, going.factors), cotangents[1:])
        gradients.update(self._home(found))

    def _block(self, going: _Pass, key: Key, w: Weights, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        double, single = going.functions
        around = going.begun.around
        if key[0] == "double_blocks":
            return double(w, *x, around.conditions, around.rope, around.lengths)
        return (single(w, *x, around.conditions, going.rope, around.lengths),)

    def _parted(self, going: _Pass, x: Tensor) -> tuple[Tensor, ...]:
        """Tokens as image and text."""
        counts = going.begun.around.counts
        return self.engine.split(x, [sum(counts.image), counts.text], 1)

    def _put(self, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(self.engine.to_host(part) for part in x) if self._keeps_on_host else x

    def _leaves(self, names: tuple[str, ...], factors: Weights) -> Weights:
        return {name: self.engine.asarray(factors[name]) for name in names}

    def _home(self, found: Weights) -> Gradients:
        return {name: self.engine.numpy(x) for name, x in found.items()}


def _place(key: Key) -> str:
    return f"{key[0]}.{key[1]}"
