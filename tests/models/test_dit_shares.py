"""The transformer over several devices, ranks as threads: one device's result, and the exchanges that it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dit_toy import Toy, largest
from engines_here import needs_torch
from ranks_here import together
from started import finished

from framewake import engine as engines
from framewake.errors import InputError
from framewake.models.arrangement import Arrangement, Division, arrange, runs
from framewake.models.manner import PLAIN, Manner
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores.shared import Shared
from framewake.weights.writing.files import write_tensors

pytestmark = needs_torch
CLOSE = 2e-6
WIDE = {"hidden_size": 24 * 8, "heads": 24, "rope_dims": (2, 2, 4), "double_blocks": 1, "single_blocks": 1}
BLOCKS = 4  # of a toy that is not told otherwise


def spread(arrangement, *, manner=PLAIN, seen=None, changes=None, **kinds):
    """The largest difference of any rank to one device; ``seen`` gets the numbers that each rank sent."""
    engine = engines.get("torch:cpu")
    one = Toy(engine, **(changes or {}))
    expected = one(**one.inputs(**kinds))

    def work(rank):
        toy = Toy(rank, **(changes or {}))
        toy.manner = replace(manner, arrangement=arrangement)
        found = toy(**toy.inputs(**kinds))
        if seen is not None:
            seen[rank.rank()] = rank.sent
        return found

    return max(largest(found, expected) for found in together(engine, arrangement.size, work))


@pytest.mark.parametrize(
    "arrangement", [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (3, 2), (2, 2), (1, 5), (3, 3)], ids=str
)
@pytest.mark.parametrize("condition", ["token_replace", "none"])
def test_ranks_give_what_one_device_gives(arrangement, condition):
    assert spread(Arrangement(*arrangement), changes={"condition": condition}) <= CLOSE


@pytest.mark.parametrize("arrangement", [(5, 1), (7, 1), (16, 1), (24, 1), (8, 2), (5, 5)], ids=str)
def test_many_ranks_with_the_published_heads(arrangement):
    """24 heads over 5, 7 and 16 ranks: uneven shares of heads and of tokens."""
    assert spread(Arrangement(*arrangement), changes=WIDE, size=(3, 6, 10)) <= CLOSE


@pytest.mark.parametrize("chunk", [1, 4, 7])
def test_in_chunks(chunk):
    assert spread(Arrangement(3, 1), manner=Manner(chunk_tokens=chunk), size=(3, 6, 6)) <= CLOSE


@pytest.mark.parametrize("size", [(1, 4, 6), (1, 2, 6), (5, 2, 2)])
def test_one_frame_and_as_few_tokens_as_ranks(size):
    assert spread(Arrangement(3, 1), size=size) <= CLOSE
    assert spread(Arrangement(1, 3), size=size) <= CLOSE


def test_latent_concat():
    assert spread(Arrangement(2, 1), changes={"condition": "latent_concat", "in_channels": 9}) <= CLOSE


@pytest.mark.parametrize(
    "arrangement", [(3, 1), (2, 2), (1, 1, True), (2, 1, True), (3, 1, True), (1, 2, True), (2, 2, True)], ids=str
)
def test_two_samples_with_texts_of_different_lengths(arrangement):
    assert spread(Arrangement(*arrangement), batch=2, lengths=(7, 4)) <= CLOSE


class Bucketed:
    """The engine as one that pads text for compiled blocks; what is compiled is left as it is written."""

    def __init__(self, engine):
        self._engine, self.traits = engine, replace(engine.traits, text_bucket=64)

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def compile(self, function):
        return function


@pytest.mark.parametrize("arrangement", [(3, 1), (1, 2), (1, 1, True)], ids=str)
def test_texts_padded_to_their_bucket(arrangement):
    engine, kinds = engines.get("torch:cpu"), {"batch": 2, "lengths": (7, 4)}
    one = Toy(engine)
    expected = one(**one.inputs(**kinds))

    def work(rank):
        toy = Toy(rank)
        toy.manner = Manner(is_compiled=True, arrangement=Arrangement(*arrangement))
        return toy(**toy.inputs(**kinds))

    found = together(Bucketed(engine), Arrangement(*arrangement).size, work)
    assert max(largest(each, expected) for each in found) <= CLOSE


def test_a_rank_sends_what_the_formula_says():
    """Two exchanges in each block and one at the end; the numbers are those of the specification's table."""
    seen: dict[int, list[int]] = {}
    spread(Arrangement(3, 1), seen=seen)
    tokens, text, width = 18, 7, 48
    own, head = tokens // 3, width // 3
    for sent in seen.values():
        there, back = own * 3 * head * 2, (own + text) * head * 2
        assert sent == [there, back] * BLOCKS + [own * 16 * 2]
    spread(Arrangement(1, 3), seen=seen)
    for sent in seen.values():
        assert sent == [own * 2 * width * 2] * BLOCKS + [own * 16 * 2], "nothing has to be brought back"
    spread(Arrangement(1, 1, is_halved=True), seen=seen, batch=2, lengths=(7, 4))
    assert [seen[rank] for rank in range(2)] == [[0, 0, 0, 0, tokens * 16]] * 2, "halves do not talk before the end"


def test_another_arrangement_of_the_same_model_gets_functions_of_its_own():
    engine = engines.get("torch:cpu")
    one = Toy(engine)
    kinds = [{}, {"size": (3, 4, 8)}, {}]
    arrangements = [Arrangement(3, 1), Arrangement(1, 3), Arrangement(3, 1)]

    def work(rank):
        toy, found = Toy(rank), []
        for arrangement, kind in zip(arrangements, kinds, strict=True):
            toy.manner = Manner(arrangement=arrangement)
            found.append((toy(**toy.inputs(**kind)), len(rank.sent)))
        return found

    for results in together(engine, 3, work):
        for (found, _), kind in zip(results, kinds, strict=True):
            assert largest(found, one(**one.inputs(**kind))) <= CLOSE
        assert [count for _, count in results] == [9, 14, 23]


@pytest.mark.parametrize("is_streamed", [False, True], ids=["kept", "streamed"])
def test_weights_shared_by_the_same_devices_change_no_bit(tmp_path, is_streamed):
    engine, file = engines.get("torch:cpu"), tmp_path / "dit.safetensors"
    write_tensors(file, {name: engine.numpy(tensor) for name, tensor in Toy(engine).tensors.items()})

    def made(rank, *, is_shared):
        toy = Toy(rank)
        toy.manner, shapes = Manner(arrangement=Arrangement(3, 1)), toy.dit.shapes()
        if is_shared:
            mapped = MappedTensors(TensorFile(file), same(shapes))
            streams = toy.dit.streams()
            toy.weights = Shared(rank, mapped, "float32", shapes=shapes, streams=streams, is_streamed=is_streamed)
        found = [toy(**toy.inputs()) for _ in range(2)]
        toy.weights.close()
        return found

    whole = together(engine, 3, lambda rank: made(rank, is_shared=False))
    assert np.array_equal(together(engine, 3, lambda rank: made(rank, is_shared=True)), whole)


def test_alone_among_several_nothing_is_exchanged():
    def work(rank):
        toy = Toy(rank)
        return toy(**toy.inputs()), rank.sent

    engine = engines.get("torch:cpu")
    toy = Toy(engine)
    for found, sent in together(engine, 2, work):
        assert np.array_equal(found, toy(**toy.inputs())) and sent == []


@pytest.mark.parametrize(
    ("devices", "more", "expected"),
    [
        (1, {}, (1, 1, False)),
        (2, {}, (2, 1, False)),
        (8, {}, (8, 1, False)),
        (5, {}, (5, 1, False)),
        (16, {}, (8, 2, False)),
        (7, {}, (1, 7, False)),
        (10, {}, (5, 2, False)),
        (16, {"on_one_host": 4}, (4, 4, False)),
        (12, {"on_one_host": 6}, (6, 2, False)),
        (16, {"on_one_host": 6}, (2, 8, False)),
        (25, {}, (5, 5, False)),
        (48, {}, (24, 2, False)),
        (29, {}, (1, 29, False)),
        (2, {"samples": 2}, (1, 1, True)),
        (8, {"samples": 2}, (4, 1, True)),
        (3, {"samples": 2}, (3, 1, False)),
    ],
)
def test_the_arrangement_that_wastes_least(devices, more, expected):
    found = arrange(devices, 24, **more)
    assert found == expected and found.size == devices


def test_every_token_and_head_is_somebodys():
    for arrangement in (Arrangement(5, 1), Arrangement(5, 3), Arrangement(5, 3, is_halved=True)):
        divisions = [Division(arrangement, rank, 75, 24) for rank in range(arrangement.size)]
        for each in divisions:
            covered = [token for rank in each.together for token in range(*each.run_of(rank))]
            assert covered == list(range(75))
            assert [head for rank in each.near for head in range(*each.heads_of(rank))] == list(range(24))
    assert [stop - start for start, stop in runs(24, 5)] == [4, 5, 5, 5, 5]


@pytest.mark.parametrize(
    ("arrangement", "words"),
    [(Arrangement(4, 1), "4 devices cannot share 3 heads"), (Arrangement(1, 4), "4 devices cannot share 2 tokens")],
)
def test_what_cannot_be_shared_is_refused(arrangement, words):
    with pytest.raises(InputError, match=words):
        spread(arrangement, size=(1, 2, 4) if "tokens" in words else (3, 4, 6))


def test_compiled_blocks_of_processes_give_the_same(tmp_path):
    finished("torch", 2, tmp_path, Path(__file__).with_name("compiled_check.py"), seconds=400)
    for rank in range(2):
        worst, _, reason = (tmp_path / f"worst{rank}").read_text().partition(" ")
        assert float(worst) < 5e-6 and reason == ""
