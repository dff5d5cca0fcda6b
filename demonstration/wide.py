"""An engine whose attention computes in float32, for training in bfloat16 on a CPU."""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor


class WideAttention:
    """Everything is the wrapped engine's but attention: its bfloat16 gradient is twice as slow on CPUs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __getattr__(self, name: str):
        return getattr(self._engine, name)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, mask=None, lengths=None) -> Tensor:
        """As in the contract. Precision: float32 inside, q's type outside."""
        engine = self._engine
        kind = engine.dtype(q)
        q, k, v = (engine.cast(x, "float32") for x in (q, k, v))
        return engine.cast(engine.attention(q, k, v, scale=scale, mask=mask, lengths=lengths), kind)
