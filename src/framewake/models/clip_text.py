"""CLIP's text encoder: one pooled vector for a prompt."""

from __future__ import annotations

import numpy as np

from framewake.config import ClipTextConfig
from framewake.engine.contract import Engine, Tensor
from framewake.errors import InputError
from framewake.models.clip_layer import ClipLayer, layer_shapes

PREFIX = "text_model"
# Checkpoints made before the end id was written correctly say 2; for them the highest id marks the end.
LEGACY_EOS_ID = 2


class ClipText:
    """The text encoder without a projection.

    Source: specification, section 3.5.
    """

    def __init__(self, engine: Engine, config: ClipTextConfig) -> None:
        self.engine = engine
        self.config = config
        self.layer = ClipLayer(engine, heads=config.heads, activation=config.activation, eps=config.norm_eps)

    def __call__(self, weights, ids: np.ndarray, mask: np.ndarray) -> tuple[Tensor, Tensor]:
        """The pooled vector and the last hidden state, both after the final norm.

        Shapes: ids and mask (B, L) on the host -> (B, D), (B, V, D), V the longest valid length; rows
        beyond a sample's own length mean nothing.
        """
        engine, config = self.engine, self.config
        # Causal attention: padding on the right is never seen by a valid token, so it is cut away.
        valid = int(np.asarray(mask).sum(axis=1).max())
        ids = np.asarray(ids)[:, :valid]
        if valid > config.max_positions:
            raise InputError(
                f"{valid} text tokens were given to the CLIP text encoder, which takes at most "
                f"{config.max_positions}; shorten the prompt."
            )
        table = weights.part(f"{PREFIX}.embeddings")
        x = engine.embedding(table["token_embedding.weight"], engine.asarray(ids))
        x = x + table["position_embedding.weight"][:valid]
        causal = engine.asarray(np.tril(np.ones((1, 1, valid, valid), dtype=bool)))
        for w in weights.blocks(f"{PREFIX}.encoder.layers", config.layers):
            x = self.layer(w, x, causal)
        norm = weights.part(f"{PREFIX}.final_layer_norm")
        x = engine.layer_norm(x, norm["weight"], norm["bias"], config.norm_eps)
        rows = self.pooled_positions(ids) + np.arange(len(ids)) * valid
        flat = engine.reshape(x, (len(ids) * valid, config.hidden_size))
        return engine.take(flat, engine.asarray(rows), 0), x

    def pooled_positions(self, ids: np.ndarray) -> np.ndarray:
        """Where each row ends: the first end id, or the highest id under the legacy rule. Shapes: (B, L) -> (B,)."""
        if self.config.eos_token_id == LEGACY_EOS_ID:
            return ids.argmax(axis=1)
        return (ids == self.config.eos_token_id).argmax(axis=1)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that is read, with its shape."""
        config = self.config
        width = config.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            f"{PREFIX}.embeddings.token_embedding.weight": (config.vocab_size, width),
            f"{PREFIX}.embeddings.position_embedding.weight": (config.max_positions, width),
            f"{PREFIX}.final_layer_norm.weight": (width,),
            f"{PREFIX}.final_layer_norm.bias": (width,),
        }
        for i in range(config.layers):
            shapes |= layer_shapes(f"{PREFIX}.encoder.layers.{i}.", width=width, mlp=config.mlp_size)
        return shapes

    def streams(self) -> tuple[str, ...]:
        """The list of blocks that need not stay on the device."""
        return (f"{PREFIX}.encoder.layers",)
