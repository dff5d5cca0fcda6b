"""AdamW on flat dicts of float32 tensors, and the learning rate of each update."""

from __future__ import annotations

import math
from typing import NamedTuple

from framewake.engine.contract import Engine, Weights
from framewake.train.settings import Training

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
MOST_NORM = 1.0  # of a gradient; a longer one is cut to it
FIRST_SHARE, LAST_SHARE = 0.01, 0.1  # of the rate, where it warms up and where it decays to


class OptimiserState(NamedTuple):
    """Everything that an update changes: a value, so that a stop between two updates finds one of them whole."""

    step: int
    factors: Weights
    first: Weights
    second: Weights


def learning_rate(settings: Training, step: int) -> float:
    """The rate of update ``step``, counted from 1.

    It grows with the logarithm, as the original's does; there, update 1 has the full rate by mistake.
    Source: specification, section 10.4.
    """
    rate = settings.learning_rate
    if step <= settings.warmup and settings.warmup > 1:
        return rate * (FIRST_SHARE + (1 - FIRST_SHARE) * math.log(step) / math.log(settings.warmup))
    if not settings.decays:
        return rate
    done = (step - settings.warmup) / max(settings.steps - settings.warmup, 1)
    return rate * (LAST_SHARE + (1 - LAST_SHARE) * (1 + math.cos(math.pi * min(done, 1.0))) / 2)


def clipped(engine: Engine, gradients: Weights) -> tuple[Weights, float]:
    """Gradients of a common norm of at most 1, and the norm before."""
    squares = [engine.sum(g * g, tuple(range(len(g.shape)))) for g in gradients.values()]
    norm = math.sqrt(float(engine.numpy(engine.sum(engine.stack(squares, 0), (0,)))))
    if norm <= MOST_NORM:
        return gradients, norm
    return {name: g * (MOST_NORM / norm) for name, g in gradients.items()}, norm


def updated(
    engine: Engine, state: OptimiserState, gradients: Weights, *, rate: float, weight_decay: float
) -> OptimiserState:
    """The state after one update of AdamW. Precision: float32."""
    step = state.step + 1
    factors, first, second = {}, {}, {}
    for name, gradient in gradients.items():
        first[name] = state.first[name] * BETA1 + gradient * (1 - BETA1)
        second[name] = state.second[name] * BETA2 + gradient * gradient * (1 - BETA2)
        size = engine.sqrt(second[name] * (1 / (1 - BETA2**step))) + EPS
        kept = state.factors[name] * (1 - rate * weight_decay)
        factors[name] = kept - first[name] / size * (rate / (1 - BETA1**step))
    return OptimiserState(step, factors, first, second)
