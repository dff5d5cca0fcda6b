"""Weights shared by several devices: a part of them on each, the results of whole ones bit for bit."""

from __future__ import annotations

import math
import os
import threading
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import shared_check
from engines_here import needs_torch
from ranks_here import together
from started import finished

from framewake import engine as engines
from framewake.config import DiTConfig
from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.pipeline.forecast import cost
from framewake.pipeline.forecast.place import fitting, said
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores.shared import Shared
from framewake.weights.stores.store import Resident
from framewake.weights.writing.files import write_tensors

STREAMS = ("double", "single")
SHAPES = {"head.weight": (3, 4), "double.0.a": (5, 7), "double.0.b": (3,), "double.1.a": (5, 7), "double.1.b": (3,)}
SHAPES |= {f"single.{n}.{name}": shape for n in range(3) for name, shape in (("w", (11, 2)), ("x", (1,)))}
NUMBERS = sum(math.prod(shape) for name, shape in SHAPES.items() if not name.startswith("head"))


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_tensors(file, rule.weights(SHAPES, 3))
    return MappedTensors(TensorFile(file), same(SHAPES))


class Counted:
    """Real tensors; ``numbers`` are those that were read of blocks."""

    def __init__(self, mapped):
        self.mapped, self.numbers = mapped, 0

    def values(self, name, dtype, *, empty=None):
        assert name.startswith("head"), "no tensor of a block is read as a whole"
        return self.mapped.values(name, dtype, empty=empty)

    def joined(self, runs, dtype, *, empty=None):
        self.numbers += sum(run.numbers for run in runs)
        return self.mapped.joined(runs, dtype, empty=empty)


def stored(rank, mapped, dtype="float32", *, is_streamed=False):
    return Shared(rank, mapped, dtype, shapes=SHAPES, streams=STREAMS, is_streamed=is_streamed)


def taken(engine, store, name, count=None):
    return [{n: engine.numpy(x) for n, x in block.items()} for block in store.blocks(name, count)]


def is_same(found, expected):
    return len(found) == len(expected) and all(
        one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)
        for one, other in zip(found, expected, strict=True)
    )


@needs_torch
@pytest.mark.parametrize("is_streamed", [False, True], ids=["kept", "streamed"])
@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_are_whole_again_and_a_part_is_read(mapped, ranks, dtype, is_streamed):
    engine = engines.get("torch:cpu")
    whole = Resident({name: engine.asarray(mapped.values(name, dtype), dtype) for name in SHAPES})
    expected = {name: taken(engine, whole, name) for name in STREAMS}

    def work(rank):
        tensors = Counted(mapped)
        store = stored(rank, tensors, dtype, is_streamed=is_streamed)
        for _ in range(2):  # two steps
            assert all(is_same(taken(engine, store, name), expected[name]) for name in STREAMS)
        settled(store)
        read = tensors.numbers
        assert is_same(taken(engine, store, "double", 1), expected["double"][:1]), "a step of which the rest is skipped"
        assert is_same(taken(engine, store, "single"), expected["single"])
        assert np.array_equal(engine.numpy(store.part("head")["weight"]), engine.numpy(whole.part("head")["weight"]))
        order = [("single", 2), ("double", 1), ("double", 1), ("single", 0)]
        walked = [{n: engine.numpy(x) for n, x in block.items()} for block in store.walk(order)]
        assert is_same(walked, [expected[name][number] for name, number in order])
        store.close()
        return read

    read = together(engine, ranks, work)
    assert max(read) - min(read) <= (11 if is_streamed else 5), "one number a block, at the most"
    # Streamed, each step reads every number once, all devices together, and the next step's first block is read ahead.
    first = sum(math.prod(SHAPES[f"double.0.{name}"]) for name in "ab")
    assert sum(read) == (2 * NUMBERS + first if is_streamed else NUMBERS)


def settled(store):
    """Wait for what is read ahead."""
    for future in getattr(store._own, "_ahead", {}).values():
        future.result()


@needs_torch
def test_a_file_that_is_cut_off_is_told_and_closing_stops_the_readers(tmp_path):
    file, engine = tmp_path / "w.safetensors", engines.get("torch:cpu")
    write_tensors(file, rule.weights(SHAPES, 3))

    def work(rank):
        store = stored(rank, MappedTensors(TensorFile(file), same(SHAPES)), is_streamed=True)
        assert len(taken(engine, store, "double")) == 2
        settled(store)
        meet(rank)
        os.truncate(file, 100)
        meet(rank)
        try:
            for _ in range(2):
                taken(engine, store, "single")
        finally:
            store.close()

    with pytest.raises(CheckpointError, match="cut off"):
        together(engine, 2, work)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("framewake-reader")]


def meet(rank):
    rank.exchange([rank.zeros((1,))] * rank.size(), [(1,)] * rank.size())()


@needs_torch
def test_what_is_asked_wrongly_is_told(mapped):
    def work(rank):
        store = stored(rank, mapped)
        with pytest.raises(CheckpointError, match="holds double"):
            store.part("double")
        with pytest.raises(CheckpointError, match="3 blocks 'double'"):
            store.blocks("double", 3)
        store.close()
        with pytest.raises(CheckpointError, match="closed"):
            next(store.blocks("double"))

    together(engines.get("torch:cpu"), 2, work)


@pytest.mark.parametrize("size", [2, 3])
def test_processes_have_whole_blocks(engine, tmp_path, size):
    if engine.kind == "mindspore" and size > 2:
        pytest.skip("each more takes MindSpore 20 seconds to start")
    write_tensors(tmp_path / "w.safetensors", rule.weights(shared_check.SHAPES, 3))
    script = Path(shared_check.__file__)
    finished(engine.kind, size, tmp_path, script, engine.name, str(tmp_path / "w.safetensors"))


class Inline:
    """An executor without a thread: what it does is counted like all else."""

    def submit(self, work, *args):
        done = Future()
        done.set_result(work(*args))
        return done


@needs_torch
@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("is_streamed", [False, True], ids=["kept", "streamed"])
def test_tensors_take_what_is_forecast(tmp_path, size, is_streamed):
    """Torch's transport that sends nothing: the buffers of exchanges are there, and go in time."""
    import torch.distributed as dist
    from counted_bytes import counted
    from torch.testing._internal.distributed.fake_pg import FakeStore

    engine, shapes, file = engines.get("torch:cpu"), shared_check.SHAPES, tmp_path / "w.safetensors"
    write_tensors(file, rule.weights(shapes, 3))
    mapped = MappedTensors(TensorFile(file), same(shapes))

    def steps():
        store = Shared(engine, mapped, "float32", shapes=shapes, streams=STREAMS, is_streamed=is_streamed)
        if is_streamed:
            store._own._reader.shutdown()
            store._own._reader = Inline()
        for _ in range(2):
            for name in STREAMS:
                for _ in store.blocks(name):
                    pass

    dist.init_process_group("fake", store=FakeStore(), rank=size - 1, world_size=size)
    try:
        found = counted(steps, ())
    finally:
        dist.destroy_process_group()
    held = cost.weights(shapes, STREAMS, "float32")
    expected = held.shared_and_streamed(size) if is_streamed else held.shared(size)
    assert found == pytest.approx(expected, rel=1e-4)  # runs differ by one number
    assert held.shared_and_streamed(size) < held.shared(size) < held.whole


def test_shared_comes_between_whole_and_streamed():
    held, sizes = cost.Weights(whole=1000, kept=100, block=30), [(None, 50), (8, 20)]

    def kind(room, devices):
        place = fitting(held, sizes, room, has_streams=True, devices=devices)
        return place.is_shared, place.is_streamed, place.chunk_tokens

    assert held.shared(4) == 100 + 225 + 106 and held.shared_and_streamed(4) == 100 + 16 + 106
    assert [kind(room, 4) for room in (1050, 1020, 481, 451, 272, 242, 210, 180)] == [
        (False, False, None),
        (False, False, 8),
        (True, False, None),
        (True, False, 8),
        (True, True, None),
        (True, True, 8),
        (False, True, None),
        (False, True, 8),
    ]
    assert kind(481, 1) == (False, True, None)
    place = fitting(held, sizes, 272, has_streams=True, devices=4)
    assert said(place._replace(part="transformer")).startswith("transformer: shared by the devices and streamed (")


def test_a_device_of_several_needs_its_share():
    config = DiTConfig(
        (1, 2, 2), 33, 16, 3072, 24, (16, 56, 56), 256.0, 4.0, 20, 40, 2, 4096, 768, "token_replace", True
    )
    # With the 24 tensors that the specification counts; a device other than a processor takes fewer.
    scenes = [cost.Scene(1, 118_800, 400, "bfloat16", False, devices=count, is_host=True) for count in (1, 2, 4, 8)]
    memory = [cost.step_bytes(config, scene) / 2**30 for scene in scenes]
    assert memory == pytest.approx([16.5 + 0.0, 8.3 + 1.7, 4.2 + 0.9, 2.1 + 0.5], abs=0.35)
    operations = [cost.step_operations(config, scene) for scene in scenes]
    assert [operations[0] / each for each in operations] == pytest.approx([1, 2, 4, 8], rel=0.01)
