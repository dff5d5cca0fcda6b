"""How latents follow the velocity from one noise level to the next.

A solver is made for one run and may remember earlier steps. It is a class here with its row in the table, and its
name among the choices of ``Request.solver``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.sampling.flow import Schedule

# Step, latents before it and the velocity there -> the latents after it, in float32.
Solver = Callable[[int, Tensor, Tensor], Tensor]


class Euler:
    """Straight on (specification, section 5.3)."""

    def __init__(self, engine: Engine, schedule: Schedule) -> None:
        self.engine = engine
        self.sigmas = schedule.sigmas

    def __call__(self, index: int, latents: Tensor, velocity: Tensor) -> Tensor:
        """One step of it."""
        return euler_step(self.engine, latents, velocity, self.sigmas[index], self.sigmas[index + 1])


def euler_step(engine: Engine, x: Tensor, velocity: Tensor, sigma: float, next_sigma: float) -> Tensor:
    """x moved along the velocity from one noise level to the next.

    Precision: float32, whatever comes in.
    Source: specification, section 5.3.
    """
    stride = float(np.float32(next_sigma) - np.float32(sigma))
    return engine.cast(x, "float32") + engine.cast(velocity, "float32") * stride


SOLVERS: Mapping[str, Callable[[Engine, Schedule], Solver]] = {"euler": Euler}
