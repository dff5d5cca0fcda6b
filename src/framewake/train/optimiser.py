"""AdamW on flat dicts of float32 arrays, and the learning rate of each update."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.train.settings import Training

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
MOST_NORM = 1.0  # of a gradient; a longer one is cut to it
FIRST_SHARE, LAST_SHARE = 0.01, 0.1  # of the rate, where it warms up and where it decays to


Arrays = dict[str, np.ndarray]


class OptimiserState(NamedTuple):
    """Everything that an update changes: a value, so that a stop at any moment finds one of them whole.

    It lies on the host, where it is four times the factors at the most: on the device is one of them at a time.
    """

    step: int
    factors: Arrays
    first: Arrays
    second: Arrays

    def nbytes(self) -> int:
        """What the arrays take."""
        return sum(x.nbytes for part in (self.factors, self.first, self.second) for x in part.values())


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


def norm_of(engine: Engine, gradients: Arrays) -> float:
    """The common norm of gradients. Precision: squares of one tensor are summed in float32, the sums in float64."""

    def squares(g: Tensor) -> float:
        return float(engine.numpy(engine.sum(g * g, tuple(range(len(g.shape))))))

    return math.sqrt(math.fsum(squares(engine.asarray(g)) for g in gradients.values()))


def updated(
    engine: Engine, state: OptimiserState, gradients: Arrays, *, norm: float, rate: float, weight_decay: float
) -> OptimiserState:
    """The state after one update of AdamW with gradients cut to a common norm of at most 1. Precision: float32."""
    step, share = state.step + 1, MOST_NORM / max(norm, MOST_NORM)
    factors, first, second = {}, {}, {}
    for name, found in gradients.items():
        gradient = engine.asarray(found) * share
        moment, square, factor = (engine.asarray(part[name]) for part in (state.first, state.second, state.factors))
        moment = moment * BETA1 + gradient * (1 - BETA1)
        square = square * BETA2 + gradient * gradient * (1 - BETA2)
        size = engine.sqrt(square * (1 / (1 - BETA2**step))) + EPS
        factor = factor * (1 - rate * weight_decay) - moment / size * (rate / (1 - BETA1**step))
        factors[name], first[name], second[name] = (engine.numpy(x) for x in (factor, moment, square))
    return OptimiserState(step, factors, first, second)
