"""Every operation of the contract against numpy in float64, on every installed engine."""

from __future__ import annotations

import importlib
import inspect
from typing import Any, NamedTuple

import numpy as np
import numpy_layers as layers
import pytest

from framewake.engine.contract import Engine
from framewake.errors import EngineError


class Case(NamedTuple):
    """One call: ``function(engine, *tensors)`` should give ``expected(*arrays)``."""

    operation: str
    inputs: list[Any]  # shapes of float inputs, or whole arrays
    function: Any
    expected: Any
    tolerance: float = 1e-6  # of the largest magnitude


def channels_first(engine, x):
    """(B, F, H, W, C) as (B, C, F, H, W), with channels innermost in memory where views are."""
    return engine.permute(x, (0, 4, 1, 2, 3))


MASK = np.array([True, False, True, True])
IDS = np.array([[3, 1], [0, 3]])

SHAPES = [
    Case("reshape", [(2, 6)], lambda e, x: e.reshape(x, [3, -1]), lambda x: x.reshape(3, -1), 0),
    Case("permute", [(2, 3, 4)], lambda e, x: e.permute(x, (2, 0, 1)), lambda x: x.transpose(2, 0, 1), 0),
    Case("concat", [(2, 3), (2, 1)], lambda e, x, y: e.concat([x, y], -1), lambda x, y: np.concatenate([x, y], -1), 0),
    Case("stack", [(2, 3), (2, 3)], lambda e, x, y: e.stack((x, y), 1), lambda x, y: np.stack([x, y], 1), 0),
    Case("split", [(2, 6)], lambda e, x: e.split(x, (1, 5), 1)[0], lambda x: x[:, :1], 0),
    Case("split", [(6, 2)], lambda e, x: e.split(x, [1, 2, 3], 0)[2], lambda x: x[3:], 0),
    Case("split", [(2, 50, 6, 3)], lambda e, x: e.split(x, (2, 2, 2), 2)[1], lambda x: x[:, :, 2:4], 0),
    Case("pad", [(2, 3)], lambda e, x: e.pad(x, [(1, 2)]), lambda x: np.pad(x, [(0, 0), (1, 2)]), 0),
    Case(
        "pad",
        [(1, 2, 3, 4, 5)],
        lambda e, x: e.pad(x, [(2, 0), (1, 1), (0, 3)], "replicate"),
        lambda x: np.pad(x, [(0, 0), (0, 0), (2, 0), (1, 1), (0, 3)], "edge"),
        0,
    ),
    Case(
        "pad",
        [(1, 2, 1, 4)],
        lambda e, x: e.pad(x, [(1, 1), (2, 2)], mode="replicate"),
        lambda x: np.pad(x, [(0, 0), (0, 0), (1, 1), (2, 2)], "edge"),
        0,
    ),
    Case(
        "broadcast_to", [(2, 1)], lambda e, x: e.broadcast_to(x, (3, 2, 4)), lambda x: np.broadcast_to(x, (3, 2, 4)), 0
    ),
    Case("take", [(4, 3, 2), np.array([2, 0])], lambda e, x, i: e.take(x, i, 1), lambda x, i: x[:, i], 0),
    Case(
        "interleave",
        [(1, 8, 2, 3, 4)],
        lambda e, x: e.interleave(x, (2, 1, 2)),
        lambda x: layers.interleave(x, (2, 1, 2)),
        0,
    ),
    Case(
        "interleave",
        [(2, 12, 1, 4, 2)],
        lambda e, x: e.interleave(x, (1, 2, 1)),
        lambda x: layers.interleave(x, (1, 2, 1)),
        0,
    ),
    Case(
        "interleave",
        [(2, 16, 2, 3, 4)],
        lambda e, x: e.interleave(x, (2, 2, 2), 1),
        lambda x: layers.interleave(x, (2, 2, 2))[:, :, 1:],
        0,
    ),
]

ARITHMETIC = [
    # MindSpore's CPU exponential is a fast one: 8e-6 relative, and tanh 1e-4 absolute. Nothing that needs more
    # is computed with them: tables come from numpy.
    Case("exp", [(5, 7)], lambda e, x: e.exp(x), np.exp, 1e-5),
    Case("cos", [(5, 7)], lambda e, x: e.cos(x * 10.0), lambda x: np.cos(x * 10)),
    Case("sin", [(5, 7)], lambda e, x: e.sin(x * 10.0), lambda x: np.sin(x * 10)),
    Case("sqrt", [(5, 7)], lambda e, x: e.sqrt(x * x), np.abs),
    Case("rsqrt", [(5, 7)], lambda e, x: e.rsqrt(x * x + 0.5), lambda x: 1 / np.sqrt(x * x + 0.5)),
    Case("tanh", [(5, 7)], lambda e, x: e.tanh(x), np.tanh, 2e-5),
    Case("sigmoid", [(5, 7)], lambda e, x: e.sigmoid(x * 5.0), lambda x: layers.sigmoid(5 * x), 2e-6),
    Case("clip", [(5, 7)], lambda e, x: e.clip(x, -0.5, 0.25), lambda x: np.clip(x, -0.5, 0.25), 0),
    Case("where", [MASK, (3, 4), (3, 4)], lambda e, c, x, y: e.where(c, x, y), np.where, 0),
    Case("where", [(3, 4), (3, 4)], lambda e, x, y: e.where(x > y, x, y), np.maximum, 0),
    Case("sum", [(3, 4, 5)], lambda e, x: e.sum(x, (0, 2)), lambda x: x.sum((0, 2))),
    Case("sum", [(3, 4, 5)], lambda e, x: e.sum(x, [-1], True), lambda x: x.sum(-1, keepdims=True)),
    Case("mean", [(3, 4, 5)], lambda e, x: e.mean(x, (-1,), keepdims=True), lambda x: x.mean(-1, keepdims=True)),
    Case("max", [(3, 4, 5)], lambda e, x: e.max(x, (0, 2)), lambda x: x.max((0, 2)), 0),
    Case("max", [(3, 4, 5)], lambda e, x: e.max(x, (1,), True), lambda x: x.max(1, keepdims=True), 0),
]

LAYERS = [
    Case("matmul", [(2, 3, 4), (2, 4, 5)], lambda e, x, y: e.matmul(x, y), np.matmul),
    Case("matmul", [(2, 3, 3, 4), (4, 5)], lambda e, x, y: e.matmul(x, y), np.matmul),
    Case("linear", [(2, 3, 4), (5, 4), (5,)], lambda e, x, w, b: e.linear(x, w, b), lambda x, w, b: x @ w.T + b),
    Case("linear", [(3, 4), (5, 4)], lambda e, x, w: e.linear(x, w), lambda x, w: x @ w.T),
    Case("linear", [(4,), (5, 4), (5,)], lambda e, x, w, b: e.linear(x, w, b), lambda x, w, b: x @ w.T + b),
    Case(
        "linear",
        [(2, 90, 24), (40, 24), (40,)],
        lambda e, x, w, b: e.linear(x, w, b, "gelu_tanh"),
        lambda x, w, b: layers.gelu_tanh(x @ w.T + b),
    ),
    Case(
        "linear",
        [(1, 130, 24), (40, 24), (40,)],
        lambda e, x, w, b: e.linear(x[:, :129], w, b, "silu"),
        lambda x, w, b: layers.silu(x[:, :129] @ w.T + b),
        2e-6,
    ),
    Case(
        "rotate",
        [(2, 5, 3, 8), (5, 4), (5, 4)],
        lambda e, x, c, s: e.rotate(x[:, :, 1:], *(e.reshape(e.stack([t, t], -1), (5, 8)) for t in (c, s))),
        lambda x, c, s: layers.rotated(x[:, :, 1:], c, s),
    ),
    Case(
        "conv2d",
        [(2, 3, 9, 8), (4, 3, 3, 2), (4,)],
        lambda e, x, w, b: e.conv2d(x, w, b, (2, 1)),
        lambda x, w, b: layers.convolution(x, w, b, (2, 1)),
        2e-6,
    ),
    Case(
        "conv2d",
        [(1, 3, 28, 28), (4, 3, 14, 14)],
        lambda e, x, w: e.conv2d(x, w, stride=(14, 14)),
        lambda x, w: layers.convolution(x, w, np.zeros(4), (14, 14)),
        2e-6,
    ),
    Case(
        "conv3d",
        [(1, 3, 5, 6, 7), (4, 3, 3, 3, 3), (4,)],
        lambda e, x, w, b: e.conv3d(x, w, b),
        lambda x, w, b: layers.convolution(x, w, b, (1, 1, 1)),
        2e-6,
    ),
    Case(
        "conv3d",
        [(2, 4, 5, 9, 7), (4, 4, 3, 3, 3), (4,)],
        lambda e, x, w, b: e.conv3d(x, w, b, (2, 2, 2)),
        lambda x, w, b: layers.convolution(x, w, b, (2, 2, 2)),
        2e-6,
    ),
    Case(
        "conv3d",
        [(2, 4, 3, 4, 6), (5, 4, 1, 2, 2), (5,)],
        lambda e, x, w, b: e.conv3d(x, w, b, stride=(1, 2, 2)),
        lambda x, w, b: layers.convolution(x, w, b, (1, 2, 2)),
        2e-6,
    ),
    Case(
        "conv3d",
        [(2, 4, 3, 4, 6), (5, 4, 1, 1, 1), (5,)],
        lambda e, x, w, b: e.conv3d(x, w, b),
        lambda x, w, b: layers.convolution(x, w, b, (1, 1, 1)),
        2e-6,
    ),
    Case("embedding", [(4, 3), IDS], lambda e, t, i: e.embedding(t, i), lambda t, i: t[i], 0),
    Case("layer_norm", [(2, 3, 16)], lambda e, x: e.layer_norm(x * 3.0 + 2.0), lambda x: layers.layer_norm(3 * x + 2)),
    Case(
        "layer_norm",
        [(2, 3, 16), (16,), (16,)],
        lambda e, x, w, b: e.layer_norm(x, w, b, 1e-5),
        lambda x, w, b: layers.layer_norm(x, w, b, 1e-5),
    ),
    Case("layer_norm", [(3, 8), (8,)], lambda e, x, w: e.layer_norm(x, w), layers.layer_norm),
    Case(
        "rms_norm",
        [(2, 3, 16), (16,)],
        lambda e, x, w: e.rms_norm(x * 0.01, w, 1e-5),
        lambda x, w: layers.rms_norm(x * 0.01, w, 1e-5),
    ),
    Case(
        "group_norm",
        [(2, 8, 3, 4, 5), (8,), (8,)],
        lambda e, x, w, b: e.group_norm(x, 4, w, b),
        lambda x, w, b: layers.group_norm(x, 4, w, b),
    ),
    Case(
        "group_norm",
        [(2, 6, 7), (6,), (6,)],
        lambda e, x, w, b: e.group_norm(x + 5.0, 3, w, b, 1e-5),
        lambda x, w, b: layers.group_norm(x + 5, 3, w, b, 1e-5),
        2e-6,
    ),
    Case("moments", [(2, 4, 3, 5)], lambda e, x: e.moments(x + 3.0)[0], lambda x: x.mean((2, 3)) + 3, 2e-6),
    Case("moments", [(2, 4, 3, 5)], lambda e, x: e.moments(x)[1], lambda x: x.var((2, 3))),
    *[
        Case(
            "moments",
            [(1, *cells, channels)],
            lambda e, x, part=part: e.moments(channels_first(e, x) + 3.0)[part],
            lambda x, part=part: ((x + 3).mean((1, 2, 3)), x.var((1, 2, 3)))[part],
            4e-6,
        )
        for cells, channels in (((2, 24, 64), 4), ((3, 5, 7), 6))
        for part in range(2)
    ],
    Case(
        "window",
        [(2, 3, 2, 4, 5), (2, 3), (2, 3), (2, 3, 2, 6, 7)],
        lambda e, x, g, s, b: e.window(x, g, s, b),
        layers.window,
    ),
    Case(
        "window",
        [(1, 2, 4, 6, 3), (1, 3), (1, 3)],
        lambda e, x, g, s: e.window(channels_first(e, x), g, s, activation="silu"),
        lambda x, g, s: layers.window(x.transpose(0, 4, 1, 2, 3), g, s, has_silu=True),
        2e-6,
    ),
    Case(
        "window",
        [(1, 3, 5, 4, 8), (1, 8), (1, 8), (1, 8, 2, 7, 6)],
        lambda e, x, g, s, b: e.window(channels_first(e, x), g, s, b, "silu"),
        lambda x, g, s, b: layers.window(x.transpose(0, 4, 1, 2, 3), g, s, b, has_silu=True),
        2e-6,
    ),
    Case(
        "conv3d",  # three channels come out, of an even number of cells
        [(2, 4, 4, 8, 10), (3, 4, 3, 3, 3), (3,)],
        lambda e, x, w, b: e.conv3d(x, w, b),
        lambda x, w, b: layers.convolution(x, w, b, (1, 1, 1)),
    ),
    Case("silu", [(5, 7)], lambda e, x: e.silu(x * 3.0), lambda x: 3 * x * layers.sigmoid(3 * x), 2e-6),
    Case("gelu", [(5, 7)], lambda e, x: e.gelu(x), layers.gelu),
    Case("gelu", [(5, 7)], lambda e, x: e.gelu(x, "tanh"), layers.gelu_tanh),
    Case("gelu", [(5, 7)], lambda e, x: e.gelu(x, approximate="tanh"), layers.gelu_tanh),
    Case("softmax", [(5, 7)], lambda e, x: e.softmax(x * 5.0), lambda x: layers.softmax(5 * x), 1e-5),
]

OPERATORS = [
    Case("+", [(3, 4), (4,)], lambda e, x, y: x + y * 2.0 - 0.5, lambda x, y: x + y * 2 - 0.5),
    Case("/", [(3, 4)], lambda e, x: (1.0 - x) / 4.0, lambda x: (1 - x) / 4),
    Case("-", [(3, 4)], lambda e, x: -x, lambda x: -x, 0),
    Case("[]", [(3, 4, 6)], lambda e, x: x[:, 1:, ::2], lambda x: x[:, 1:, ::2], 0),
    Case("[]", [(3, 4, 6)], lambda e, x: x[..., -1], lambda x: x[..., -1], 0),
    Case("[]", [(3, 4, 6)], lambda e, x: x[1, None, ..., :3], lambda x: x[1, None, ..., :3], 0),
    Case("<", [(3, 4), (3, 4)], lambda e, x, y: x < y, lambda x, y: x < y, 0),
    Case(">=", [(3, 4)], lambda e, x: x >= 0.25, lambda x: x >= 0.25, 0),
]

CASES = SHAPES + ARITHMETIC + LAYERS + OPERATORS

# Operations with tests of their own.
ELSEWHERE = {
    *("asarray", "numpy", "zeros", "full", "arange", "cast", "dtype", "to_device", "draw_normal"),  # below
    *("vjp", "stop_gradient", "recompute", "adapted_linear", "to_host", "make_deterministic"),  # _gradients, train
    *("attention", "key_lengths", "attention_kernels", "compile", "grad"),  # test_engine_attention, _cuda, _compile
    *("synchronize", "memory", "copy_stream", "mark", "rank", "size"),  # test_engine_control
    "exchange",  # test_engine_exchange
}


def arrays_of(case: Case) -> list[np.ndarray]:
    random = np.random.default_rng(7)
    return [
        random.standard_normal(item).astype(np.float32) if isinstance(item, tuple) else item for item in case.inputs
    ]


def largest_difference(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == np.shape(expected)
    return float(np.abs(found.astype(np.float64) - expected).max())


@pytest.mark.parametrize("case", CASES, ids=[f"{case.operation}-{i}" for i, case in enumerate(CASES)])
def test_operation_equals_numpy(engine, case):
    arrays = arrays_of(case)
    out = engine.numpy(case.function(engine, *[engine.asarray(array) for array in arrays]))
    expected = case.expected(*[a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays])
    limit = case.tolerance * max(1.0, float(np.abs(expected).max()))
    assert largest_difference(out, expected) <= limit


def test_every_operation_is_tested():
    named = {name for name, _ in inspect.getmembers(Engine, inspect.isfunction) if not name.startswith("_")}
    assert named == {case.operation for case in CASES if case.operation.isidentifier()} | ELSEWHERE


@pytest.mark.parametrize(
    ("given", "dtype"),
    [("float64", "float32"), ("float32", "float32"), ("float16", "float16"), ("int32", "int64"), ("bool", "bool")],
)
def test_asarray_keeps_values_and_types(engine, given, dtype):
    array = np.array([[0, 1, 2], [3, 4, 5]], given)
    tensor = engine.asarray(array)
    assert engine.dtype(tensor) == dtype
    assert tuple(tensor.shape) == (2, 3)
    assert engine.numpy(tensor).dtype == np.dtype(dtype)
    assert (engine.numpy(tensor) == array).all()


def test_asarray_takes_numbers_lists_views_and_tensors(engine):
    assert engine.numpy(engine.asarray(2.5)).tolist() == 2.5
    assert engine.numpy(engine.asarray([1, 2])).tolist() == [1, 2]
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert (engine.numpy(engine.asarray(array[::-1, ::2].T)) == array[::-1, ::2].T).all()
    array.flags.writeable = False
    again = engine.asarray(engine.asarray(array), "float16")
    assert engine.dtype(again) == "float16"
    assert (engine.numpy(again) == array).all()


def test_asarray_takes_the_bits_of_bfloat16(engine):
    values = np.array([1.0, -2.5, 3.140625, 0.0], np.float32)
    bits = (values.view(np.uint32) >> 16).astype(np.uint16)
    tensor = engine.asarray(bits, "bfloat16")
    assert engine.dtype(tensor) == "bfloat16"
    assert (engine.numpy(tensor) == values).all()
    assert engine.numpy(tensor).dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "int64", "bool"])
def test_making_and_casting(engine, dtype):
    assert engine.dtype(engine.zeros((2, 3), dtype)) == dtype
    assert engine.numpy(engine.zeros((2, 3), dtype)).sum() == 0
    assert engine.dtype(engine.full([2], 1, dtype)) == dtype
    assert engine.numpy(engine.full([2], 1, dtype)).tolist() == [1, 1]
    x = engine.asarray(np.array([0.0, 1.0], np.float32))
    assert engine.dtype(engine.cast(x, dtype)) == dtype
    assert engine.numpy(engine.cast(x, dtype)).tolist() == [0, 1]
    assert engine.cast(x, "float32") is x


def test_arange(engine):
    assert engine.numpy(engine.arange(4)).tolist() == [0, 1, 2, 3]
    assert engine.dtype(engine.arange(4)) == "int64"
    assert engine.dtype(engine.arange(4, "float32")) == "float32"


def test_to_device_keeps_what_is_there(engine):
    x = engine.asarray([1.0, 2.0])
    assert engine.numpy(engine.to_device(x)).tolist() == [1.0, 2.0]


def test_python_numbers_keep_a_tensors_type(engine):
    x = engine.asarray(np.array([1.0, 2.0], np.float16))
    assert engine.dtype(x * 2.0 + 1) == "float16"
    assert engine.dtype(1.0 - x) == "float16"
    assert engine.dtype(engine.asarray([1, 2]) + 1) == "int64"


def test_torchs_own_numbers_where_an_engine_has_them(engine):
    if not engine.traits.draws_as_torch:
        with pytest.raises(EngineError, match="take a torch engine"):
            engine.draw_normal((2, 3), 7, "float16")
        return
    torch = importlib.import_module("torch")
    found = engine.draw_normal((2, 3), 7, "float16")
    expected = torch.randn((2, 3), generator=torch.Generator().manual_seed(7), dtype=torch.float16)
    assert engine.dtype(found) == "float16" and (engine.numpy(found) == expected.numpy()).all()
