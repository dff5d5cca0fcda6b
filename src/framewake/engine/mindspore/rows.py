"""Clips on a CPU with their axes in another order, and convolutions that stand on it.

MindSpore copies a view number by number, 4 to 8 ns for each, but takes rows of memory by their numbers as fast as
memory is. And its convolution over frames is three times as slow as one over pictures, which sees the neighbouring
frames as further channels, or makes what each of them will add.
"""

from __future__ import annotations

import functools
import math

import mindspore as ms
import numpy as np
from mindspore import mint, ops
from mindspore.ops.primitive import constexpr

NARROW = 4  # channels
SUMMED = 64  # channels of a result: above, one product of all taps is as fast
FEW = 64  # rows: views of fewer pieces are left to be copied when they are read
COPIED = 1 << 24  # numbers that are copied at a time: 64 MiB in float32


# Operations with a setting: a new object for each call would cost twice what launching it does.
_TIMES = ops.MatMul()
_PLUS = ops.BiasAdd(data_format="NCDHW")
_SUM = ops.UnsortedSegmentSum()


def conv3d(x, weight, bias, stride):
    """Convolution as pictures: taps of time are further channels, of the result where that is narrow."""
    channels, taps, height, width = weight.shape[1:]
    if max(taps, height, width, *stride) == 1 and x.shape[0] == 1:
        return _mixed(x, weight, bias)
    rows, columns = x.shape[3] - height + 1, x.shape[4] - width + 1
    is_narrow = weight.shape[0] <= NARROW and height > 1 and width > 1
    if is_narrow and max(stride) == 1 and rows % 2 == 0 and columns % 2 == 0:
        return _four_cells(x, weight, bias)
    is_summed = taps > 1 and stride[0] == 1 and weight.shape[0] <= SUMMED
    if is_summed and 4 * weight.shape[0] <= channels * height * width:
        return _summed(x, weight, bias, stride[1:])
    return _stacked(x, weight, bias, stride)


def _summed(x, weight, bias, stride):
    """Each frame once, all taps of time as further channels of the result, which are then summed frame by frame.

    The library unfolds a picture for a matrix product: three times as many rows of it for a third of the numbers.
    """
    (batch, channels, length), (count, _, taps, height, width) = x.shape[:3], weight.shape
    kernel = ops.gather(mint.reshape(weight, (count * channels * taps, -1)), _taps_first(count, channels, taps), 0)
    kernel = mint.reshape(kernel, (taps * count, channels, height, width))
    flat = mint.reshape(x, (batch * channels * length, x.shape[3] * x.shape[4]))
    rows, columns = (x.shape[3] - height) // stride[0] + 1, (x.shape[4] - width) // stride[1] + 1
    frames = length - taps + 1
    each = max(1, COPIED // (batch * taps * count * rows * columns) + 1 - taps)
    parts = []
    for start in range(0, frames, each):
        made = min(each, frames - start)
        index = _frames_seen(batch, channels, length, 1, (start, made + taps - 1, 1))
        y = mint.reshape(ops.gather(flat, index, 0), (-1, channels, x.shape[3], x.shape[4]))
        y = mint.reshape(ops.conv2d(y, kernel, None, stride, "valid"), (-1, rows * columns))
        y = _SUM(y, _sums_of_taps(batch, made, taps, count), batch * count * made)
        parts = [*parts, mint.reshape(y, (batch, count, made, rows, columns))]
    y = parts[0] if len(parts) == 1 else mint.cat(parts, dim=2)
    return y if bias is None else _PLUS(y, bias)


def _stacked(x, weight, bias, stride):
    """Each frame of the result from the frames that its taps see, as further channels of one picture."""
    channels, taps, height, width = weight.shape[1:]
    batch, frames = x.shape[0], (x.shape[2] - taps) // stride[0] + 1
    flat = mint.reshape(x, (batch * channels * x.shape[2], x.shape[3] * x.shape[4]))
    kernel = mint.reshape(weight, (weight.shape[0], channels * taps, height, width))
    each = max(1, COPIED // (batch * channels * taps * x.shape[3] * x.shape[4]))
    parts = []
    for start in range(0, frames, each):
        count = min(each, frames - start)
        index = _frames_seen(batch, channels, x.shape[2], taps, (start, count, stride[0]))
        seen = mint.reshape(ops.gather(flat, index, 0), (batch * count, channels * taps, x.shape[3], x.shape[4]))
        y = ops.conv2d(seen, kernel, bias, stride[1:], "valid")
        height, width = y.shape[2], y.shape[3]
        y = ops.gather(mint.reshape(y, (-1, height * width)), _channels_first(batch, count, y.shape[1]), 0)
        parts = [*parts, mint.reshape(y, (batch, -1, count, height, width))]
    return parts[0] if len(parts) == 1 else mint.cat(parts, dim=2)


def _mixed(x, weight, bias):
    """One tap: a matrix product over all cells."""
    y = _TIMES(mint.reshape(weight, (weight.shape[0], -1)), mint.reshape(x, (x.shape[1], -1)))
    y = mint.reshape(y, (1, weight.shape[0], *x.shape[2:]))
    return y if bias is None else _PLUS(y, bias)


def _four_cells(x, weight, bias):
    # Few channels out leave the kernel idle: four neighbouring cells at once are four times as many, 16 taps
    # instead of 4 times 9.
    taps = [ops.pad(weight, (j, 1 - j, i, 1 - i)) for i in range(2) for j in range(2)]
    several = None if bias is None else mint.cat([bias] * 4, dim=0)
    y = conv3d(x, mint.cat(taps, dim=0), several, (1, 2, 2))
    return interleave(y, (1, 2, 2), is_staggered=False)


def interleave(x, factors, start=0, is_staggered=True):
    """The contract's ``interleave``; without ``is_staggered``, all places begin in the first row and column."""
    batch, channels, frames, height, width = x.shape
    channels = channels // (factors[0] * factors[1] * factors[2])
    late = (factors[1] - 1, factors[2] - 1) if is_staggered else (0, 0)
    rows, columns = (height - late[0]) * factors[1], (width - late[1]) * factors[2]
    index = _rows_of_places((batch, channels, frames, height), factors, start, is_staggered)
    y = ops.gather(mint.reshape(x, (-1, width)), index, 0)
    if factors[2] > 1:
        y = ops.gather(mint.reshape(y, (-1, factors[2] * width)), _columns(columns, factors[2], width, late[1]), 1)
    return mint.reshape(y, (batch, channels, frames * factors[0] - start, rows, columns))


def repeat_edges(x, widths):
    """The last axes grown by their edges: columns are joined, all other axes are one choice of rows."""
    shape, before, after = tuple(x.shape), widths[-1][0], widths[-1][1]
    columns = shape[-1] + before + after
    if columns > shape[-1]:
        x = mint.cat([x[..., :1]] * before + [x] + [x[..., shape[-1] - 1 :]] * after, dim=len(shape) - 1)
    grown = tuple([(0, 0)] * (len(shape) - len(widths)) + [(pair[0], pair[1]) for pair in widths[:-1]])
    sizes = [shape[i] + grown[i][0] + grown[i][1] for i in range(len(grown))]
    if sum(sizes) > sum(shape[:-1]):
        x = ops.gather(mint.reshape(x, (-1, columns)), _rows_with_edges(shape[:-1], grown), 0)
    return mint.reshape(x, (*sizes, columns))


def split(x, count, axis):
    """Equal pieces of an axis, each without gaps."""
    shape = (*x.shape[:axis], x.shape[axis] // count, *x.shape[axis + 1 :])
    around = math.prod(shape[:axis])
    flat = mint.reshape(x, (around * count, -1))
    return tuple([mint.reshape(ops.gather(flat, _each(around, count, i), 0), shape) for i in range(count)])


def swapped(x):
    """The second and the third of four axes exchanged, without gaps."""
    batch, first, second, width = x.shape
    if first == 1 or second == 1:
        return mint.reshape(x, (batch, second, first, width))
    y = ops.gather(mint.reshape(x, (-1, width)), _channels_first(batch, first, second), 0)
    return mint.reshape(y, (batch, second, first, width))


def rotate(x, cos, sin):
    """The contract's ``rotate``, with tables of all heads and the quarter turn as a matrix product."""
    batch, tokens, heads, width = x.shape
    flat, index = mint.reshape(x, (-1, width)), _tokens_of_rows(batch, tokens, heads)
    turned = _TIMES(flat, _quarter_turn(width)) * ops.gather(sin, index, 0)
    return mint.reshape(flat * ops.gather(cos, index, 0) + turned, (batch, tokens, heads, width))


# --- which row goes where: constants of a compiled graph too


@constexpr
def _frames_seen(batch, channels, frames, taps, these):
    return _frames_seen_by(batch, channels, frames, taps, these)


@constexpr
def _channels_first(batch, frames, channels):
    return _frames_last(batch, frames, channels)


@constexpr
def _taps_first(count, channels, taps):
    return _taps_before(count, channels, taps)


@constexpr
def _sums_of_taps(batch, frames, taps, channels):
    return _sums(batch, frames, taps, channels)


@constexpr
def _rows_of_places(shape, factors, start, is_staggered):
    return _rows(shape, factors, start, is_staggered)


@constexpr
def _rows_with_edges(shape, widths):
    return _rows_grown(shape, widths)


@constexpr
def _each(around, count, place):
    return _places(around, count, place)


@constexpr
def _tokens_of_rows(batch, tokens, heads):
    return _tokens(batch, tokens, heads)


@constexpr
def _quarter_turn(width):
    return _turn(width)


@constexpr
def _columns(count, factor, width, late):
    place = np.arange(count) % factor
    return _tensor(place * width + np.arange(count) // factor + (place if late else 0))


@functools.lru_cache(maxsize=64)
def _frames_seen_by(batch, channels, frames, taps, these):
    start, count, step = these
    first = np.arange(batch * channels).reshape(batch, 1, channels, 1) * frames
    return _tensor(first + (start + np.arange(count).reshape(-1, 1, 1)) * step + np.arange(taps))


@functools.lru_cache(maxsize=64)
def _frames_last(batch, frames, channels):
    return _tensor(np.arange(batch * frames * channels).reshape(batch, frames, channels).transpose(0, 2, 1))


@functools.lru_cache(maxsize=64)
def _taps_before(count, channels, taps):
    return _tensor(np.arange(count * channels * taps).reshape(count, channels, taps).transpose(2, 0, 1))


@functools.lru_cache(maxsize=64)
def _sums(batch, frames, taps, channels):
    # of a picture's row: where in (batch, channels, frames) it is added; below zero where it belongs to no frame
    frame = np.arange(frames + taps - 1).reshape(-1, 1, 1) - np.arange(taps).reshape(-1, 1)
    place = (np.arange(batch).reshape(-1, 1, 1, 1) * channels + np.arange(channels)) * frames + frame
    return _tensor(np.where((frame >= 0) & (frame < frames), place, -1))


@functools.lru_cache(maxsize=16)
def _rows(shape, factors, start, is_staggered):
    batch, channels, frames, height = shape
    times, sides = np.arange(start, frames * factors[0]), height - (factors[1] - 1 if is_staggered else 0)
    rows, columns = np.arange(sides * factors[1]), np.arange(factors[2])
    at = (times % factors[0]).reshape(-1, 1, 1) * factors[1] + (rows % factors[1]).reshape(-1, 1)
    place = at * factors[2] + columns
    clip = np.arange(batch).reshape(-1, 1, 1, 1, 1) * (factors[0] * factors[1] * factors[2])
    channel = np.arange(channels).reshape(-1, 1, 1, 1)
    frame = ((clip + place) * channels + channel) * frames + (times // factors[0]).reshape(-1, 1, 1)
    late = rows % factors[1] if is_staggered else 0
    return _tensor(frame * height + (rows // factors[1] + late).reshape(-1, 1))


@functools.lru_cache(maxsize=64)
def _rows_grown(shape, widths):
    numbers = np.arange(math.prod(shape)).reshape(shape)
    return _tensor(np.pad(numbers, widths, mode="edge"))


@functools.lru_cache(maxsize=64)
def _places(around, count, place):
    return _tensor(np.arange(around) * count + place)


@functools.lru_cache(maxsize=16)
def _tokens(batch, tokens, heads):
    return _tensor(np.broadcast_to(np.arange(tokens).reshape(-1, 1), (batch, tokens, heads)))


@functools.lru_cache(maxsize=16)
def _turn(width):
    turn = np.zeros((width, width), np.float32)
    even = np.arange(0, width, 2)
    turn[even + 1, even], turn[even, even + 1] = -1.0, 1.0
    return ms.Tensor.from_numpy(turn)


def _tensor(numbers):
    return ms.Tensor.from_numpy(np.ascontiguousarray(numbers, dtype=np.int32).reshape(-1))
