"""Fused query, key and value as the checkpoints store them."""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor


def split_heads(engine: Engine, qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Views of query, key and value; the rows of a fused layer are all of q, then k, then v.

    Shapes: qkv (B, N, 3*A*E) -> three (B, N, A, E).
    """
    batch, tokens, width = qkv.shape
    parts = engine.reshape(qkv, (batch, tokens, 3, heads, width // (3 * heads)))
    return parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
