"""Muon for matrices, AdamW for the rest: small models learn several times faster than with AdamW alone.

Everything is engine arithmetic on flat dicts of float32 tensors.
"""

from __future__ import annotations

import math

from framewake.engine.contract import Engine, Tensor, Weights

# Coefficients of the quintic iteration that drives all singular values towards 1 (Jordan 2024, "Muon").
_QUINTIC = (3.4445, -4.7750, 2.0315)
_MOMENTUM = 0.95
_BETA1, _BETA2, _EPS = 0.9, 0.99, 1e-8


class Muon:
    """Optimiser with state for one flat dict of weights; ``plain`` names go to AdamW although they are matrices."""

    def __init__(self, engine: Engine, weights: Weights, *, plain: tuple[str, ...] = ()) -> None:
        self.engine = engine
        self.steps = 0
        self.is_matrix = {
            name: len(w.shape) >= 2 and min(w.shape[0], math.prod(w.shape[1:])) > 4 and not name.startswith(plain)
            for name, w in weights.items()
        }
        self.first = {name: engine.zeros(w.shape) for name, w in weights.items()}
        self.second = {name: engine.zeros(w.shape) for name, w in weights.items() if not self.is_matrix[name]}

    def step(self, weights: Weights, grads: Weights, lr: float, plain_lr: float) -> Weights:
        """New weights after one update; ``lr`` is for matrices, ``plain_lr`` for all else."""
        self.steps += 1
        updated = {}
        for name, w in weights.items():
            update = self._orthogonal(name, grads[name]) if self.is_matrix[name] else self._adam(name, grads[name])
            updated[name] = w - update * (lr if self.is_matrix[name] else plain_lr)
        return updated

    def _adam(self, name: str, grad: Tensor) -> Tensor:
        first = self.first[name] * _BETA1 + grad * (1 - _BETA1)
        second = self.second[name] * _BETA2 + grad * grad * (1 - _BETA2)
        self.first[name], self.second[name] = first, second
        first = first / (1 - _BETA1**self.steps)
        second = second / (1 - _BETA2**self.steps)
        return first / (self.engine.sqrt(second) + _EPS)

    def _orthogonal(self, name: str, grad: Tensor) -> Tensor:
        engine = self.engine
        moment = self.first[name] * _MOMENTUM + grad * (1 - _MOMENTUM)
        self.first[name] = moment
        look_ahead = moment * _MOMENTUM + grad * (1 - _MOMENTUM)
        rows = grad.shape[0]
        x = engine.reshape(look_ahead, (rows, -1))
        columns = x.shape[1]
        is_tall = rows > columns
        x = engine.permute(x, (1, 0)) if is_tall else x
        x = x * engine.rsqrt(engine.sum(x * x, (0, 1)) + 1e-14)
        a, b, c = _QUINTIC
        x = engine.cast(x, "bfloat16") if "bfloat16" in engine.traits.products else x
        for _ in range(5):
            gram = engine.matmul(x, engine.permute(x, (1, 0)))
            x = x * a + engine.matmul(gram * b + engine.matmul(gram, gram) * c, x)
        x = engine.cast(x, "float32")
        x = engine.permute(x, (1, 0)) if is_tall else x
        return engine.reshape(x, grad.shape) * (10 * math.sqrt(max(1.0, rows / columns)))


def blend(average: Weights, weights: Weights, keep: float) -> Weights:
    """Exponential moving average of weights."""
    return {name: average[name] * keep + w * (1 - keep) for name, w in weights.items()}


def clip_norm(engine: Engine, grads: Weights, limit: float) -> tuple[Weights, float]:
    """Gradients scaled down to a common norm, and the norm before."""
    total = math.sqrt(sum(float(engine.numpy(engine.sum(g * g, tuple(range(len(g.shape)))))) for g in grads.values()))
    scale = min(1.0, limit / (total + 1e-12))
    return {name: g * scale for name, g in grads.items()}, total
