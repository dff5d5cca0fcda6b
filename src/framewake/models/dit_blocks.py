"""The transformer's two kinds of block, over all tokens at once or over one chunk of them after another.

At once: a fused layer is one product, and normed tokens are kept for all their uses. In chunks: queries, keys, values
and what they attended to exist for all tokens, everything wider for one chunk. Each row is the same computation, but a
product over fewer rows may round differently in its last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.manner import Manner
from framewake.nn.attention import split_heads
from framewake.nn.linear import linear
from framewake.nn.mlp import mlp
from framewake.nn.modulation import gated_sum, modulation_vectors, normed_and_modulated

# The layers of a block that make queries, keys and values: the fused one, and the norms of queries and keys.
IMAGE = ("img_attn_qkv", "img_attn_q_norm.weight", "img_attn_k_norm.weight")
TEXT = ("txt_attn_qkv", "txt_attn_q_norm.weight", "txt_attn_k_norm.weight")
JOINED = ("linear1", "q_norm.weight", "k_norm.weight")


class TokenCounts(NamedTuple):
    """The host numbers of a call that a compiled block has built in.

    ``image`` are the sizes of the image token groups, ``text`` the text tokens that are left after trimming,
    ``lengths`` the valid tokens (image and text) per sample, or None when all are. ``grid`` is that of all image
    tokens where attention goes by their places.
    """

    image: tuple[int, ...]
    text: int
    lengths: tuple[int, ...] | None
    grid: tuple[int, int, int] | None = None


class Chunk(NamedTuple):
    """The tokens [start, stop), and how many of each token group are among them."""

    start: int
    stop: int
    counts: tuple[int, ...]


def cut(counts: Sequence[int], size: int | None) -> tuple[Chunk, ...]:
    """Token groups as one chunk, or as equal ones of at most ``size`` tokens; none reaches over the end of its group.

    A small chunk at the end would cost more than its share: weights are read for each.
    """
    if size is None:
        return (Chunk(0, sum(counts), tuple(counts)),)
    chunks = []
    first = 0
    for group, count in enumerate(counts):
        pieces = -(-count // size)
        for piece in range(pieces):
            start, stop = piece * count // pieces, (piece + 1) * count // pieces
            inside = tuple(stop - start if place == group else 0 for place in range(len(counts)))
            chunks.append(Chunk(first + start, first + stop, inside))
        first += count
    return tuple(chunks)


class _Block:
    """What both kinds share; where ``manner.chunk_tokens`` is None, all tokens are one chunk."""

    bodies: tuple[str, ...]  # methods that work on one chunk

    def __init__(self, engine: Engine, config: DiTConfig, counts: TokenCounts, manner: Manner) -> None:
        self.engine = engine
        self.config = config
        self.counts = counts
        self.is_whole = manner.chunk_tokens is None
        # Queries (0), keys (1) and values (2) that are made at once: a view of all three would keep all three.
        self.thirds = ((0, 1, 2),) if manner.chunk_tokens is None else ((0,), (1,), (2,))
        if manner.recomputes:
            for name in self.bodies:
                setattr(self, name, engine.recompute(getattr(self, name)))

    def normed(self, x: Tensor, chunk: Chunk, parts) -> Tensor:
        """The tokens of a chunk, normed and modulated. Shapes: x (B, N, D) -> (B, n, D)."""
        return normed_and_modulated(self.engine, _within(x, chunk), chunk.counts, parts[0], parts[1])

    def heads(self, w: Weights, names: tuple[str, str, str], thirds: tuple[int, ...], x: Tensor) -> list[Tensor]:
        """Some of queries, keys and values of normed tokens, from their rows of a fused layer; q and k normed.

        Shapes: x (B, n, D) -> (B, n, A, E) each.
        """
        engine, width = self.engine, x.shape[2]
        first, last = thirds[0] * width, (thirds[-1] + 1) * width
        weight, bias = w[names[0] + ".weight"], w[names[0] + ".bias"]
        if last - first < weight.shape[0]:
            weight, bias = weight[first:last], bias[first:last]
        made = split_heads(engine, engine.linear(x, weight, bias), self.config.heads, count=len(thirds))
        return [
            engine.rms_norm(made[place], w[names[1 + thirds[place]]]) if thirds[place] < 2 else made[place]
            for place in range(len(thirds))
        ]

    def turned(self, made: list[Tensor], thirds: tuple[int, ...], chunk: Chunk, rope) -> list[Tensor]:
        """The same with queries and keys turned to their places."""
        cos, sin = rope
        if chunk.stop - chunk.start < cos.shape[0]:
            cos, sin = cos[chunk.start : chunk.stop], sin[chunk.start : chunk.stop]
        return [
            self.engine.rotate(made[place], cos, sin) if thirds[place] < 2 else made[place]
            for place in range(len(thirds))
        ]

    def placed(self, w: Weights, names, thirds: tuple[int, ...], x: Tensor, chunk: Chunk, parts, rope) -> list[Tensor]:
        """Some of queries, keys and values of a chunk of tokens; text among images has no places."""
        made = self.heads(w, names, thirds, self.normed(x, chunk, parts))
        return made if rope is None else self.turned(made, thirds, chunk, rope)

    def attention(self, made: list[Tensor], lengths) -> Tensor:
        """Attention over all tokens. Shapes: queries, keys and values (B, N, A, E) -> (B, N, D)."""
        q, k, v = made
        lengths = self.counts.lengths if lengths is None else lengths
        out = self.engine.attention(q, k, v, scale=self.config.head_dim**-0.5, lengths=lengths)
        return self.engine.reshape(out, (q.shape[0], q.shape[1], self.config.hidden_size))

    def joined(self, pieces: list[Tensor]) -> Tensor:
        """What was made of one chunk after another."""
        return pieces[0] if len(pieces) == 1 else self.engine.concat(pieces, 1)


class DoubleBlock(_Block):
    """Image and text with their own weights, joined in attention (specification, section 4.4)."""

    bodies = ("placed", "changed")

    def __init__(self, engine: Engine, config: DiTConfig, counts: TokenCounts, manner: Manner) -> None:
        super().__init__(engine, config, counts, manner)
        self.image_chunks = cut(counts.image, manner.chunk_tokens)
        self.text_chunks = cut((counts.text,), manner.chunk_tokens)

    def __call__(
        self, w: Weights, image: Tensor, text: Tensor, conditions, rope, *, lengths=None
    ) -> tuple[Tensor, Tensor]:
        """``lengths`` in place of those that are built in.

        Shapes: image (B, N, D), text (B, T, D), conditions (B, D) per image group, rope two (N, E).
        """
        engine, tokens = self.engine, image.shape[1]
        # Text has one group, and it is the last condition's: the real timestep.
        image_parts = list(zip(*modulation_vectors(engine, w, "img_mod.linear", conditions, 6)))  # noqa: B905
        text_parts = list(zip(*modulation_vectors(engine, w, "txt_mod.linear", [conditions[-1]], 6)))  # noqa: B905
        out = self.attention(self.all_heads(w, (image, text), (image_parts, text_parts), rope), lengths)
        image = self.added(w, "img", (image, out[:, :tokens]), self.image_chunks, image_parts)
        text = self.added(w, "txt", (text, out[:, tokens:]), self.text_chunks, text_parts)
        return image, text

    def all_heads(self, w: Weights, tokens: tuple[Tensor, Tensor], parts, rope) -> list[Tensor]:
        """Queries, keys and values of all tokens. Shapes: -> (B, N + T, A, E) each."""
        made: list[Tensor] = []
        for thirds in self.thirds:
            made = [*made, *self.projected(w, thirds, tokens, parts, rope)]
        return made

    def projected(self, w: Weights, thirds: tuple[int, ...], tokens: tuple[Tensor, Tensor], parts, rope):
        """Some of queries, keys and values of all tokens. Shapes: -> (B, N + T, A, E) each."""
        pieces = []
        for chunk in self.image_chunks:
            pieces = [*pieces, self.placed(w, IMAGE, thirds, tokens[0], chunk, parts[0], rope)]
        for chunk in self.text_chunks:
            pieces = [*pieces, self.placed(w, TEXT, thirds, tokens[1], chunk, parts[1], None)]
        return [self.joined([piece[place] for piece in pieces]) for place in range(len(thirds))]

    def added(self, w: Weights, kind: str, pair: tuple[Tensor, Tensor], chunks: tuple[Chunk, ...], parts) -> Tensor:
        """Tokens plus the projection of what they attended to, plus the MLP, each through its gate."""
        pieces: list[Tensor] = []
        for chunk in chunks:
            pieces = [*pieces, self.changed(w, kind, pair, chunk, parts)]
        return self.joined(pieces)

    def changed(self, w: Weights, kind: str, pair: tuple[Tensor, Tensor], chunk: Chunk, parts) -> Tensor:
        """The same for one chunk."""
        engine = self.engine
        x, attended = _within(pair[0], chunk), _within(pair[1], chunk)
        x = gated_sum(engine, x, linear(engine, w, kind + "_attn_proj", attended), chunk.counts, parts[2])
        change = normed_and_modulated(engine, x, chunk.counts, parts[3], parts[4])
        change = mlp(engine, w, (kind + "_mlp.fc1", kind + "_mlp.fc2"), change, "gelu_tanh")
        return gated_sum(engine, x, change, chunk.counts, parts[5])


class SingleBlock(_Block):
    """Attention and MLP side by side over all tokens, image first (specification, section 4.4).

    Its fused layer is used in two parts, before and after attention, so that an engine may apply the activation in
    the product.
    """

    bodies = ("placed", "changed")

    def __init__(self, engine: Engine, config: DiTConfig, counts: TokenCounts, manner: Manner) -> None:
        super().__init__(engine, config, counts, manner)
        self.chunks = cut((*counts.image[:-1], counts.image[-1] + counts.text), manner.chunk_tokens)

    def __call__(self, w: Weights, x: Tensor, conditions, rope, *, lengths=None) -> Tensor:
        """``lengths`` in place of those that are built in.

        Shapes: x (B, N + T, D), conditions (B, D) per image group, rope two (N + T, E).
        """
        parts = list(zip(*modulation_vectors(self.engine, w, "modulation.linear", conditions, 3)))  # noqa: B905
        kept = self.normed(x, self.chunks[0], parts) if self.is_whole else None
        out = self.attention(self.all_heads(w, (x, kept), parts, rope), lengths)
        pieces: list[Tensor] = []
        for chunk in self.chunks:
            pieces = [*pieces, self.changed(w, (x, kept), out, chunk, parts)]
        return self.joined(pieces)

    def changed(self, w: Weights, pair: tuple[Tensor, Tensor | None], out: Tensor, chunk: Chunk, parts) -> Tensor:
        """A chunk of tokens plus the second layer of what they attended to and of their MLP, through its gate."""
        engine, x = self.engine, pair[0]
        rows = 3 * x.shape[2]
        weight, bias = w["linear1.weight"][rows:], w["linear1.bias"][rows:]
        normed = self.normed(x, chunk, parts) if pair[1] is None else pair[1]
        change = engine.concat([_within(out, chunk), engine.linear(normed, weight, bias, "gelu_tanh")], 2)
        change = linear(engine, w, "linear2", change)
        return gated_sum(engine, _within(x, chunk), change, chunk.counts, parts[2])

    def all_heads(self, w: Weights, pair: tuple[Tensor, Tensor | None], parts, rope) -> list[Tensor]:
        """Queries, keys and values of all tokens; the pair is the tokens and, where they are kept, the normed ones."""
        made: list[Tensor] = []
        for thirds in self.thirds:
            made = [*made, *self.projected(w, thirds, pair, parts, rope)]
        return made

    def projected(self, w: Weights, thirds: tuple[int, ...], pair: tuple[Tensor, Tensor | None], parts, rope):
        """Some of queries, keys and values of all tokens. Shapes: -> (B, N + T, A, E) each."""
        pieces = []
        for chunk in self.chunks:
            if pair[1] is None:
                pieces = [*pieces, self.placed(w, JOINED, thirds, pair[0], chunk, parts, rope)]
            else:
                pieces = [*pieces, self.turned(self.heads(w, JOINED, thirds, pair[1]), thirds, chunk, rope)]
        return [self.joined([piece[place] for piece in pieces]) for place in range(len(thirds))]


def _within(x: Tensor, chunk: Chunk) -> Tensor:
    """The tokens of a chunk. Shapes: x (B, N, D) -> (B, n, D)."""
    return x if chunk.stop - chunk.start == x.shape[1] else x[:, chunk.start : chunk.stop]
