"""A toy transformer with random weights and inputs, and the largest difference of two results."""

from dataclasses import replace

import numpy as np

from framewake.config import DiTConfig
from framewake.golden import rule
from framewake.models.dit import DiT, TextStates
from framewake.models.manner import PLAIN
from framewake.nn.rope import rope_table
from framewake.weights.stores.store import Resident

CONFIG = DiTConfig(
    patch_size=(1, 2, 2),
    in_channels=4,
    out_channels=4,
    hidden_size=48,
    heads=3,
    rope_dims=(4, 6, 6),
    rope_theta=256.0,
    mlp_ratio=2.0,
    double_blocks=2,
    single_blocks=2,
    refiner_blocks=1,
    text_width=24,
    pooled_width=12,
    condition="token_replace",
    has_guidance=True,
)


class Toy:
    """A transformer on one engine with weights and inputs that depend on names and shapes only."""

    manner = PLAIN

    def __init__(self, engine, dtype="float32", **changes):
        self.engine = engine
        self.config = replace(CONFIG, **changes)
        self.dit = DiT(engine, self.config)
        self.tensors = {
            name: engine.asarray(rule.weight(name, shape, 5), dtype) for name, shape in self.dit.shapes().items()
        }
        self.weights = Resident(self.tensors)

    def inputs(self, batch=1, size=(3, 4, 6), lengths=(7,), tokens=7):
        """Keyword arguments of a call, with the latents under "latents"."""
        engine, config = self.engine, self.config
        grid = (size[0], size[1] // 2, size[2] // 2)
        text = TextStates(
            self.draw("states", (batch, tokens, config.text_width)), lengths, self.draw("pooled", (batch, 12))
        )
        return {
            "latents": self.draw("latents", (batch, config.in_channels, *size)),
            "timestep": engine.asarray(np.linspace(900, 100, batch).astype(np.float32)),
            "guidance": engine.full((batch,), 6016.0) if config.has_guidance else None,
            "text": text,
            "rope": tuple(engine.asarray(t) for t in rope_table(grid, config.rope_dims, config.rope_theta)),
        }

    def draw(self, name, shape):
        return self.engine.asarray(rule.input(name, shape, 6))

    def __call__(self, latents, **named):
        return self.engine.numpy(self.dit(self.weights, latents, manner=self.manner, **named))


def largest(found, expected):
    """The largest absolute difference, over the expected array's largest magnitude."""
    assert found.shape == expected.shape, (found.shape, expected.shape)
    return float(np.abs(found - expected).max() / np.abs(expected).max())
