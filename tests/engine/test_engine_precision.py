"""Layers in float16 and bfloat16: the result keeps the type, the statistics are float32."""

from __future__ import annotations

import numpy as np
import numpy_layers as layers
import pytest

LIMITS = {"float16": 2e-3, "bfloat16": 1.6e-2}  # two units of the last place, of the largest magnitude


def layer_calls(engine):
    """Name -> shapes of the inputs, the engine's call, numpy's."""
    e = engine
    return {
        "linear": ([(5, 32), (8, 32), (8,)], e.linear, lambda x, w, b: x @ w.T + b),
        "matmul": ([(2, 5, 32), (2, 32, 4)], e.matmul, np.matmul),
        "layer_norm": ([(5, 64), (64,), (64,)], e.layer_norm, layers.layer_norm),
        "rms_norm": ([(5, 64), (64,)], e.rms_norm, layers.rms_norm),
        "group_norm": (
            [(1, 8, 2, 3, 4), (8,), (8,)],
            lambda x, w, b: e.group_norm(x, 4, w, b),
            lambda x, w, b: layers.group_norm(x, 4, w, b),
        ),
        "conv2d": (
            [(1, 4, 6, 6), (3, 4, 3, 3), (3,)],
            e.conv2d,
            lambda x, w, b: layers.convolution(x, w, b, (1, 1)),
        ),
        "conv3d": (
            [(1, 4, 3, 6, 6), (3, 4, 3, 3, 3), (3,)],
            e.conv3d,
            lambda x, w, b: layers.convolution(x, w, b, (1, 1, 1)),
        ),
        "window": (
            [(1, 3, 2, 4, 8), (1, 8), (1, 8), (1, 8, 2, 4, 6)],
            lambda x, g, s, b: e.window(
                e.permute(x, (0, 4, 1, 2, 3)), e.cast(g, "float32"), e.cast(s, "float32"), b, "silu"
            ),
            lambda x, g, s, b: layers.window(x.transpose(0, 4, 1, 2, 3), g, s, b, has_silu=True),
        ),
        "silu": ([(5, 7)], e.silu, lambda x: x * layers.sigmoid(x)),
        "gelu": ([(5, 7)], lambda x: e.gelu(x, "tanh"), layers.gelu_tanh),
        "softmax": ([(5, 7)], e.softmax, layers.softmax),
        "attention": (
            [(2, 7, 3, 16), (2, 9, 3, 16), (2, 9, 3, 16)],
            lambda q, k, v: e.attention(q, k, v, scale=0.25, lengths=(4, 9)),
            lambda q, k, v: layers.attention(q, k, v, scale=0.25, lengths=(4, 9)),
        ),
        "interleave": (
            [(1, 8, 2, 3, 4)],
            lambda x: e.interleave(x, (2, 1, 2), 1),
            lambda x: layers.interleave(x, (2, 1, 2))[:, :, 1:],
        ),
        "pad": (
            [(1, 2, 3, 4)],
            lambda x: e.pad(x, [(1, 1)], "replicate"),
            lambda x: np.pad(x, [(0, 0)] * 3 + [(1, 1)], "edge"),
        ),
    }


NAMES = tuple(layer_calls(type("Names", (), {"__getattr__": lambda self, name: name})()))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", LIMITS)
def test_half_precision(engine, dtype, name):
    shapes, call, expected = layer_calls(engine)[name]
    random = np.random.default_rng(2)
    tensors = [engine.asarray(random.standard_normal(shape).astype(np.float32), dtype) for shape in shapes]
    out = call(*tensors)
    assert engine.dtype(out) == dtype
    wanted = expected(*[engine.numpy(x).astype(np.float64) for x in tensors])
    difference = np.abs(engine.numpy(out).astype(np.float64) - wanted).max()
    assert difference <= LIMITS[dtype] * max(1.0, np.abs(wanted).max())


def test_statistics_of_half_precision_do_not_overflow(engine):
    """Sums and squares here are beyond float16's 65504."""
    random = np.random.default_rng(4)
    array = (300 + random.standard_normal((1, 2, 64, 64)) * 40).astype(np.float16)
    one, zero = np.ones(2, np.float16), np.zeros(2, np.float16)
    x, weight, bias = engine.asarray(array), engine.asarray(one), engine.asarray(zero)
    grouped = engine.numpy(engine.group_norm(x, 1, weight, bias))
    assert np.abs(grouped - layers.group_norm(array.astype(np.float64), 1, one, zero)).max() <= 8e-3
    rows = engine.reshape(x, (2, 4096))
    normed = engine.numpy(engine.layer_norm(rows))
    assert np.abs(normed - layers.layer_norm(array.reshape(2, 4096).astype(np.float64))).max() <= 8e-3
    ones = engine.full((4096,), 1.0, "float16")
    root = engine.numpy(engine.rms_norm(rows, ones))
    assert np.abs(root - layers.rms_norm(array.reshape(2, 4096).astype(np.float64), 1.0)).max() <= 4e-3


@pytest.mark.parametrize("width", [32, 31])
def test_group_norm_of_many_cells_far_from_zero(engine, width):
    """Squares of half a million cells added up in float32, in the layout that convolutions leave, cost four digits."""
    random = np.random.default_rng(4)
    x = (random.standard_normal((1, 8, 17, 96, width)) * 0.3 + 2).astype(np.float32)
    weight, bias = random.standard_normal((2, 8)).astype(np.float32)
    same = np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1, 1)
    copied = engine.conv3d(engine.asarray(x), engine.asarray(same), engine.zeros((8,)))
    found = engine.numpy(engine.group_norm(copied, 2, engine.asarray(weight), engine.asarray(bias)))
    expected = layers.group_norm(x.astype(np.float64), 2, weight, bias)
    assert np.abs(found - expected).max() <= 3e-6 * np.abs(expected).max()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_moments_of_many_cells_far_from_zero(engine, dtype):
    """Half a million cells a channel, as a slab has at the most, and a mean ten times the spread."""
    random = np.random.default_rng(5)
    x = engine.asarray((random.standard_normal((1, 8, 256, 256, 8)) * 0.3 + 3).astype(np.float32), dtype)
    found = engine.moments(engine.permute(x, (0, 4, 1, 2, 3)))
    wide = engine.numpy(x).astype(np.float64)
    for part, expected in zip(found, (wide.mean((1, 2, 3)), wide.var((1, 2, 3))), strict=True):
        assert engine.dtype(part) == "float32"
        assert np.abs(engine.numpy(part) / expected - 1).max() <= 1e-5
