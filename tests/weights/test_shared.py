"""Weights shared by several devices: a part of them on each, the results of whole ones bit for bit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from engines_here import needs_torch
from ranks_here import together

from framewake import engine as engines
from framewake.config import DiTConfig
from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.pipeline.forecast import cost
from framewake.pipeline.forecast.place import fitting
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores.shared import Shared
from framewake.weights.stores.store import Resident
from framewake.weights.writing.files import write_tensors

STREAMS = ("double", "single")
SHAPES = {"head.weight": (3, 4), "double.0.a": (5, 7), "double.0.b": (3,), "double.1.a": (5, 7), "double.1.b": (3,)}
SHAPES |= {f"single.{n}.{name}": shape for n in range(3) for name, shape in (("w", (11, 2)), ("x", (1,)))}
pytestmark = needs_torch


@pytest.fixture(scope="module")
def mapped(tmp_path_factory):
    file = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_tensors(file, rule.weights(SHAPES, 3))
    return MappedTensors(TensorFile(file), same(SHAPES))


def stored(rank, mapped, dtype="float32"):
    return Shared(rank, mapped, dtype, shapes=SHAPES, streams=STREAMS)


def taken(engine, store, name, count=None):
    return [{n: engine.numpy(x) for n, x in block.items()} for block in store.blocks(name, count)]


def is_same(found, expected):
    return len(found) == len(expected) and all(
        one.keys() == other.keys() and all(np.array_equal(one[n], other[n]) for n in one)
        for one, other in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("ranks", [2, 3, 5])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_blocks_are_whole_again_and_a_part_is_kept(mapped, ranks, dtype):
    engine = engines.get("torch:cpu")
    whole = Resident({name: engine.asarray(mapped.values(name, dtype), dtype) for name in SHAPES})
    expected = {name: taken(engine, whole, name) for name in STREAMS}
    numbers = sum(math.prod(shape) for name, shape in SHAPES.items() if not name.startswith("head"))

    def work(rank):
        store = stored(rank, mapped, dtype)
        for _ in range(2):  # two steps
            assert all(is_same(taken(engine, store, name), expected[name]) for name in STREAMS)
        assert is_same(taken(engine, store, "double", 1), expected["double"][:1]), "a step of which the rest is skipped"
        assert is_same(taken(engine, store, "single"), expected["single"])
        assert np.array_equal(engine.numpy(store.part("head")["weight"]), engine.numpy(whole.part("head")["weight"]))
        order = [("single", 2), ("double", 1), ("double", 1), ("single", 0)]
        walked = [{n: engine.numpy(x) for n, x in block.items()} for block in store.walk(order)]
        assert is_same(walked, [expected[name][number] for name, number in order])
        held = store.held()
        store.close()
        return held

    kept = together(engine, ranks, work)
    assert sum(kept) == numbers and max(kept) - min(kept) <= 5, "one number a block, at the most"


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


def test_shared_comes_between_whole_and_streamed():
    held, sizes = cost.Weights(whole=1000, kept=100, block=30), [(None, 50), (8, 20)]

    def kind(room, devices):
        place = fitting(held, sizes, room, has_streams=True, devices=devices)
        return place.is_shared, place.is_streamed, place.chunk_tokens

    assert held.shared(4) == 100 + 225 + 90
    assert [kind(room, 4) for room in (1050, 1020, 465, 435, 210, 180)] == [
        (False, False, None),
        (False, False, 8),
        (True, False, None),
        (True, False, 8),
        (False, True, None),
        (False, True, 8),
    ]
    assert kind(465, 1) == (False, True, None)


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
