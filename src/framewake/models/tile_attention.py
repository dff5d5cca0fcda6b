"""Sparse attention over tiles of tokens: each tile sees its neighbours, and those that are most like it.

The rule is executed exactly: what a tile does not see is not computed, and padding that it sees is.
Source: specification of 1.5, section 14.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from framewake.config15 import TileRule
from framewake.engine.contract import Engine, Tensor

Grid = tuple[int, int, int]


class Tiling(NamedTuple):
    """Image tokens of a grid in whole tiles, and the text behind them in blocks of the same size."""

    rule: TileRule
    grid: Grid
    text: int

    @property
    def tiles(self) -> Grid:
        """Tiles along frames, height and width."""
        frames, height, width = (-(-size // step) for size, step in zip(self.grid, self.rule.tile, strict=True))
        return frames, height, width

    @property
    def images(self) -> int:
        """Tiles of the image."""
        return self.tiles[0] * self.tiles[1] * self.tiles[2]

    @property
    def blocks(self) -> int:
        """Tiles of the image and blocks of text."""
        return self.images + -(-self.text // self.rule.tokens)


class TileAttending:
    """An engine whose ``attention`` goes by tiles; the rest is the engine's own.

    ``lengths`` are host integers: what a tile sees is decided on the host.
    """

    def __init__(self, engine: Engine, rule: TileRule, grid: Grid) -> None:
        self._engine = engine
        self._rule = rule
        self._grid = grid

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, *, scale: float, lengths: Sequence[int]) -> Tensor:
        """Shapes: q, k, v (B, N + T, A, E), the image's tokens and the text's -> (B, N + T, A, E)."""
        images = self._grid[0] * self._grid[1] * self._grid[2]
        tiling, valid = Tiling(self._rule, self._grid, q.shape[1] - images), [length - images for length in lengths]
        return tile_attention(self._engine, q, k, v, tiling=tiling, valid=valid, scale=scale)[0]


def tile_attention(
    engine: Engine, q: Tensor, k: Tensor, v: Tensor, *, tiling: Tiling, valid: Sequence[int], scale: float
) -> tuple[Tensor, np.ndarray]:
    """Attention of image and text, and which blocks see each other.

    Shapes: q, k, v (B, N + T, A, E), ``valid`` text tokens of each sample -> (B, N + T, A, E), bool (B, A, M, M).
    Precision: likeness in float32.
    """
    batch, _, heads, _ = q.shape
    q, k, v = (in_blocks(engine, x, tiling) for x in (q, k, v))
    mask = block_mask(*(block_means(engine, x, tiling) for x in (q, k)), tiling=tiling, valid=valid)
    samples = []
    for sample in range(batch):
        columns = [
            _of_head(engine, [x[sample : sample + 1, :, :, head : head + 1] for x in (q, k, v)], seen, scale)
            for head, seen in zip(range(heads), mask[sample], strict=True)
        ]
        samples.append(columns[0] if heads == 1 else engine.concat(columns, 3))
    out = samples[0] if batch == 1 else engine.concat(samples, 0)
    return in_sequence(engine, out, tiling), mask


def _of_head(engine: Engine, parts: list[Tensor], seen: np.ndarray, scale: float) -> Tensor:
    """One head of one sample, block by block. Shapes: (1, M, t, 1, E) each, seen (M, M) -> (1, M, t, 1, E)."""
    q, k, v = parts
    _, count, size, _, width = q.shape
    rows = []
    for number in range(count):
        index = engine.asarray(np.flatnonzero(seen[number]).astype(np.int64))
        keys, values = (engine.reshape(engine.take(x, index, 1), (1, -1, 1, width)) for x in (k, v))
        rows.append(engine.attention(q[:, number], keys, values, scale=scale))
    return engine.reshape(engine.concat(rows, 1), (1, count, size, 1, width))


def in_blocks(engine: Engine, x: Tensor, tiling: Tiling) -> Tensor:
    """Tokens by blocks: zeros fill the last tiles of an axis, the last token the last block of text.

    Shapes: (B, N + T, A, E) -> (B, M, t, A, E).
    """
    batch, _, heads, width = x.shape
    count, tile, tiles = int(np.prod(tiling.grid)), tiling.rule.tile, tiling.tiles
    image = engine.reshape(x[:, :count], (batch, *tiling.grid, heads * width))
    spare = [(0, n * step - size) for n, step, size in zip(tiles, tile, tiling.grid, strict=True)]
    if any(after for _, after in spare):
        image = engine.pad(image, [*spare, (0, 0)])
    cuts = [number for pair in zip(tiles, tile, strict=True) for number in pair]
    image = engine.permute(engine.reshape(image, (batch, *cuts, heads * width)), (0, 1, 3, 5, 2, 4, 6, 7))
    image = engine.reshape(image, (batch, tiling.images * tiling.rule.tokens, heads * width))
    text = engine.reshape(x[:, count:], (batch, tiling.text, heads * width))
    missing = (tiling.blocks - tiling.images) * tiling.rule.tokens - tiling.text
    if missing:
        last = engine.broadcast_to(text[:, tiling.text - 1 :], (batch, missing, heads * width))
        text = engine.concat([text, last], 1)
    return engine.reshape(engine.concat([image, text], 1), (batch, tiling.blocks, tiling.rule.tokens, heads, width))


def in_sequence(engine: Engine, x: Tensor, tiling: Tiling) -> Tensor:
    """Blocks back into image and text tokens. Shapes: (B, M, t, A, E) -> (B, N + T, A, E)."""
    batch, _, size, heads, width = x.shape
    frames, height, rows = tiling.grid
    image = engine.reshape(x[:, : tiling.images], (batch, *tiling.tiles, *tiling.rule.tile, heads * width))
    image = engine.permute(image, (0, 1, 4, 2, 5, 3, 6, 7))
    whole = [n * step for n, step in zip(tiling.tiles, tiling.rule.tile, strict=True)]
    image = engine.reshape(image, (batch, *whole, heads * width))[:, :frames, :height, :rows]
    image = engine.reshape(image, (batch, frames * height * rows, heads, width))
    text = engine.reshape(x[:, tiling.images :], (batch, (tiling.blocks - tiling.images) * size, heads, width))
    return engine.concat([image, text[:, : tiling.text]], 1)


def block_means(engine: Engine, x: Tensor, tiling: Tiling) -> np.ndarray:
    """The mean of each image tile, padding included, as a direction. Shapes: (B, M, t, A, E) -> (B, A, m, E)."""
    means = engine.numpy(engine.mean(engine.cast(x[:, : tiling.images], "float32"), (2,))).transpose(0, 2, 1, 3)
    return means / np.maximum(np.linalg.norm(means, axis=-1, keepdims=True), np.float32(1e-12))


def block_mask(queries: np.ndarray, keys: np.ndarray, *, tiling: Tiling, valid: Sequence[int]) -> np.ndarray:
    """Which blocks see each other. Shapes: directions (B, A, m, E) each -> bool (B, A, M, M), queries by keys."""
    batch, heads, images, _ = queries.shape
    mask = np.zeros((batch, heads, tiling.blocks, tiling.blocks), dtype=bool)
    mask[:, :, :images, :images] = near(tiling.tiles, tiling.rule.window) | chosen(queries, keys, tiling.rule)
    mask[:, :, images:] = mask[:, :, :, images:] = True
    for sample, count in enumerate(valid):
        closed = images + max(1, -(-count // tiling.rule.tokens))
        mask[sample, :, closed:] = mask[sample, :, :, closed:] = False
        for block in range(closed, tiling.blocks):
            mask[sample, :, block, block] = True
    return mask


def near(tiles: Grid, window: Grid) -> np.ndarray:
    """Tiles within a window, which is moved inwards at the edges. Shapes: -> bool (m, m)."""
    places = np.asarray(list(itertools.product(*map(range, tiles))))
    half = np.asarray(window) // 2
    centres = np.minimum(np.maximum(places, half), np.asarray(tiles) - 1 - half)
    return (np.abs(centres[:, None] - places[None]) <= half).all(axis=-1)


def chosen(queries: np.ndarray, keys: np.ndarray, rule: TileRule) -> np.ndarray:
    """The tiles that each tile keeps beside its neighbours. Shapes: (B, A, m, E) each -> bool (B, A, m, m)."""
    count = queries.shape[2]
    if count <= rule.kept:
        return np.ones((*queries.shape[:2], count, count), dtype=bool)
    likeness = (queries @ keys.transpose(0, 1, 3, 2) + 1) / 2
    among = (keys @ keys.transpose(0, 1, 3, 2) + 1) / 2
    own = np.diagonal(among, axis1=2, axis2=3)
    common = (among.sum(axis=2) - own) / (count - 1)
    score = rule.likeness * likeness - (1 - rule.likeness) * common[:, :, None, :]
    best = np.argsort(-score, axis=-1, kind="stable")[..., : rule.kept]
    mask = np.zeros(score.shape, dtype=bool)
    np.put_along_axis(mask, best, values=True, axis=-1)
    return mask
