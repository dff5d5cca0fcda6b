"""T5's encoder: ids of one text into hidden states, with positions as a bias of attention."""

from __future__ import annotations

import math

import numpy as np

from framewake.config15 import T5Config
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.errors import InputError

BIAS = "block.0.layer.0.SelfAttention.relative_attention_bias"  # one table, which all layers share


class T5Encoder:
    """Blocks of attention and a gated MLP, each behind an RMS norm; attention is not scaled.

    Source: specification of 1.5, section 4.
    """

    def __init__(self, engine: Engine, config: T5Config) -> None:
        self.engine = engine
        self.config = config

    def __call__(self, weights, ids: np.ndarray) -> Tensor:
        """The states behind the final norm.

        Shapes: ids (1, L) on the host, without padding -> (1, L, D). Precision: that of the weights.
        """
        engine, config = self.engine, self.config
        if int(ids.max(initial=0)) >= config.vocab_size:
            raise InputError(f"id {ids.max()} is outside the encoder's vocabulary of {config.vocab_size}.")
        x = engine.embedding(weights.part("embed_tokens")["weight"], engine.asarray(ids))
        places = position_buckets(ids.shape[1], config.position_buckets, config.position_distance)
        # Row k of the table is what bucket k adds to each head's scores.
        bias = engine.permute(engine.embedding(weights.part(BIAS)["weight"], engine.asarray(places)), (2, 0, 1))[None]
        for w in weights.blocks("block", config.layers):
            x = x + self.attend(w, engine.rms_norm(x, w["layer.0.layer_norm.weight"], config.norm_eps), bias)
            h = engine.rms_norm(x, w["layer.1.layer_norm.weight"], config.norm_eps)
            gate = engine.gelu(engine.linear(h, w["layer.1.DenseReluDense.wi_0.weight"]), "tanh")
            h = gate * engine.linear(h, w["layer.1.DenseReluDense.wi_1.weight"])
            x = x + engine.linear(h, w["layer.1.DenseReluDense.wo.weight"])
        return engine.rms_norm(x, weights.part("final_layer_norm")["weight"], config.norm_eps)

    def attend(self, w: Weights, x: Tensor, bias: Tensor) -> Tensor:
        """Self-attention. Shapes: x (1, L, D), bias (1, A, L, L) -> (1, L, D)."""
        engine, config = self.engine, self.config
        batch, tokens = x.shape[0], x.shape[1]
        q, k, v = (
            engine.permute(
                engine.reshape(
                    engine.linear(x, w[f"layer.0.SelfAttention.{letter}.weight"]),
                    (batch, tokens, config.heads, config.head_dim),
                ),
                (0, 2, 1, 3),
            )
            for letter in "qkv"
        )
        scores = engine.matmul(q, engine.permute(k, (0, 1, 3, 2))) + bias
        shares = engine.cast(engine.softmax(engine.cast(scores, "float32")), engine.dtype(v))
        out = engine.permute(engine.matmul(shares, v), (0, 2, 1, 3))
        out = engine.reshape(out, (batch, tokens, config.heads * config.head_dim))
        return engine.linear(out, w["layer.0.SelfAttention.o.weight"])

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that is read, with its shape."""
        config = self.config
        width, inner = config.hidden_size, config.heads * config.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "embed_tokens.weight": (config.vocab_size, width),
            f"{BIAS}.weight": (config.position_buckets, config.heads),
            "final_layer_norm.weight": (width,),
        }
        for i in range(config.layers):
            first, second = f"block.{i}.layer.0.", f"block.{i}.layer.1."
            shapes |= {f"{first}SelfAttention.{letter}.weight": (inner, width) for letter in "qkv"}
            shapes |= {f"{first}SelfAttention.o.weight": (width, inner)}
            shapes |= {f"{start}layer_norm.weight": (width,) for start in (first, second)}
            shapes |= {f"{second}DenseReluDense.wi_{n}.weight": (config.mlp_size, width) for n in (0, 1)}
            shapes |= {f"{second}DenseReluDense.wo.weight": (width, config.mlp_size)}
        return shapes

    def streams(self) -> tuple[str, ...]:
        """None: it is small, and its first block holds what all share."""
        return ()


def position_buckets(length: int, buckets: int, farthest: int) -> np.ndarray:
    """Which row of the table a key at a distance has: near ones have their own, farther ones share one.

    Half of the rows are for keys behind the query. Shapes: -> (L, L) int64, queries by keys.
    Precision: logarithms in float32, as the original rounds them.
    """
    distance = np.arange(length)[None, :] - np.arange(length)[:, None]
    half = buckets // 2
    near, far = half // 2, np.abs(distance)
    scale = np.float32(math.log(farthest / near))
    grown = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(near)) / scale * np.float32(half - near)
    shared = np.minimum(near + grown.astype(np.int64), half - 1)
    return (distance > 0) * half + np.where(far < near, far, shared)
