"""A deep toy transformer with factors in the middle of training, and the gradients of its whole graph."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
from toy15 import DIT as DIT15
from toy_checkpoint import DIT

from framewake.golden import rule
from framewake.models.dit import TextPart, TextStates
from framewake.models.dit15 import GLYPH, VISION
from framewake.models.manner import PLAIN
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.train.adapted import AdaptedLayers, Dressed, Dressing
from framewake.train.batch import Batch
from framewake.train.events import Update
from framewake.train.factors import chosen, start
from framewake.train.loss import FlowLoss
from framewake.train.walk import Walk
from framewake.weights.stores.store import Resident

RANK, ALPHA = 3, 2.0
LENGTHS = (6, 4)


def deep(condition="token_replace"):
    """Two blocks of each kind. Where a picture is joined, there are channels for it."""
    channels = 2 * DIT.out_channels + 1 if condition == "latent_concat" else DIT.out_channels
    return dataclasses.replace(DIT, double_blocks=2, single_blocks=2, condition=condition, in_channels=channels)


def batch_of(engine, count, frames=3, *, family=HUNYUAN):
    """Clips of 4 x 4 latent cells with texts of several lengths; of 1.5, only the first prompt has quoted text."""
    shape = (count, 4, frames, 4, 4)
    clean, noise = (engine.asarray(rule.input(name, shape, 9)) for name in ("clean", "noise"))
    image = engine.asarray(rule.input("image", (count, 4, 1, 4, 4), 9))
    states, pooled = (engine.asarray(rule.input(n, (count, *s, 16), 9)) for n, s in (("states", (6,)), ("pooled", ())))
    text = TextStates(states, LENGTHS[:count], pooled)
    if family is HUNYUAN15:
        seen, quoted = (engine.asarray(rule.input(n, (count, t, 16), 9)) for n, t in (("seen", 3), ("quoted", 4)))
        further = {VISION: TextPart(seen, (3, 3)[:count]), GLYPH: TextPart(quoted, (4, 0)[:count])}
        text = TextStates(states, LENGTHS[:count], None, further)
    return Batch(clean, image, text, noise, np.asarray([0.3, 0.9], np.float32)[:count])


class Task:
    """Everything that a gradient is computed from; ``targets`` as a person writes them."""

    def __init__(
        self, engine, *, family=HUNYUAN, condition="token_replace", targets=(), dtype="float32", dressing=Dressing
    ):
        self.engine, self.family, self.dtype = engine, family, dtype
        self.config = deep(condition) if family is HUNYUAN else dataclasses.replace(DIT15, condition=condition)
        self.shapes = family.transformer(None, self.config).shapes()
        self.modules = chosen(self.shapes, family.trained.modules, patterns=targets)
        self.dressing = dressing(engine, self.modules, RANK, ALPHA)
        self.loss = FlowLoss(engine, self.config, guidance=6.0, dtype=dtype)
        # Neither factor is zero.
        moved = {n: x + 0.1 * rule.input(n, x.shape, 3) for n, x in start(self.modules, RANK, 1).items()}
        self.factors = {name: x.astype(np.float32) for name, x in moved.items()}

    def resident(self):
        """The base in memory."""
        return Resident({name: self.engine.asarray(x, self.dtype) for name, x in rule.weights(self.shapes, 7).items()})

    def walk(self, manner=PLAIN, *, keeps_on_host=False):
        """The walk over its blocks."""
        model = self.family.transformer(AdaptedLayers(self.engine), self.config)
        return Walk(model, self.loss, self.dressing, manner=manner, keeps_on_host=keeps_on_host)

    def whole(self, store, batch, manner=PLAIN):
        """Loss and gradients of the whole graph, of which every activation is kept."""
        engine, model = self.engine, self.family.transformer(self.engine, self.config)

        def loss(leaves):
            view = Dressed(Dressing(engine, self.modules, RANK, ALPHA), store, leaves)
            return self.loss(functools.partial(model, view, manner=manner), batch)

        value, found = engine.grad(loss)({name: engine.asarray(x) for name, x in self.factors.items()})
        return float(engine.numpy(value)), {name: np.array(engine.numpy(x)) for name, x in found.items()}


class _Merged(dict):
    """A block's merged weights, and the base that they were made of."""

    base: dict


class MergedInside(Dressing):
    """Factors merged inside of each product, so that the gradient of a whole weight flows back into them."""

    def merged(self, place, base, factors):
        found = _Merged(super().merged(place, base, factors))
        found.base = base
        return found

    def adapted(self, place, merged, leaves):
        return super().merged(place, merged.base, leaves)


def losses(events):
    """Those of a run's updates."""
    return [event.loss for event in events if isinstance(event, Update)]


def apart(found, expected):
    """The largest difference of any gradient, relative to the largest number of its own."""
    assert set(found) == set(expected)
    return max(float(np.abs(found[name] - x).max() / max(np.abs(x).max(), 1e-30)) for name, x in expected.items())


def update_of(engine, config, latent, *, rank, text, way, family=HUNYUAN):
    """The gradients of one clip on an engine without numbers, as something to run, and all weights and factors."""
    shapes = family.transformer(None, config).shapes()
    modules = chosen(shapes, family.trained.modules)
    weights = {name: engine.zeros(shape, "bfloat16") for name, shape in shapes.items()}
    factors = {name: engine.zeros(x.shape) for name, x in start(modules, rank, 1).items()}
    loss = FlowLoss(engine, config, guidance=6.0, dtype="bfloat16")
    model = family.transformer(AdaptedLayers(engine), config)
    dressing = Dressing(engine, modules, rank, rank)
    walk = Walk(model, loss, dressing, manner=way.manner, keeps_on_host=way.keeps_on_host)

    def work():
        channels = config.out_channels
        clean, noise = (engine.zeros((1, channels, *latent[1:])) for _ in range(2))
        image = engine.zeros((1, channels, 1, *latent[2:]))
        pooled = engine.zeros((1, config.pooled_width)) if config.pooled_width else None
        states = TextStates(engine.zeros((1, text, config.text_width)), (text,), pooled)
        walk(factors, Resident(weights), Batch(clean, image, states, noise, np.zeros(1, np.float32)))

    return work, [*weights.values(), *factors.values()]
