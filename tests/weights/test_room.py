"""Memory for streamed blocks: never two owners at a time, used again, bounded, and given back."""

from __future__ import annotations

import gc

import numpy as np
import pytest

from framewake import engine as engines
from framewake.weights.reading.direct import BLOCK, LEAST
from framewake.weights.stores.room import Room

SHAPE = (64, 1024)
SIZE = 64 * 1024 * 4


def place(array):
    return array.__array_interface__["data"][0]


@pytest.fixture
def room():
    room = Room()
    room.announce([SIZE])
    yield room
    room.close()


def test_memory_is_used_again_only_when_no_view_of_it_is_left(room):
    first = room.empty(SHAPE, np.float32)
    assert first.shape == SHAPE and first.dtype == np.float32 and first.flags.writeable
    first[:] = 1
    where, view = place(first), first.view(np.uint32)[3:, ::2]
    del first
    gc.collect()
    other = room.empty(SHAPE, np.float32)
    assert place(other) != where, "a view was left"
    other[:] = 2
    assert (view == np.float32(1).view(np.uint32)).all()
    del view
    again = room.empty((SIZE // 2,), np.uint16)
    assert place(again) == where and room.held() == 2 * SIZE


def test_a_tensor_keeps_its_memory(room):
    pytest.importorskip("torch")
    engine = engines.get("torch:cpu")
    bits = room.empty(SHAPE, np.uint16)
    bits[:] = 0x3F80  # one
    tensor, where = engine.asarray(bits, "bfloat16"), place(bits)
    del bits
    part = tensor[1:]
    del tensor
    gc.collect()
    other = room.empty(SHAPE, np.uint16)
    other[:] = 0
    assert place(other) != where and (engine.numpy(part) == 1).all()
    del part
    assert place(room.empty(SHAPE, np.uint16)) == where


def test_no_more_than_two_blocks_are_kept(room):
    held = [room.empty(SHAPE, np.float32) for _ in range(5)]
    assert room.held() == 5 * SIZE, "what is in use is never taken away"
    del held
    small = room.empty((3,), np.float32)
    assert room.held() <= 2 * SIZE
    del small
    room.announce([8 * SIZE])
    held = [room.empty(SHAPE, np.float32) for _ in range(5)]
    del held
    room.empty((5,), np.float32)
    assert room.held() > 5 * SIZE


def test_closing_gives_back_what_is_free_now_and_the_rest_later():
    room = Room()
    room.announce([SIZE])
    kept, gone = room.empty(SHAPE, np.float32), room.empty(SHAPE, np.float32)
    del gone
    room.close()
    assert room.held() == SIZE
    kept[:] = 3
    assert kept.sum() == 3 * kept.size
    del kept
    assert room.held() == 0


def test_nothing_needs_no_memory(room):
    assert room.empty((0, 7), np.float32).shape == (0, 7) and room.held() == 0


def test_memory_begins_where_the_bytes_of_a_file_do():
    room = Room(lies_as_file=True)
    room.announce([LEAST, LEAST, 40])
    for start in (0, 8, BLOCK - 2, 5 * BLOCK + 96):
        large, small = room.empty((LEAST // 4,), np.float32, start=start), room.empty((10,), np.float32, start=start)
        assert place(large) % BLOCK == start % BLOCK
        large[:], small[:] = start, 1
        assert large.sum(dtype=np.float64) == start * large.size and small.sum() == 10
        assert room.held() == LEAST + BLOCK + 40, "the same memory, at another place"
        del large, small
    room.close()
    assert room.held() == 0
