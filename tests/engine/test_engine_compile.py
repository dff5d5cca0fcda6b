"""Compiled functions see every change of weights; gradients agree between engines."""

from __future__ import annotations

from collections import namedtuple

import numpy as np
import pytest

from framewake.engine import contract
from framewake.errors import EngineError

WIDTH = 8


class Block:
    """A small block with everything that the models' text uses."""

    def __init__(self, engine: contract.Engine) -> None:
        self.engine = engine
        self.layers = [0.5, 2.0]

    def __call__(self, w, x, groups, rope, *, pair=None, count=3):
        engine = self.engine
        y = engine.linear(x, w["first.weight"], w["first.bias"])
        y = engine.gelu(engine.layer_norm(y), "tanh") * rope[0] + rope[1]
        for factor in self.layers:
            y = y + self.scaled(w, y, factor)
        pieces = []
        start = 0
        for size, vector in groups:
            pieces.append(y[:, start : start + size] * vector[:, None])
            start = start + size
        y = engine.concat(pieces, 1)
        if pair is not None:
            y = y + pair[0][:, : pair[1]]
        heads = engine.reshape(y, (y.shape[0], y.shape[1], 2, WIDTH // 2))
        out = engine.attention(heads, heads, heads, scale=0.5)
        return y[:, :count], [out, engine.sum(y, (0, 1))]

    def scaled(self, w, x, factor):
        return self.engine.linear(x, w["second.weight"]) * factor


def arguments(engine, seed, first=2):
    random = np.random.default_rng(seed)

    def tensor(*shape):
        return engine.asarray((0.5 * random.standard_normal(shape)).astype(np.float32))

    weights = {
        "first.weight": tensor(WIDTH, WIDTH),
        "first.bias": tensor(WIDTH),
        "second.weight": tensor(WIDTH, WIDTH),
    }
    groups = [(first, tensor(2, WIDTH)), (6 - first, tensor(2, WIDTH))]
    return weights, tensor(2, 6, WIDTH), groups, (tensor(WIDTH), tensor(WIDTH)), (tensor(2, 9, WIDTH), 6)


def difference(engine, found, expected) -> float:
    """The largest, as a part of the array's largest magnitude."""
    pairs = [(found[0], expected[0]), *zip(found[1], expected[1], strict=True)]
    assert [tuple(a.shape) for a, _ in pairs] == [tuple(b.shape) for _, b in pairs]
    return max(float(np.abs(engine.numpy(a) - engine.numpy(b)).max() / np.abs(engine.numpy(b)).max()) for a, b in pairs)


def test_one_compiled_block_serves_every_dict_of_weights(engine):
    block = Block(engine)
    compiled = engine.compile(block)
    for seed in range(3):
        weights, x, groups, rope, pair = arguments(engine, seed)
        expected = block(weights, x, groups, rope, pair=pair)
        assert difference(engine, compiled(weights, x, groups, rope, pair=pair), expected) <= 5e-6
    for seed, first in ((3, 2), (4, 4)):  # without the pair; other group sizes
        weights, x, groups, rope, _ = arguments(engine, seed, first)
        expected = block(weights, x, groups, rope, count=2)
        assert difference(engine, compiled(weights, x, groups, rope, count=2), expected) <= 5e-6


def test_a_weight_replaced_inside_the_same_dict_is_seen(engine):
    """mindspore.jit freezes captured parameters; a dict that is an argument must not be frozen."""

    def double(w, x):
        return engine.linear(x, w["weight"])

    compiled = engine.compile(double)
    x = engine.asarray(np.eye(4, dtype=np.float32))
    w = {"weight": engine.full((4, 4), 1.0)}
    assert engine.numpy(compiled(w, x)).max() == 1.0
    w["weight"] = engine.full((4, 4), 3.0)
    assert engine.numpy(compiled(w, x)).max() == 3.0


def test_another_shape_gives_the_right_result_or_compiles_again(engine):
    def total(w, x):
        return engine.sum(engine.linear(x, w["weight"]), (0,))

    compiled = engine.compile(total)
    for rows in (2, 5, 2):
        out = compiled({"weight": engine.full((3, 4), 2.0)}, engine.full((rows, 4), 1.0))
        assert engine.numpy(out).tolist() == [8.0 * rows] * 3


def test_compiled_many_operations_at_once(engine):
    """What fails only inside a graph fails here: one function over most of the contract."""
    if engine.kind == "torch":
        pytest.skip("torch compiles what it runs; this takes it half a minute")

    def everything(x, video, index, ids):
        return [
            engine.permute(x, (1, 0)),
            engine.stack([x, x], 1),
            engine.split(x, [2, 6], 1)[1],
            engine.pad(x, [(1, 2)]),
            engine.pad(video, [(2, 0), (1, 1), (1, 1)], "replicate"),
            engine.broadcast_to(x[:, None], (4, 3, 8)),
            engine.take(x, index, 1),
            engine.embedding(x, ids),
            engine.interleave(engine.concat([video] * 8, 1), (2, 2, 2), 1),
            engine.interleave(engine.concat([video] * 2, 1), (1, 1, 2)),
            engine.clip(x, -0.5, 0.5),
            engine.where(x > 0.0, x, engine.zeros(x.shape)),
            engine.sum(x, (0, 1)),
            engine.mean(x, (-1,), True),
            engine.max(x, (0,)),
            engine.sigmoid(x),
            engine.sqrt(x * x),
            engine.rsqrt(x * x + 1.0),
            engine.softmax(x),
            engine.silu(x),
            engine.gelu(x),
            engine.rms_norm(x, x[0]),
            engine.layer_norm(x, x[0], x[1]),
            engine.group_norm(video, 2, x[0, :4], x[1, :4]),
            engine.conv3d(video, engine.full((3, 4, 1, 2, 2), 0.5), stride=(1, 2, 2)),
            engine.conv2d(video[:, :, 0], engine.full((3, 4, 2, 2), 0.5)),
            engine.arange(4, "float32"),
            engine.cast(engine.cast(x, "float16"), "float32"),
            engine.zeros((2,), engine.dtype(x)),
        ]

    random = np.random.default_rng(5)
    x = engine.asarray(random.standard_normal((4, 8)).astype(np.float32))
    video = engine.asarray(random.standard_normal((1, 4, 3, 4, 6)).astype(np.float32))
    index, ids = engine.asarray([3, 1]), engine.asarray([[0, 2], [3, 3]])
    expected = everything(x, video, index, ids)
    found = engine.compile(everything)(x, video, index, ids)
    assert len(found) == len(expected)
    assert [tuple(x.shape) for x in found] == [tuple(x.shape) for x in expected]
    worst = [float(np.abs(engine.numpy(a) - engine.numpy(b)).max()) for a, b in zip(found, expected, strict=True)]
    assert max(worst) <= 2e-6, worst


@pytest.mark.parametrize("given", ["dict", "namedtuple"])
def test_what_mindspore_would_leave_to_its_interpreter_is_refused(engine, given):
    if engine.kind == "torch":
        pytest.skip("torch.compile takes both")

    def in_a_dict(x):
        return {"out": x * 2.0}

    x = engine.full((2,), 1.0)
    if given == "dict":
        with pytest.raises(TypeError, match="not a dict"):
            engine.compile(in_a_dict)(x)
    else:
        with pytest.raises(EngineError, match="hand in its fields"):
            engine.compile(in_a_dict)(namedtuple("Pair", "left right")(x, x))


def loss_of(engine):
    def loss(w, x, target, factor):
        hidden = engine.silu(engine.linear(x, w["up.weight"], w["up.bias"]))
        hidden = engine.rms_norm(hidden, w["norm.weight"])
        heads = engine.reshape(hidden, (2, 3, 2, 4))
        hidden = engine.reshape(engine.attention(heads, heads, heads, scale=0.5), (2, 3, 8))
        change = engine.linear(hidden, w["down.weight"]) * factor - target
        return engine.mean(change * change, (0, 1, 2))

    return loss


def gradient_inputs():
    random = np.random.default_rng(11)

    def array(*shape):
        return random.standard_normal(shape).astype(np.float32)

    weights = {
        "up.weight": array(8, 4),
        "up.bias": array(8),
        "norm.weight": array(8),
        "down.weight": array(4, 8),
        "unused": array(3),
    }
    return weights, array(2, 3, 4), array(2, 3, 4)


def gradients(engine, loss):
    weights, x, target = gradient_inputs()
    tensors = {name: engine.asarray(array) for name, array in weights.items()}
    value, grads = engine.grad(loss)(tensors, engine.asarray(x), engine.asarray(target), 0.5)
    assert list(grads) == list(weights)
    return float(engine.numpy(value)), {name: engine.numpy(g) for name, g in grads.items()}


def test_gradients_equal_finite_differences(engine):
    weights, x, target = gradient_inputs()
    loss = loss_of(engine)
    value, grads = gradients(engine, loss)
    tensors = [engine.asarray(x), engine.asarray(target)]

    def at(name, index, step):
        moved = dict(weights)
        moved[name] = weights[name].copy()
        moved[name][index] += step
        return float(engine.numpy(loss({n: engine.asarray(a) for n, a in moved.items()}, *tensors, 0.5)))

    assert value == pytest.approx(at("up.bias", 0, 0.0), rel=1e-6)
    assert np.abs(grads["unused"]).max() == 0
    for name, index in (("up.weight", (3, 1)), ("up.bias", (2,)), ("norm.weight", (5,)), ("down.weight", (1, 6))):
        slope = (at(name, index, 1e-2) - at(name, index, -1e-2)) / 2e-2
        assert grads[name][index] == pytest.approx(slope, abs=3e-4 * max(1.0, abs(value))), name


def test_gradients_are_equal_between_engines(engine):
    from framewake import engine as engines

    if len(engines.installed()) < 2:
        pytest.skip("needs both engines")
    other = engines.get("torch:cpu")
    value, grads = gradients(engine, loss_of(engine))
    expected_value, expected = gradients(other, loss_of(other))
    assert value == pytest.approx(expected_value, rel=1e-5)
    assert max(float(np.abs(grads[name] - expected[name]).max()) for name in expected) <= 2e-6


def test_gradients_of_a_compiled_function(engine):
    loss = loss_of(engine)
    value, grads = gradients(engine, engine.compile(loss))
    expected_value, expected = gradients(engine, loss)
    assert value == pytest.approx(expected_value, rel=1e-5)
    assert max(float(np.abs(grads[name] - expected[name]).max()) for name in expected) <= 2e-6


def test_gradients_leave_the_weights_without_history(engine):
    weights = {"w": engine.full((3,), 2.0)}

    def loss(w, x):
        return engine.sum(w["w"] * x, (0,))

    x = engine.full((3,), 1.0)
    _, first = engine.grad(loss)(weights, x)
    stepped = {"w": weights["w"] - first["w"] * 0.5}
    _, second = engine.grad(loss)(stepped, x)
    assert engine.numpy(stepped["w"]).tolist() == [1.5] * 3
    assert engine.numpy(second["w"]).tolist() == [1.0] * 3


def test_a_view_as_the_first_argument_spoils_no_later_call(engine):
    """A graph of mindspore.jit that takes views itself (split) keeps the memory layout of its first call."""
    if engine.kind == "torch":
        pytest.skip("torch guards on strides")

    def later_part(x):
        return engine.split(x, (2, 4), 1)[1] * 2.0

    whole = engine.asarray(np.arange(96, dtype=np.float32).reshape(1, 12, 8))
    plain = engine.asarray(np.arange(48, dtype=np.float32).reshape(1, 6, 8))
    for view in (whole[:, 6:], engine.permute(engine.reshape(whole, (2, 8, 6))[:1], (0, 2, 1))):
        compiled = engine.compile(later_part)
        for x in (view, plain, view):
            assert (engine.numpy(compiled(x)) == 2 * engine.numpy(x)[:, 2:]).all()
