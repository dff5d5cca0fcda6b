"""The walk over blocks that are streamed forward and backward."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from toy_training import Task, apart, batch_of

from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores.streamed import Streamed
from framewake.weights.writing.files import write_tensors

BLOCKS = [("double_blocks", 0), ("double_blocks", 1), ("single_blocks", 0), ("single_blocks", 1)]


class Read:
    """Real tensors that tell which blocks were read, and fail at one when asked to."""

    def __init__(self, tensors):
        self.tensors, self.blocks, self.fault = tensors, [], None

    def values(self, name, dtype, *, empty=None):
        kind, number, *_ = name.split(".")
        if kind in ("double_blocks", "single_blocks") and self.blocks[-1:] != [(kind, int(number))]:
            self.blocks.append((kind, int(number)))
            if self.blocks[-1] == self.fault:
                raise OSError("the disk was pulled out")
        return self.tensors.values(name, dtype, empty=empty)


@pytest.fixture
def streamed(engine, tmp_path):
    """A task, what was read of its base, and its base as a stream."""
    task = Task(engine)
    write_tensors(tmp_path / "dit.safetensors", rule.weights(task.shapes, 7))
    read = Read(MappedTensors(TensorFile(tmp_path / "dit.safetensors"), same(task.shapes)))
    store = Streamed(engine, read, "float32", names=task.shapes, streams=("double_blocks", "single_blocks"))
    yield task, read, store
    store.close()


def settled(store):
    """Wait for what is read ahead."""
    for future in list(store._ahead.values()):
        future.result()


def test_streaming_changes_no_bit_and_reads_no_block_twice_running(streamed):
    task, read, store = streamed
    batch, walk, back = batch_of(task.engine, 2), task.walk(), BLOCKS[::-1][1:]
    expected = walk(task.factors, task.resident(), batch)
    for update in range(3):
        loss, found = walk(task.factors, store, batch)
        assert loss == expected[0] and apart(found, expected[1]) == 0
        settled(store)
        # The last block turns around where it is, the first stays for the next update, whose second is read ahead.
        first = BLOCKS if update == 0 else BLOCKS[2:]
        assert read.blocks == [*first, *back, BLOCKS[1]], f"update {update + 1}"
        read.blocks.clear()


def test_at_most_two_blocks_are_alive(streamed):
    task, _, store = streamed
    if not task.engine.traits.holds_arrays:
        pytest.skip("MindSpore's tensors take no weak reference")
    alive, counts = {}, []

    class Watched:
        part, blocks = store.part, store.blocks

        def walk(self, order):
            for block in store.walk(order):
                # A block that comes twice is one.
                alive.update({tuple(map(id, block.values())): [weakref.ref(x) for x in block.values()]})
                yield block
                settled(store)
                del block
                gc.collect()
                counts.append(
                    sum(any(ref() is not None for ref in refs) for refs in alive.values()) + len(store._ahead)
                )

    walk = task.walk()
    for _ in range(2):
        walk(task.factors, Watched(), batch_of(task.engine, 1))
    assert max(counts) == 2


def test_blocks_in_an_order_that_was_not_read_ahead(streamed):
    task, _, store = streamed
    for order in (BLOCKS, BLOCKS[1:3], [BLOCKS[3], BLOCKS[0], BLOCKS[0]], BLOCKS[2:3]):
        pairs = list(zip(store.walk(order), task.resident().walk(order), strict=True))
        for ours, theirs in pairs:
            assert all(np.array_equal(task.engine.numpy(ours[key]), task.engine.numpy(theirs[key])) for key in theirs)
    assert len(list(store.blocks("double_blocks"))) == 2, "a clip may follow"


def test_a_block_that_cannot_be_read_is_named(streamed):
    task, read, store = streamed
    walk, batch = task.walk(), batch_of(task.engine, 1)
    for fault in (BLOCKS[3], BLOCKS[1]):
        read.fault = fault
        with pytest.raises(CheckpointError, match=rf"{fault[0]}\.{fault[1]}\..*pulled out"):
            walk(task.factors, store, batch)
