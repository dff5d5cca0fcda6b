"""Layer norm, shift, scale and gate by vectors, each vector for a run of consecutive tokens.

A token group is a count of tokens and the vectors that belong to them.  "These tokens have another
timestep" is two groups instead of one; no block knows more about it than that.
"""

from __future__ import annotations

from collections.abc import Sequence

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.nn.linear import linear


def modulation_vectors(
    engine: Engine, w: Weights, name: str, conditions: Sequence[Tensor], parts: int
) -> list[tuple[Tensor, ...]]:
    """Every condition through the same layer, cut into ``parts`` vectors.

    Shapes: each condition (B, D) -> per condition, ``parts`` tensors (B, D).
    """
    batch, width = conditions[0].shape
    # One matrix product for all conditions: at batch 1 the time goes into reading the weight.
    joined = conditions[0] if len(conditions) == 1 else engine.concat(conditions, 0)
    out = linear(engine, w, name, engine.silu(joined))
    rows = [out] if len(conditions) == 1 else engine.split(out, [batch] * len(conditions), 0)
    return [engine.split(row, [width] * parts, 1) for row in rows]


def normed_and_modulated(
    engine: Engine, x: Tensor, counts: Sequence[int], shifts: Sequence[Tensor], scales: Sequence[Tensor]
) -> Tensor:
    """LayerNorm without weights, then x * (1 + scale) + shift, per token group.

    Shapes: x (B, N, D), shifts and scales (B, D) per group; the counts add up to N.
    Precision: statistics, product and sum in float32; 1 + scale in x's type.
    Source: specification, sections 4.3 and 4.9.
    """
    pieces = [
        _modulated(engine, piece, shifts[group], scales[group]) for group, piece in _token_groups(engine, x, counts)
    ]
    return pieces[0] if len(pieces) == 1 else engine.concat(pieces, 1)


def _modulated(engine: Engine, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    # Of one sample, shift and scale are the norm's own bias and weight: one pass, and nothing in float32 beside it.
    gain, samples = scale + 1.0, range(x.shape[0])
    normed = [engine.layer_norm(x[i : i + 1], gain[i], shift[i]) for i in samples]
    return normed[0] if len(normed) == 1 else engine.concat(normed, 0)


def gated_sum(engine: Engine, x: Tensor, change: Tensor, counts: Sequence[int], gates: Sequence[Tensor]) -> Tensor:
    """x + change * gate, per token group.

    Shapes: x and change (B, N, D), gates (B, D) per group.
    """
    changes = [piece * gates[group][:, None, :] for group, piece in _token_groups(engine, change, counts)]
    return x + (changes[0] if len(changes) == 1 else engine.concat(changes, 1))


def _token_groups(engine: Engine, x: Tensor, counts: Sequence[int]) -> list[tuple[int, Tensor]]:
    # A clip of one latent frame has no tokens beside the first frame's: engines differ on empty tensors.
    present = [(group, count) for group, count in enumerate(counts) if count > 0]
    if len(present) == 1:
        return [(present[0][0], x)]
    pieces = engine.split(x, [count for _, count in present], 1)
    return [(present[place][0], pieces[place]) for place in range(len(present))]
