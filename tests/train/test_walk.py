"""Gradients of the walk through the blocks against those of the whole graph."""

from __future__ import annotations

import numpy as np
import pytest
from toy_training import MergedInside, Task, apart, batch_of

from framewake.models.dit import DiT
from framewake.models.manner import PLAIN, Manner
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.train.adapted import AdaptedLayers, Dressed

CHUNKED = Manner(chunk_tokens=3)
RECOMPUTED = Manner(chunk_tokens=3, recomputes=True)
CASES = [
    pytest.param(HUNYUAN, "token_replace", 1, PLAIN, id="one"),
    pytest.param(HUNYUAN, "token_replace", 2, PLAIN, id="two"),
    pytest.param(HUNYUAN, "token_replace", 2, CHUNKED, id="chunked"),
    pytest.param(HUNYUAN, "token_replace", 2, RECOMPUTED, id="recomputed"),
    pytest.param(HUNYUAN, "latent_concat", 2, PLAIN, id="joined"),
    pytest.param(HUNYUAN, "none", 2, PLAIN, id="text-to-video"),
    pytest.param(HUNYUAN15, "latent_concat", 2, PLAIN, id="1.5"),
    pytest.param(HUNYUAN15, "none", 1, PLAIN, id="1.5 text-to-video"),
    pytest.param(HUNYUAN15, "latent_concat", 2, RECOMPUTED, id="1.5 recomputed"),
]


@pytest.mark.parametrize(("family", "condition", "count", "manner"), CASES)
def test_every_gradient_is_that_of_the_whole_graph(engine, family, condition, count, manner):
    task = Task(engine, family=family, condition=condition)
    store, batch = task.resident(), batch_of(engine, count, family=family)
    value, expected = task.whole(store, batch, manner)
    # Behind the last attention nobody reads the text, where no single blocks follow.
    unread = () if task.config.single_blocks else ("double_blocks.1.txt_attn_proj", "double_blocks.1.txt_mlp")
    assert len(expected) == 2 * len(task.modules)
    assert all(name.startswith(unread) != (np.abs(x).max() > 0) for name, x in expected.items())
    loss, found = task.walk(manner)(task.factors, store, batch)
    assert abs(loss - value) <= 1e-6 * value
    assert apart(found, expected) <= 2e-6


@pytest.mark.parametrize(("family", "condition", "count", "manner"), CASES)
def test_the_same_operations_give_the_same_bits(engine, family, condition, count, manner):
    task = Task(engine, family=family, condition=condition, dressing=MergedInside)
    store, batch = task.resident(), batch_of(engine, count, family=family)
    value, expected = task.whole(store, batch, manner)
    loss, found = task.walk(manner)(task.factors, store, batch)
    assert loss == value
    # The pieces of a chunked weight are merged in one graph here and in another there.
    assert apart(found, expected) <= (1e-6 if manner.chunk_tokens else 0)


@pytest.mark.parametrize(
    "targets",
    [["single_blocks.1.*"], ["double_blocks.1.*"], ["final_layer.*"], ["txt_in.*"], ["*attn_qkv", "*linear2"]],
)
def test_some_targets(engine, targets):
    task, everything = Task(engine, targets=targets), Task(engine)
    task.factors = {name: everything.factors[name] for name in task.factors}
    store, batch = task.resident(), batch_of(engine, 2)
    value, expected = task.whole(store, batch)
    loss, found = task.walk()(task.factors, store, batch)
    assert abs(loss - value) <= 1e-6 * value and apart(found, expected) <= 2e-6


def test_the_walk_goes_no_further_back_than_it_must(engine):
    class Counted:
        """A store that knows which blocks were taken."""

        def __init__(self, store):
            self.store, self.taken = store, []
            self.part, self.blocks = store.part, store.blocks

        def walk(self, order):
            for key, block in zip(order, self.store.walk(order), strict=True):
                self.taken.append(key)
                yield block

    task = Task(engine, targets=["single_blocks.1.*"])
    store = Counted(task.resident())
    task.walk()(task.factors, store, batch_of(engine, 1))
    assert store.taken[:4] == [("double_blocks", 0), ("double_blocks", 1), ("single_blocks", 0), ("single_blocks", 1)]
    assert store.taken[4:] == [("single_blocks", 1)]


def test_what_blocks_began_with_may_lie_on_the_host(engine):
    task = Task(engine)
    store, batch = task.resident(), batch_of(engine, 2)
    on_device, on_host = (task.walk(keeps_on_host=where)(task.factors, store, batch) for where in (False, True))
    assert on_device[0] == on_host[0] and apart(on_host[1], on_device[1]) == 0


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_going_forward_the_weights_are_those_of_inference(engine, dtype):
    if dtype not in engine.traits.products:
        pytest.skip("no matrix product in this type here")
    task = Task(engine, dtype=dtype)
    store, batch = task.resident(), batch_of(engine, 2)
    latents, told = task.loss.told(batch)
    leaves = {name: engine.asarray(x) for name, x in task.factors.items()}
    plain = DiT(engine, task.config)(Dressed(task.dressing, store, task.factors), latents, **told)
    view = Dressed(task.dressing, store, task.factors, leaves=leaves)
    adapted = DiT(AdaptedLayers(engine), task.config)(view, latents, **told)
    assert np.array_equal(engine.numpy(plain), engine.numpy(adapted))


def test_a_final_layer_in_float32_beside_bfloat16(engine):
    """As published files have it."""
    if "bfloat16" not in engine.traits.products:
        pytest.skip("no matrix product in this type here")
    task = Task(engine, dtype="bfloat16")
    store, batch = task.resident(), batch_of(engine, 1)
    for name in ("final_layer.linear.weight", "final_layer.linear.bias"):
        store.part("")[name] = engine.cast(store.part("")[name], "float32")
    _, expected = task.whole(store, batch)
    _, found = task.walk()(task.factors, store, batch)
    name = "final_layer.linear.lora_up.weight"
    assert np.abs(found[name] - expected[name]).max() <= 0.02 * np.abs(expected[name]).max()


def test_gradients_in_bfloat16_are_those_of_the_whole_graph_up_to_rounding(engine):
    if "bfloat16" not in engine.traits.products:
        pytest.skip("no matrix product in this type here")
    task = Task(engine, dtype="bfloat16")
    store, batch = task.resident(), batch_of(engine, 2)
    value, expected = task.whole(store, batch)
    loss, found = task.walk()(task.factors, store, batch)
    assert loss == value
    joined, other = (np.concatenate([each[name].ravel() for name in expected]) for each in (expected, found))
    assert np.linalg.norm(other - joined) <= 0.01 * np.linalg.norm(joined)


def test_strict_determinism_takes_every_operation_of_an_update():
    """What torch has no deterministic way for, it refuses by name."""
    torch = pytest.importorskip("torch")
    from cuda_here import CudaHere

    task = Task(CudaHere("cpu"))
    task.engine.make_deterministic()
    try:
        assert torch.are_deterministic_algorithms_enabled()
        store, batch = task.resident(), batch_of(task.engine, 2)
        first, second = (task.walk(RECOMPUTED, keeps_on_host=True)(task.factors, store, batch) for _ in range(2))
    finally:
        torch.use_deterministic_algorithms(False)
    assert first[0] == second[0] and apart(second[1], first[1]) == 0
