"""Products of Jacobians with vectors, constants, functions that run again, and layers with factors in them."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest


def arrays(**shapes):
    random = np.random.default_rng(5)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def tensors(engine, values):
    return {name: engine.asarray(x) for name, x in values.items()}


def numbers(engine, found):
    return {name: np.array(engine.numpy(x)) for name, x in found.items()}


LEAVES = {"x": (2, 5, 4), "weight": (6, 4), "unused": (3,)}
COTANGENTS = {"wide": (2, 5, 6), "mean": (2, 4)}


def function_of(engine):
    """Two outputs, of which one depends on one leaf only."""

    def function(leaves, bias):
        wide = engine.linear(engine.layer_norm(leaves["x"]), leaves["weight"], bias, "silu")
        return wide, engine.mean(leaves["x"] * leaves["x"], (1,))

    return function


def slope(engine, function, leaves, cotangents, change, *args, step=1e-2):
    """The change of the outputs, weighted by the cotangents, along a direction; a central difference in float64."""

    def at(stride):
        moved = {name: x + np.float32(stride) * change[name] for name, x in leaves.items()}
        outputs = function(tensors(engine, moved), *args)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = zip(outputs, cotangents, strict=True)
        return sum(float((engine.numpy(y).astype(np.float64) * c).sum()) for y, c in pairs)

    return (at(step) - at(-step)) / (2 * step)


def test_a_product_of_several_outputs_and_leaves(engine):
    leaves, cotangents = arrays(**LEAVES), tuple(arrays(**COTANGENTS).values())
    function, bias = function_of(engine), engine.asarray(arrays(bias=(6,))["bias"])
    given = tuple(engine.asarray(c) for c in cotangents)
    found = numbers(engine, engine.vjp(function)(tensors(engine, leaves), given, bias))
    assert list(found) == list(leaves)
    assert all(found[name].shape == x.shape for name, x in leaves.items())
    assert np.abs(found["unused"]).max() == 0
    for name in leaves:
        change = {other: np.zeros_like(x) for other, x in leaves.items()}
        change |= {name: arrays(way=leaves[name].shape)["way"]}
        expected = slope(engine, function, leaves, cotangents, change, bias)
        assert float((found[name] * change[name]).sum()) == pytest.approx(expected, rel=2e-3, abs=2e-3), name


def test_one_leaf_and_one_output(engine):
    x, cotangent = (engine.asarray(a) for a in arrays(x=(3, 4), c=(3, 4)).values())
    for function in (lambda leaves: leaves["x"] * 3.0, lambda leaves: (leaves["x"] * 3.0,)):
        found = engine.vjp(function)({"x": x}, (cotangent,))
        assert np.array_equal(engine.numpy(found["x"]), engine.numpy(cotangent) * 3)


def test_an_output_that_depends_on_nothing(engine):
    x, cotangent = (engine.asarray(a) for a in arrays(x=(3, 4), c=(3, 4)).values())
    found = engine.vjp(lambda leaves, y: (leaves["x"] * 2.0, y + 1.0))({"x": x}, (cotangent, cotangent), x)
    assert np.array_equal(engine.numpy(found["x"]), engine.numpy(cotangent) * 2)


def test_two_products_on_the_same_leaves_do_not_meet(engine):
    x, cotangent = (engine.asarray(a) for a in arrays(x=(3, 4), c=(3, 4)).values())
    double, triple = engine.vjp(lambda leaves: leaves["x"] * 2.0), engine.vjp(lambda leaves: leaves["x"] * 3.0)
    first, second = (product({"x": x}, (cotangent,))["x"] for product in (double, triple))
    assert np.array_equal(engine.numpy(first) * 1.5, engine.numpy(second))


def test_nothing_of_a_product_outlives_it(engine):
    """The weights of a block have to leave the device when its product is done."""

    class Held(dict):
        """A dict that can be watched."""

    x, cotangent, weight = (engine.asarray(a) for a in arrays(x=(3, 4), c=(3, 6), weight=(6, 4)).values())
    weights = Held(weight=weight)
    watched = weakref.ref(weights)
    found = engine.vjp(lambda leaves, w: engine.linear(leaves["x"], w["weight"]))({"x": x}, (cotangent,), weights)
    del weights
    gc.collect()
    assert watched() is None and found["x"].shape == x.shape


def test_a_constant_has_no_gradient(engine):
    x, cotangent = (engine.asarray(a) for a in arrays(x=(3, 4), c=(3, 4)).values())
    found = engine.vjp(lambda leaves: leaves["x"] * engine.stop_gradient(leaves["x"]))({"x": x}, (cotangent,))
    assert np.array_equal(engine.numpy(found["x"]), engine.numpy(cotangent) * engine.numpy(x))
    assert np.array_equal(engine.numpy(engine.stop_gradient(x)), engine.numpy(x))


def test_what_is_computed_again_has_the_same_gradients(engine):
    leaves, cotangents = arrays(**LEAVES), tuple(engine.asarray(c) for c in arrays(**COTANGENTS).values())
    bias, calls = engine.asarray(arrays(bias=(6,))["bias"]), []
    plain = function_of(engine)

    def inner(pair, named):
        calls.append(1)
        return plain({"x": pair[0], **named}, bias)

    again = engine.recompute(inner)

    def function(leaves):
        return again((leaves["x"], None), {"weight": leaves["weight"]})

    given = tensors(engine, leaves)
    expected = numbers(engine, engine.vjp(plain)(given, cotangents, bias))
    found = numbers(engine, engine.vjp(function)(given, cotangents))
    assert len(calls) == 2
    assert all(np.array_equal(found[name], expected[name]) for name in leaves)
    outputs = again((given["x"], None), {"weight": given["weight"]})
    assert len(calls) == 3, "without a gradient it runs once"
    expected = zip(outputs, plain(given, bias), strict=True)
    assert all(np.array_equal(engine.numpy(one), engine.numpy(other)) for one, other in expected)


@pytest.mark.parametrize("has_bias", [True, False])
def test_a_layer_with_factors_in_it(engine, has_bias):
    values = arrays(x=(2, 5, 8), up=(6, 3), down=(3, 8))
    fixed = arrays(base=(6, 8), bias=(6,), c=(2, 5, 6))
    base, cotangent = engine.asarray(fixed["base"]), engine.asarray(fixed["c"])
    bias = engine.asarray(fixed["bias"]) if has_bias else None

    def merged(leaves):
        weight = base + engine.matmul(leaves["up"], leaves["down"])
        return engine.linear(leaves["x"], weight, bias)

    given = tensors(engine, values)
    weight = base + engine.matmul(given["up"], given["down"])

    def apart(leaves):
        return engine.adapted_linear(leaves["x"], weight, (leaves["up"], leaves["down"]), bias)

    assert np.array_equal(engine.numpy(apart(given)), engine.numpy(engine.linear(given["x"], weight, bias)))
    expected = numbers(engine, engine.vjp(merged)(given, (cotangent,)))
    found = numbers(engine, engine.vjp(apart)(given, (cotangent,)))
    largest = max(float(np.abs(found[name] - x).max() / np.abs(x).max()) for name, x in expected.items())
    assert largest <= 2e-6, f"largest relative difference {largest:.1e}"


def test_there_and_back(engine):
    for kind in ("float32", "bfloat16"):
        x = engine.asarray(arrays(x=(3, 4))["x"], kind)
        back = engine.to_device(engine.to_host(x))
        assert engine.dtype(back) == kind and np.array_equal(engine.numpy(back), engine.numpy(x))
