"""The transformer a chunk of tokens at a time: the same rows, whatever the chunk."""

from __future__ import annotations

import pytest
from dit_toy import Toy, largest

from framewake.models.dit_blocks import cut
from framewake.models.manner import Manner


def test_chunks_cover_every_token_once_and_keep_to_their_group():
    chunks = cut((3, 0, 7), 3)
    assert [chunk[:2] for chunk in chunks] == [(0, 3), (3, 5), (5, 7), (7, 10)], "of nearly equal sizes"
    assert [chunk.counts for chunk in chunks] == [(3, 0, 0), (0, 0, 2), (0, 0, 2), (0, 0, 3)]
    assert cut((3, 0, 7), None) == ((0, 10, (3, 0, 7)),)


@pytest.mark.parametrize("condition", ["token_replace", "none"])
@pytest.mark.parametrize("size", [1, 4, 5, 1000])
def test_chunks_change_next_to_nothing(engine, condition, size):
    toy = Toy(engine, condition=condition)
    inputs = toy.inputs()
    expected = toy(**inputs)
    toy.manner = Manner(chunk_tokens=size)
    found = largest(toy(**inputs), expected)
    assert found < 2e-6, found


def test_chunks_with_texts_of_two_lengths(engine):
    toy = Toy(engine)
    inputs = toy.inputs(batch=2, lengths=(7, 4))
    expected = toy(**inputs)
    toy.manner = Manner(chunk_tokens=4)
    found = largest(toy(**inputs), expected)
    assert found < 2e-6, found
