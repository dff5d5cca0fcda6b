"""The transformer's blocks a run of tokens at a time, so that what a block makes on the way stays small.

Queries, keys, values and what they attended to exist for all tokens, everything wider for one chunk. Each row is
computed as in ``models/dit.py``, but a matrix product over fewer rows may round differently in its last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.nn.linear import linear
from framewake.nn.mlp import mlp
from framewake.nn.modulation import gated_sum, modulation_vectors, normed_and_modulated


class Chunk(NamedTuple):
    """The tokens [start, stop), all of one token group."""

    group: int
    start: int
    stop: int


def cut(counts: Sequence[int], size: int) -> tuple[Chunk, ...]:
    """Token groups as equal chunks of at most ``size`` tokens; none reaches over the end of its group.

    A small chunk at the end would cost more than its share: weights are read for each.
    """
    chunks = []
    first = 0
    for group, count in enumerate(counts):
        pieces = -(-count // size)
        for piece in range(pieces):
            chunks.append(Chunk(group, first + piece * count // pieces, first + (piece + 1) * count // pieces))
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
        q = self.projected(w, 0, (image, text), parts, rope)
        k = self.projected(w, 1, (image, text), parts, rope)
        v = self.projected(w, 2, (image, text), parts, rope)
        return _attention(self.engine, self.config, self.layout, q, k, v)

    def projected(self, w: Weights, place: int, tokens: tuple[Tensor, Tensor], parts, rope) -> Tensor:
        """Queries (place 0), keys (1) or values (2) of all tokens. Shapes: -> (B, N + T, A, E)."""
        pieces = []
        for chunk in self.image_chunks:
            piece = self.heads(w, ("img", place), tokens[0], chunk, parts[0])
            if place < 2:
                cos, sin = rope[0][chunk.start : chunk.stop], rope[1][chunk.start : chunk.stop]
                piece = self.engine.rotate(piece, cos, sin)
            pieces = [*pieces, piece]
        for chunk in self.text_chunks:
            pieces = [*pieces, self.heads(w, ("txt", place), tokens[1], chunk, parts[1])]
        return pieces[0] if len(pieces) == 1 else self.engine.concat(pieces, 1)

    def heads(self, w: Weights, which: tuple[str, int], x: Tensor, chunk: Chunk, parts) -> Tensor:
        """Query, key or value of one chunk; query and key normed."""
        kind, place = which
        x = _normed(self.engine, x, chunk, parts[0], parts[1])
        x = _third(self.engine, x, w[kind + "_attn_qkv.weight"], w[kind + "_attn_qkv.bias"], place, self.config.heads)
        if place == 2:
            return x
        return self.engine.rms_norm(x, w[kind + ("_attn_q_norm.weight", "_attn_k_norm.weight")[place]])

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
        q = self.projected(w, 0, x, parts, rope)
        k = self.projected(w, 1, x, parts, rope)
        v = self.projected(w, 2, x, parts, rope)
        return _attention(self.engine, self.config, self.layout, q, k, v)

    def projected(self, w: Weights, place: int, x: Tensor, parts, rope) -> Tensor:
        """Queries (place 0), keys (1) or values (2) of all tokens. Shapes: -> (B, N + T, A, E)."""
        engine = self.engine
        pieces = []
        for chunk in self.chunks:
            piece = _normed(engine, x, chunk, parts[0], parts[1])
            piece = _third(engine, piece, w["linear1.weight"], w["linear1.bias"], place, self.config.heads)
            if place < 2:
                cos, sin = rope[0][chunk.start : chunk.stop], rope[1][chunk.start : chunk.stop]
                piece = engine.rms_norm(piece, w[("q_norm.weight", "k_norm.weight")[place]])
                piece = engine.rotate(piece, cos, sin)
            pieces = [*pieces, piece]
        return pieces[0] if len(pieces) == 1 else engine.concat(pieces, 1)


def _normed(engine: Engine, x: Tensor, chunk: Chunk, shifts, scales) -> Tensor:
    piece = x[:, chunk.start : chunk.stop]
    counts = (chunk.stop - chunk.start,)
    return normed_and_modulated(engine, piece, counts, (shifts[chunk.group],), (scales[chunk.group],))


def _third(engine: Engine, x: Tensor, weight: Tensor, bias: Tensor, place: int, heads: int) -> Tensor:
    """Queries, keys or values alone, from their rows of a fused layer: a view of all three would keep all three.

    Shapes: x (B, n, D), weight (3 D or more, D) -> (B, n, A, E).
    """
    batch, tokens, width = x.shape
    rows = slice(place * width, (place + 1) * width)
    return engine.reshape(engine.linear(x, weight[rows], bias[rows]), (batch, tokens, heads, width // heads))


def _attention(engine: Engine, config: DiTConfig, layout, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention over all tokens. Shapes: q, k, v (B, N, A, E) -> (B, N, D)."""
    out = engine.attention(q, k, v, scale=config.head_dim**-0.5, lengths=layout.lengths)
    return engine.reshape(out, (q.shape[0], q.shape[1], config.hidden_size))
