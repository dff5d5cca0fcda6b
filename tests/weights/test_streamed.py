"""Streamed weights give the very numbers of resident ones, stop when told, and say what went wrong."""

from __future__ import annotations

import gc
import threading
import weakref
from dataclasses import replace

import numpy as np
import pytest
from toy_checkpoint import write_toy

from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.models.clip_text import ClipText
from framewake.models.dit import DiT, TextStates
from framewake.models.llava import Llava
from framewake.nn.rope import rope_table
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.direct import LEAST
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.reading.narrow import from_bfloat16, narrowed, to_bfloat16
from framewake.weights.stores.store import Resident
from framewake.weights.stores.streamed import Streamed
from framewake.weights.writing.files import write_tensors

MODELS = {"dit": DiT, "llava": Llava, "clip_text": ClipText}


class Deep:
    """Models with a few blocks in each list, and files of random weights for them."""

    def __init__(self, folder):
        toy = open_checkpoint(write_toy(folder))
        llava = toy.configs["llava"]
        self.configs = {
            "dit": replace(toy.dit, double_blocks=2, single_blocks=3),
            "llava": replace(llava, text=replace(llava.text, layers=6), vision=replace(llava.vision, layers=4)),
            "clip_text": replace(toy.configs["clip_text"], layers=3),
        }
        self.folder = folder

    def tensors(self, component):
        path = self.folder / f"{component}.safetensors"
        shapes = MODELS[component](None, self.configs[component]).shapes()
        if not path.exists():
            write_tensors(path, {name: rule.weight(name, shape, 7) for name, shape in shapes.items()})
        return MappedTensors(TensorFile(path), same(shapes))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return Deep(tmp_path_factory.mktemp("deep"))


def stores(checkpoint, component, engine, dtype="float32"):
    """A model, its weights in memory and its weights streamed."""
    model = MODELS[component](engine, checkpoint.configs[component])
    tensors = checkpoint.tensors(component)
    resident = Resident({name: engine.asarray(tensors.values(name, dtype), dtype) for name in model.shapes()})
    streamed = Streamed(engine, tensors, dtype, names=model.shapes(), streams=model.streams())
    return model, resident, streamed


def velocity(engine, model, weights, observe=None):
    config, batch = model.config, 1
    text = TextStates(
        engine.asarray(rule.input("states", (batch, 6, config.text_width), 6)),
        (6,),
        engine.asarray(rule.input("pooled", (batch, config.pooled_width), 6)),
    )
    return engine.numpy(
        model(
            weights,
            engine.asarray(rule.input("latents", (batch, config.in_channels, 2, 4, 4), 6)),
            timestep=engine.full((batch,), 700.0),
            guidance=engine.full((batch,), 6016.0),
            text=text,
            rope=tuple(engine.asarray(t) for t in rope_table((2, 2, 2), config.rope_dims, config.rope_theta)),
            observe=observe,
        )
    )


def hidden(engine, model, weights):
    ids = np.array([[5, model.config.image_token_id, 7, 8]])
    size = model.config.vision.image_size
    return engine.numpy(model(weights, ids, np.ones_like(ids), engine.asarray(rule.input("px", (1, 3, size, size), 6))))


def pooled(engine, model, weights):
    ids = np.array([[5, 9, 7, model.config.eos_token_id]])
    return engine.numpy(model(weights, ids, np.ones_like(ids))[0])


RUN = {"dit": velocity, "llava": hidden, "clip_text": pooled}


@pytest.mark.parametrize("component", MODELS)
def test_streaming_changes_no_bit(engine, checkpoint, component):
    model, resident, streamed = stores(checkpoint, component, engine)
    expected = RUN[component](engine, model, resident)
    for _ in range(3):  # the second and third time the first block was read ahead
        assert np.array_equal(RUN[component](engine, model, streamed), expected)
    streamed.close()


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_blocks_hold_the_same_bits_in_every_type(engine, checkpoint, dtype):
    model, resident, streamed = stores(checkpoint, "llava", engine, dtype)
    for name in model.streams():
        pairs = list(zip(resident.blocks(name), streamed.blocks(name), strict=True))
        assert len(pairs) > 1
        for ours, theirs in pairs:
            assert set(ours) == set(theirs)
            for key, value in ours.items():
                assert engine.dtype(theirs[key]) == dtype
                assert np.array_equal(engine.numpy(theirs[key]), engine.numpy(value))
    streamed.close()


def test_reading_around_the_file_cache_changes_no_bit(engine, tmp_path):
    """Tensors large enough for it, at odd places of the file, and memory that is used again for each block."""
    draw = np.random.default_rng(4)
    made = {f"{name}.{i}.{key}": size for name in "ab" for i in range(3) for key, size in (("w", LEAST + 77), ("v", 3))}
    write_tensors(path := tmp_path / "a.safetensors", {n: draw.standard_normal(size, "f4") for n, size in made.items()})
    tensors = MappedTensors(TensorFile(path), same(made))
    resident = Resident({name: engine.asarray(tensors.values(name, "float32"), "float32") for name in made})
    streamed = Streamed(engine, tensors, "float32", names=made, streams=("a", "b"), is_cached=False)
    for name in ("a", "b", "a", "b"):
        for ours, theirs in zip(resident.blocks(name), streamed.blocks(name), strict=True):
            assert set(theirs) == {"w", "v"}
            assert all(np.array_equal(engine.numpy(theirs[key]), engine.numpy(ours[key])) for key in ours)
    streamed.close()


class Slow:
    """Real tensors whose reader tells what it reads, and stops at a name when asked to."""

    def __init__(self, tensors):
        self.tensors, self.read, self.fault, self.threads = tensors, [], None, set()

    def values(self, name, dtype, *, empty=None):
        self.read.append(name)
        self.threads.add(threading.current_thread().name)
        if self.fault is not None and self.fault in name:
            raise OSError("the disk was pulled out")
        return self.tensors.values(name, dtype, empty=empty)


@pytest.fixture
def slow(engine, checkpoint):
    model = Llava(engine, checkpoint.configs["llava"])
    tensors = Slow(checkpoint.tensors("llava"))
    store = Streamed(engine, tensors, "float32", names=model.shapes(), streams=model.streams())
    tensors.read.clear()
    tensors.threads.clear()
    yield tensors, store, model.streams()
    store.close()


def settled(store):
    """Wait for what is read ahead."""
    for future in store._ahead.values():
        future.result()


def test_the_next_block_is_read_while_this_one_is_used(slow):
    tensors, store, (vision, language) = slow
    blocks = store.blocks(vision)
    next(blocks)
    settled(store)
    numbers = {name.removeprefix(vision + ".").split(".")[0] for name in tensors.read}
    assert numbers == {"0", "1"}
    list(blocks)
    settled(store)
    assert any(name.startswith(language + ".0.") for name in tensors.read), "the next list is not read ahead"
    list(store.blocks(language))
    settled(store)
    tensors.read.clear()
    next(store.blocks(vision))
    assert not any(name.startswith(vision + ".0.") for name in tensors.read), "the first block was read twice"
    assert all(name.startswith("framewake-reader") for name in tensors.threads)


def test_any_order_is_right(engine, checkpoint, slow):
    _, store, (vision, language) = slow
    _, resident, streamed = stores(checkpoint, "llava", engine)
    streamed.close()
    for name in (language, vision, language, language):
        found = next(iter(store.blocks(name)))
        expected = next(iter(resident.blocks(name)))
        assert all(np.array_equal(engine.numpy(found[key]), engine.numpy(expected[key])) for key in expected)


def test_at_most_two_blocks_are_alive(engine, checkpoint):
    if engine.kind != "torch":
        pytest.skip("MindSpore's tensors take no weak reference")
    model, _, streamed = stores(checkpoint, "llava", engine)
    alive: list[weakref.ref] = []
    most = 0
    for _ in range(3):
        for name in model.streams():
            for block in streamed.blocks(name):
                settled(streamed)
                blocks = [block, *(future.result() for future in streamed._ahead.values())]
                alive += [weakref.ref(next(iter(each.values()))) for each in blocks]
                del blocks
                gc.collect()
                most = max(most, len({id(ref()) for ref in alive if ref() is not None}))
    assert most == 2
    streamed.close()


class Watched:
    """A streamed store that counts the blocks that are alive."""

    def __init__(self, store):
        self.store, self.alive, self.part = store, [], store.part

    def blocks(self, name, count=None):
        for block in self.store.blocks(name, count):
            if name in ("double_blocks", "single_blocks"):
                self.alive.append(weakref.ref(next(iter(block.values()))))
            yield block

    def count(self):
        settled(self.store)
        gc.collect()
        return len([ref for ref in self.alive if ref() is not None]) + len(self.store._ahead)


def test_the_transformer_holds_no_third_block(engine, checkpoint):
    if engine.kind != "torch":
        pytest.skip("MindSpore's tensors take no weak reference")
    model, _, streamed = stores(checkpoint, "dit", engine)
    watched, most = Watched(streamed), {}
    velocity(engine, model, watched, lambda name, _: most.update({name: watched.count()}))
    found = {name: count for name, count in most.items() if name.startswith(("double", "single"))}
    assert len(found) == 7 and set(found.values()) == {2}, found
    streamed.close()


def test_a_fault_in_the_reader_reaches_the_caller(slow):
    tensors, store, (vision, language) = slow
    tensors.fault = language + ".0."
    list(store.blocks(vision))
    with pytest.raises(CheckpointError, match="pulled out"):
        list(store.blocks(language))
    tensors.fault = None
    assert list(store.blocks(language)), "a passing fault is not for good"


def test_closing_stops_the_thread(engine, checkpoint):
    model, _, streamed = stores(checkpoint, "llava", engine)
    before = {thread.ident for thread in threading.enumerate()}
    list(streamed.blocks(model.streams()[0]))
    readers = [t for t in threading.enumerate() if t.name.startswith("framewake-reader")]
    assert readers
    streamed.close()
    assert not [t for t in readers if t.is_alive() and t.ident in before | {r.ident for r in readers}]
    with pytest.raises(CheckpointError, match="closed"):
        next(iter(streamed.blocks(model.streams()[0])))


def test_a_store_that_is_forgotten_stops_too(engine, checkpoint):
    model, _, streamed = stores(checkpoint, "clip_text", engine)
    list(streamed.blocks(model.streams()[0]))
    (thread,) = streamed._reader._threads
    del streamed
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_a_streamed_block_is_no_part(engine, checkpoint):
    _, _, streamed = stores(checkpoint, "dit", engine)
    assert streamed.part("img_in") and list(streamed.blocks("txt_in.individual_token_refiner.blocks"))
    for prefix in ("", "double_blocks", "single_blocks.0"):
        with pytest.raises(CheckpointError, match="streamed"):
            streamed.part(prefix)
    with pytest.raises(CheckpointError, match="are asked for"):
        list(streamed.blocks("double_blocks", 99))
    streamed.close()


def test_bfloat16_is_rounded_to_the_nearest_even():
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(1).standard_normal(4096).astype(np.float32) ** 5
    values = np.concatenate([values, np.float32([0, -0.0, np.inf, -np.inf, np.nan, 1.00390625, 1.01171875, 3.4e38])])
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(from_bfloat16(to_bfloat16(values)), expected, equal_nan=True)
    assert narrowed(np.float32([1e6]), "float16")[0] == np.inf
