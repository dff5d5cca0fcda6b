"""The view of a store through LoRAs: exact to the bit when changed or taken away, several at once, kept or not."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import BASE, TARGETS, adapted, expected, keys_of, write
from toy_checkpoint import DIT, write_toy

from framewake.errors import InputError
from framewake.models.dit import DiT
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.keys import Module
from framewake.weights.lora.targets import Place
from framewake.weights.lora.updates import WeightUpdate
from framewake.weights.lora.view import PART, LoraView, Merger
from framewake.weights.stores.store import Resident

BLOCK = "double_blocks.0.img_mod.linear.weight"
OTHER = "single_blocks.0.linear2.weight"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    every = open_lora(write(folder / "a.safetensors", keys_of("kohya")), TARGETS)
    some = open_lora(write(folder / "b.safetensors", keys_of("official", alpha=None, names=[BLOCK])), TARGETS)
    return every, some


def store(engine, dtype="float32"):
    return Resident({name: engine.asarray(x, dtype) for name, x in BASE.items()})


def bits(engine, tensors):
    return {name: np.array(engine.numpy(x)) for name, x in tensors.items()}


def assert_same(found, wanted):
    assert set(found) == set(wanted)
    assert all(np.array_equal(found[name], wanted[name]) for name in found)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_removing_and_changing_is_exact(engine, files, dtype):
    base = store(engine, dtype)
    before = bits(engine, base.part(""))
    view = LoraView(engine, base, files)
    first = bits(engine, view.part(""))
    view.use([0.3, -2.0])
    assert not np.array_equal(bits(engine, view.part(""))[BLOCK], first[BLOCK])
    view.use([0.0, 0.0])
    assert all(view.part("")[name] is x for name, x in base.part("").items())
    view.use([1.0, 1.0])
    assert_same(bits(engine, view.part("")), first)
    assert_same(bits(engine, base.part("")), before)
    assert {engine.dtype(x) for x in view.part("").values()} == {dtype}


def test_several_are_added_before_rounding_once(engine, files):
    view = LoraView(engine, store(engine, "bfloat16"), files)
    view.use([0.5, 0.25])
    base = engine.numpy(engine.asarray(BASE[BLOCK], "bfloat16")).astype(np.float64)
    want = base + (expected(BLOCK, 0.5) - BASE[BLOCK]) + (expected(BLOCK, 0.25, alpha=None) - BASE[BLOCK])
    rounded = engine.numpy(engine.asarray(want.astype(np.float32), "bfloat16"))
    found = engine.numpy(view.part("")[BLOCK])
    # A sum in float32 may fall on the other side of a rounding border of bfloat16, and only then.
    differs = found != rounded
    assert differs.mean() < 0.001
    assert np.abs(found - want).max() <= np.abs(want).max() * 2**-8


def test_blocks_and_parts_agree(engine, files):
    view = LoraView(engine, store(engine), files)
    whole = bits(engine, view.part(""))
    for name in ("double_blocks", "single_blocks", "txt_in.individual_token_refiner.blocks"):
        [block] = view.blocks(name, 1)
        assert_same(bits(engine, block), bits(engine, view.part(f"{name}.0")))
        assert all(np.array_equal(engine.numpy(x), whole[f"{name}.0.{key}"]) for key, x in block.items())
    changed = [name for name in whole if not np.array_equal(whole[name], BASE[name])]
    assert sorted(changed) == sorted(adapted())


def test_kept_until_the_scales_change(engine, files):
    base = store(engine)
    view = LoraView(engine, base, files)
    [first], [again] = list(view.blocks("double_blocks")), list(view.blocks("double_blocks"))
    assert first is again
    view.use([1.0, 1.0])
    assert next(view.blocks("double_blocks")) is first
    view.use([1.0, 0.5])
    assert next(view.blocks("double_blocks")) is not first
    streaming = LoraView(engine, base, files, keeps=False)
    one, two = next(streaming.blocks("double_blocks")), next(streaming.blocks("double_blocks"))
    assert one is not two
    assert_same(bits(engine, one), bits(engine, two))
    assert_same(bits(engine, one), bits(engine, first))


def test_only_what_a_lora_touches_is_copied(engine, files):
    base = store(engine)
    merger = Merger(engine, files[1:])
    assert merger.touches(BLOCK, [1.0]) and not merger.touches(BLOCK, [0.0]) and not merger.touches(OTHER, [1.0])
    tensor = base.part("")[OTHER]
    assert merger.merged(OTHER, tensor, [1.0]) is tensor


def test_as_many_scales_as_loras(engine, files):
    with pytest.raises(InputError, match="1 scales for 2 LoRAs"):
        LoraView(engine, store(engine), files).use([1.0])


def test_over_weights_that_stream(engine, files, tmp_path):
    checkpoint = open_checkpoint(write_toy(tmp_path))
    shapes = DiT(None, DIT).shapes()
    streams = ("double_blocks", "single_blocks")
    stores = [checkpoint.store("dit", engine, "bfloat16", shapes=shapes, streams=s) for s in ((), streams)]
    resident, streamed = (LoraView(engine, s, files, keeps=k) for s, k in zip(stores, (True, False), strict=True))
    for scales in ([1.0, 0.5], [0.0, 2.0]):
        resident.use(scales)
        streamed.use(scales)
        for name in streams:
            for want, found in zip(resident.blocks(name), streamed.blocks(name), strict=True):
                assert_same(bits(engine, found), bits(engine, want))
        assert_same(bits(engine, streamed.part("txt_in")), bits(engine, resident.part("txt_in")))
    stores[1].close()


def test_a_large_weight_is_merged_in_parts(engine):
    """Pieces that end anywhere in a part, rows that none of them has, and two adapters at once."""
    rows, columns, rank = 1700, 3000, 4
    draw = np.random.default_rng(4)
    base = draw.standard_normal((rows, columns), np.float32)
    first, second = Pieces(draw, columns, rank, [(100, 801), (801, 1500)]), Pieces(draw, columns, rank, [(0, rows)])
    want = base + 0.5 * first.change(base.shape) + 2.0 * second.change(base.shape)
    assert rows * columns > 2 * PART
    merger = Merger(engine, [first, second])
    found = engine.numpy(merger.merged("x.weight", engine.asarray(base), (0.5, 2.0)))
    assert np.abs(found - want).max() <= 2e-6 * np.abs(want).max()
    assert np.array_equal(
        found[1600:], engine.numpy(merger.merged("x.weight", engine.asarray(base), (0.0, 2.0)))[1600:]
    )


class Pieces:
    """An adapter of one weight, made of several products."""

    def __init__(self, draw, columns, rank, places):
        self.parts = {}
        self.updates = []
        for number, (start, stop) in enumerate(places):
            keys = {"up": f"{number}.up", "down": f"{number}.down"}
            self.parts[keys["up"]] = draw.standard_normal((stop - start, rank), np.float32)
            self.parts[keys["down"]] = draw.standard_normal((rank, columns), np.float32)
            module = Module("x", False, True, keys)
            self.updates.append(WeightUpdate(module, Place("x.weight", start, stop), "product", keys, rank, 2.0 * rank))

    def by_weight(self):
        return {"x.weight": self.updates}

    def factor(self, update):
        return update.factor()

    def part(self, update, name):
        return self.parts[update.keys[name]]

    def change(self, shape):
        found = np.zeros(shape, np.float32)
        for update in self.updates:
            up, down = self.part(update, "up"), self.part(update, "down")
            found[update.place.start : update.place.stop] = 2.0 * (up @ down)
        return found
