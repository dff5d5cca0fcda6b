"""Fused query, key and value as the checkpoints store them."""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor


def split_heads(engine: Engine, fused: Tensor, heads: int, *, count: int = 3) -> list[Tensor]:
    """Query, key and value, or ``count`` of them; the rows of a fused layer are all of q, then k, then v.

    Shapes: fused (B, N, count*A*E) -> (B, N, A, E) each.
    """
    batch, tokens, width = fused.shape
    if count == 1:
        return [engine.reshape(fused, (batch, tokens, heads, width // heads))]
    fused = engine.reshape(fused, (batch, tokens, count, heads, width // (count * heads)))
    return [part[:, :, 0] for part in engine.split(fused, [1] * count, 2)]
