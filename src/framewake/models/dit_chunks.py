"""The transformer's blocks a run of tokens at a time, so that what a block makes on the way stays small.

Queries, keys, values and what they attended to exist for all tokens, everything wider for one chunk. Each row is
computed as in ``models/dit.py``, but a matrix product over fewer rows may round differently in its last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.nn.attention import split_heads
from framewake.nn.linear import linear
from framewake.nn.mlp import mlp
from framewake.nn.modulation import gated_sum, modulation_vectors, normed_and_modulated


class Chunk(NamedTuple):
    """The tokens [start, stop), all of one token group."""

    group: int
    start: int
    stop: int


def cut(counts: Sequence[int], size: int) -> tuple[Chunk, ...]:
    """Token groups as chunks of at most ``size`` tokens; none reaches over the end of its group."""
    chunks = []
    first = 0
    for group, count in enumerate(counts):
        for start in range(first, first + count, size):
            chunks.append(Chunk(group, start, min(start + size, first + count)))
        first += count
    return tuple(chunks)


class ChunkedDoubleBlock:
    """``models.dit.DoubleBlock`` over chunks of image tokens; there are few text tokens."""

    def __init__(self, engine: Engine, config: DiTConfig, layout, size: int) -> None:
        self.engine = engine
        self.config = config
        self.layout = layout
        self.image_chunks = cut(layout.image_counts, size)
        self.text_chunks = cut((layout.text_count,), size)

    def __call__(self, w: Weights, image: Tensor, text: Tensor, conditions, rope) -> tuple[Tensor, Tensor]:
        """Shapes: image (B, N, D), text (B, T, D), conditions (B, D) per image group, rope two (N, E)."""
        engine = self.engine
        tokens = image.shape[1]
        image_parts = list(zip(*modulation_vectors(engine, w, "img_mod.linear", conditions, 6)))  # noqa: B905
        text_parts = list(zip(*modulation_vectors(engine, w, "txt_mod.linear", [conditions[-1]], 6)))  # noqa: B905
        out = self.attended(w, image, text, (image_parts, text_parts), rope)
        image = self.added(w, "img", (image, out[:, :tokens]), self.image_chunks, image_parts)
        text = self.added(w, "txt", (text, out[:, tokens:]), self.text_chunks, text_parts)
        return image, text

    def attended(self, w: Weights, image: Tensor, text: Tensor, parts, rope) -> Tensor:
        """What all tokens attended to. Shapes: -> (B, N + T, D)."""
        engine = self.engine
        qs, ks, vs = [], [], []
        for chunk in self.image_chunks:
            q, k, v = self.heads(w, "img", image, chunk, parts[0])
            cos, sin = rope[0][chunk.start : chunk.stop], rope[1][chunk.start : chunk.stop]
            qs, ks, vs = [*qs, engine.rotate(q, cos, sin)], [*ks, engine.rotate(k, cos, sin)], [*vs, v]
        for chunk in self.text_chunks:
            q, k, v = self.heads(w, "txt", text, chunk, parts[1])
            qs, ks, vs = [*qs, q], [*ks, k], [*vs, v]
        return _attention(engine, self.config, self.layout, (qs, ks, vs))

    def heads(self, w: Weights, kind: str, x: Tensor, chunk: Chunk, parts) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value of one chunk, q and k normed."""
        engine = self.engine
        x = _normed(engine, x, chunk, parts[0], parts[1])
        q, k, v = split_heads(engine, linear(engine, w, kind + "_attn_qkv", x), self.config.heads)
        q = engine.rms_norm(q, w[kind + "_attn_q_norm.weight"])
        k = engine.rms_norm(k, w[kind + "_attn_k_norm.weight"])
        return q, k, v

    def added(self, w: Weights, kind: str, pair: tuple[Tensor, Tensor], chunks: Sequence[Chunk], parts) -> Tensor:
        """Tokens plus the projection of what they attended to, plus the MLP, each through its gate."""
        engine = self.engine
        pieces = []
        for chunk in chunks:
            x, attended = pair[0][:, chunk.start : chunk.stop], pair[1][:, chunk.start : chunk.stop]
            counts, gates = (chunk.stop - chunk.start,), (parts[2][chunk.group], parts[5][chunk.group])
            x = gated_sum(engine, x, linear(engine, w, kind + "_attn_proj", attended), counts, gates[:1])
            whole = Chunk(chunk.group, 0, chunk.stop - chunk.start)
            change = _normed(engine, x, whole, parts[3], parts[4])
            change = mlp(engine, w, (kind + "_mlp.fc1", kind + "_mlp.fc2"), change, "gelu_tanh")
            pieces = [*pieces, gated_sum(engine, x, change, counts, gates[1:])]
        return pieces[0] if len(pieces) == 1 else engine.concat(pieces, 1)


class ChunkedSingleBlock:
    """``models.dit.SingleBlock`` over chunks: its fused layer is used in two parts, before and after attention."""

    def __init__(self, engine: Engine, config: DiTConfig, layout, size: int) -> None:
        self.engine = engine
        self.config = config
        self.layout = layout
        self.chunks = cut((*layout.image_counts[:-1], layout.image_counts[-1] + layout.text_count), size)

    def __call__(self, w: Weights, x: Tensor, conditions, rope) -> Tensor:
        """Shapes: x (B, N + T, D), conditions (B, D) per image group, rope two (N + T, E)."""
        engine = self.engine
        parts = list(zip(*modulation_vectors(engine, w, "modulation.linear", conditions, 3)))  # noqa: B905
        out = self.attended(w, x, parts, rope)
        rows = 3 * x.shape[2]
        weight, bias = w["linear1.weight"][rows:], w["linear1.bias"][rows:]
        pieces = []
        for chunk in self.chunks:
            inner = engine.linear(_normed(engine, x, chunk, parts[0], parts[1]), weight, bias, "gelu_tanh")
            change = engine.concat([out[:, chunk.start : chunk.stop], inner], 2)
            change = linear(engine, w, "linear2", change)
            counts, gates = (chunk.stop - chunk.start,), (parts[2][chunk.group],)
            pieces = [*pieces, gated_sum(engine, x[:, chunk.start : chunk.stop], change, counts, gates)]
        return pieces[0] if len(pieces) == 1 else engine.concat(pieces, 1)

    def attended(self, w: Weights, x: Tensor, parts, rope) -> Tensor:
        """What all tokens attended to. Shapes: -> (B, N + T, D)."""
        engine = self.engine
        rows = 3 * x.shape[2]
        weight, bias = w["linear1.weight"][:rows], w["linear1.bias"][:rows]
        qs, ks, vs = [], [], []
        for chunk in self.chunks:
            inner = engine.linear(_normed(engine, x, chunk, parts[0], parts[1]), weight, bias)
            q, k, v = split_heads(engine, inner, self.config.heads)
            cos, sin = rope[0][chunk.start : chunk.stop], rope[1][chunk.start : chunk.stop]
            q = engine.rotate(engine.rms_norm(q, w["q_norm.weight"]), cos, sin)
            k = engine.rotate(engine.rms_norm(k, w["k_norm.weight"]), cos, sin)
            qs, ks, vs = [*qs, q], [*ks, k], [*vs, v]
        return _attention(engine, self.config, self.layout, (qs, ks, vs))


def _normed(engine: Engine, x: Tensor, chunk: Chunk, shifts, scales) -> Tensor:
    piece = x[:, chunk.start : chunk.stop]
    counts = (chunk.stop - chunk.start,)
    return normed_and_modulated(engine, piece, counts, (shifts[chunk.group],), (scales[chunk.group],))


def _attention(engine: Engine, config: DiTConfig, layout, pieces) -> Tensor:
    """Attention over all tokens of query, key and value in pieces. Shapes: pieces (B, n, A, E) -> (B, N, D)."""
    q, k, v = [part[0] if len(part) == 1 else engine.concat(part, 1) for part in pieces]
    out = engine.attention(q, k, v, scale=config.head_dim**-0.5, lengths=layout.lengths)
    return engine.reshape(out, (q.shape[0], q.shape[1], config.hidden_size))
