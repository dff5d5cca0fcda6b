"""Qwen2.5-VL's language model as a text encoder: no picture reaches it, so its positions are plain."""

from __future__ import annotations

import numpy as np

from framewake.config import LlamaConfig
from framewake.engine.contract import Engine, Tensor
from framewake.models.llama import Llama

SKIPPED = 2  # of the last layers: the hidden state behind them is not read, nor is the final norm


class Qwen:
    """Ids into the hidden state in front of the last two layers.

    Source: specification of 1.5, section 3.2.
    """

    def __init__(self, engine: Engine, config: LlamaConfig) -> None:
        self.engine = engine
        self.config = config
        self.language = Llama(engine, config, prefix="model")

    def __call__(self, weights, ids: np.ndarray, mask: np.ndarray) -> Tensor:
        """Hidden states up to the longest valid length; rows beyond a sample's own mean nothing.

        Shapes: ids and mask (B, L) on the host, padded on the right -> (B, V, D).
        """
        ids = ids[:, : int(mask.sum(axis=1).max())]
        return self.language(weights, self.language.embed(weights, ids), skip_layers=SKIPPED)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that is read, with its shape."""
        return self.language.shapes(SKIPPED)

    def streams(self) -> tuple[str, ...]:
        """The list of blocks that need not stay on the device."""
        return (f"{self.language.prefix}.layers",)
