"""Fused query, key and value as the checkpoints store them."""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor


def split_heads(engine: Engine, qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value; the rows of a fused layer are all of q, then k, then v.

    Shapes: qkv (B, N, 3*A*E) -> three (B, N, A, E).
    """
    batch, tokens, width = qkv.shape
    fused = engine.reshape(qkv, (batch, tokens, 3, heads, width // (3 * heads)))
    q, k, v = engine.split(fused, (1, 1, 1), 2)
    return q[:, :, 0], k[:, :, 0], v[:, :, 0]
