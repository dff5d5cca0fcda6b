"""HunyuanVideo-1.5's models: published tensors, and what golden cases do not show."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from engines_here import FIRST

from framewake import engine as engines
from framewake.config15 import (
    GLYPH_BYT5,
    HUNYUAN15_DIT,
    HUNYUAN15_VAE,
    QWEN25_VL_7B,
    SIGLIP_SO400M,
    TILES,
    TileRule,
)
from framewake.errors import InputError
from framewake.golden import rule
from framewake.models.dit import TextPart, TextStates
from framewake.models.dit15 import GLYPH, VISION, DiT15
from framewake.models.manner import Manner
from framewake.models.qwen import Qwen
from framewake.models.siglip import Siglip
from framewake.models.t5 import T5Encoder, position_buckets
from framewake.models.tile_attention import Tiling, block_mask, near
from framewake.models.vae15 import CellVAE
from framewake.nn.rope import rope_table
from framewake.weights.reading.names15 import tencent_dit
from framewake.weights.stores.store import Resident

DATA = Path(__file__).parent.parent / "data"
TOY = replace(
    HUNYUAN15_DIT,
    in_channels=9,
    out_channels=4,
    hidden_size=32,
    heads=2,
    rope_dims=(4, 6, 6),
    double_blocks=2,
    text_width=12,
    glyph_widths=(10, 14, 16),
    vision_width=8,
)
TOY_VAE = replace(HUNYUAN15_VAE, latent_channels=4, block_out_channels=(8, 8, 16, 32, 32), layers_per_block=1)


def published(name):
    return {key: tuple(shape) for key, shape in json.loads((DATA / name).read_text()).items()}


def numbers(shapes):
    return sum(int(np.prod(shape)) for shape in shapes.values())


def test_the_transformer_has_the_published_tensors():
    keys = published("dit15-keys.json")
    rules = tencent_dit(keys, HUNYUAN15_DIT.hidden_size)
    assert len(keys) == 1793 and {name for each in rules for name in each.theirs} == set(keys)
    assert DiT15(engines.get(FIRST), HUNYUAN15_DIT).shapes() == {e.ours: e.shape(keys.__getitem__) for e in rules}
    distilled = DiT15(engines.get(FIRST), replace(HUNYUAN15_DIT, is_step_distilled=True))
    assert numbers(distilled.shapes()) == 8_331_330_848


def test_the_autoencoder_has_the_published_tensors():
    keys = published("vae15-keys.json")
    assert len(keys) == 218 and CellVAE(engines.get(FIRST), HUNYUAN15_VAE).shapes() == keys


def test_the_encoders_have_as_many_parameters_as_were_published():
    engine = engines.get(FIRST)
    assert numbers(T5Encoder(engine, GLYPH_BYT5).shapes()) == 219_314_944
    siglip, qwen = Siglip(engine, SIGLIP_SO400M), Qwen(engine, QWEN25_VL_7B)
    assert 0 < 428_225_600 - numbers(siglip.shapes()) < 15_300_000, "the pooling head is left out"
    layer = numbers(qwen.shapes()) - 152064 * 3584
    assert numbers(qwen.shapes()) + layer // 26 * 2 + 3584 == 7_070_619_136, "26 of 28 layers, without the last norm"


class Toy:
    """A transformer of random numbers, and something to hand in."""

    def __init__(self, engine, config=TOY):
        self.engine = engine
        self.dit = DiT15(engine, config)
        arrays = rule.weights(self.dit.shapes(), seed=4)
        self.weights = Resident({name: engine.asarray(array) for name, array in arrays.items()})

    def drawn(self, name, *shape):
        return self.engine.asarray(rule.input(name, shape, 5))

    def __call__(self, *, quoted=(3, 0), valid=(4, 6), manner=None, **more):
        further = {VISION: TextPart(self.drawn("vision", 2, 5, 8), (5, 5))}
        further[GLYPH] = TextPart(self.drawn("glyph", 2, 4, 10), quoted)
        text = TextStates(self.drawn("text", 2, 6, 12), valid, None, further)
        rope = tuple(self.engine.asarray(x) for x in rope_table((2, 2, 3), TOY.rope_dims, TOY.rope_theta))
        told = {"timestep": self.engine.asarray([900.0, 900.0], "float32"), "text": text, "rope": rope} | more
        latents = self.drawn("latents", 2, 9, 2, 2, 3)
        return self.engine.numpy(self.dit(self.weights, latents, **told, manner=manner or Manner()))


def test_chunks_and_compiled_blocks_give_the_same(engine):
    toy = Toy(engine)
    plain = toy()
    for manner in (Manner(chunk_tokens=5), Manner(is_compiled=True)):
        assert np.abs(toy(manner=manner) - plain).max() < 1e-5


def test_what_is_not_valid_has_no_influence(engine):
    toy = Toy(engine)
    less = toy(quoted=(0, 0))
    assert np.abs(less[1] - toy()[1]).max() < 1e-5 < np.abs(less[0] - toy()[0]).max()


def test_where_a_step_ends_is_told_to_whoever_knows_it(engine):
    until = engine.asarray([800.0, 800.0], "float32")
    with pytest.raises(InputError, match="only a step-distilled transformer"):
        Toy(engine)(until=until)
    distilled = Toy(engine, replace(TOY, is_step_distilled=True))
    with pytest.raises(InputError, match="it has to be"):
        distilled()
    assert np.abs(distilled(until=until) - distilled(until=until * 0.5)).max() > 1e-3


@pytest.mark.parametrize("each", [1, 2, 9])
def test_a_clip_decoded_in_pieces_is_the_same(engine, each):
    vae = CellVAE(engine, TOY_VAE)
    w = {name: engine.asarray(array) for name, array in rule.weights(vae.shapes(), seed=6).items()}
    latents = engine.asarray(rule.input("z", (1, 4, 5, 2, 3), 6))
    whole = engine.numpy(vae.decode(w, latents))
    pieces = engine.numpy(vae.decode_slabs(w, latents, each * 8 * 4 * 256 * 6))
    assert whole.shape == pieces.shape == (1, 3, 17, 32, 48)
    assert np.abs(whole - pieces).max() < 3e-5 * np.abs(whole).max()
    start = engine.numpy(vae.decode(w, latents[:, :, :3]))
    assert np.abs(whole[:, :, :9] - start).max() < 3e-5 * np.abs(whole).max(), "nothing looks ahead"


@pytest.mark.parametrize("each", [4, 8])
def test_encoding_a_few_frames_at_a_time_changes_nothing(engine, each):
    vae = CellVAE(engine, TOY_VAE)
    w = {name: engine.asarray(x) for name, x in rule.weights(vae.shapes(), 3).items()}
    pixels = engine.asarray(rule.input("pixels", (1, 3, 17, 32, 48), 3))
    whole = engine.numpy(vae.moments(w, pixels))
    pieces = engine.numpy(vae.moments_slabs(w, pixels, each * 8 * 32 * 48))
    assert whole.shape == pieces.shape and np.abs(pieces - whole).max() <= 2e-5 * np.abs(whole).max()


def test_positions_of_byt5_are_in_buckets():
    places = position_buckets(300, 32, 128)
    assert places.min() == 0 and places.max() == 31
    assert (places[0, :9] == [0, 17, 18, 19, 20, 21, 22, 23, 24]).all(), "near keys have a row of their own"
    assert (places[:9, 0] == range(9)).all() and places[0, 200] == 31 and places[200, 0] == 15


def test_tiles_near_each_other_and_masks_of_short_texts():
    seen = near((1, 3, 4), (1, 3, 3))
    assert seen.shape == (12, 12) and (seen.sum(axis=1) == 9).all() and seen.diagonal().all()
    tiling = Tiling(TileRule((1, 2, 2), (1, 1, 1), 1, 0.7), (1, 4, 4), 10)
    directions = np.eye(4, dtype=np.float32)[None, None]
    mask = block_mask(directions, directions, tiling=tiling, valid=[4])
    assert mask.shape == (1, 1, 7, 7) and mask[0, 0, 4].tolist() == [True] * 5 + [False] * 2
    assert mask[0, 0, 6].tolist() == [False] * 6 + [True]


def test_sparse_attention_with_nothing_left_out_is_plain(engine):
    """Whole tiles and whole blocks of text, all seen: then the blocks change nothing."""
    tiles = TileRule((2, 1, 3), (1, 1, 1), 200, 0.7)
    whole = {"quoted": (4, 3), "valid": (3, 4)}  # twelve tokens of text
    plain = Toy(engine)(**whole)
    assert np.abs(Toy(engine, replace(TOY, tiles=tiles))(**whole) - plain).max() < 1e-5
    chunks = Toy(engine, replace(TOY, tiles=tiles))(**whole, manner=Manner(chunk_tokens=5))
    assert np.abs(chunks - plain).max() < 1e-5
    padded = Toy(engine, replace(TOY, tiles=tiles))() - Toy(engine)()
    assert np.abs(padded).max() > 1e-4, "what fills a block that is seen is seen"
    few = Toy(engine, replace(TOY, tiles=replace(tiles, kept=0)))(**whole) - plain
    assert np.abs(few).max() > 1e-4


def test_padding_beyond_the_last_block_of_a_text_has_no_influence(engine):
    """The shorter of two texts is filled up to the longer one's blocks; those are closed."""
    toy = Toy(engine, replace(TOY, tiles=TileRule((2, 1, 3), (1, 1, 1), 200, 0.7)))
    longer, shorter = toy(quoted=(4, 0), valid=(6, 1)), toy(quoted=(0, 0), valid=(1, 1))
    assert np.abs(longer[1] - shorter[1]).max() < 1e-5 < np.abs(longer[0] - shorter[0]).max()


def test_the_rule_of_tiles_knows_how_long_a_clip_is():
    assert TILES.at(32) is TILES and TILES.at(31) == TILES.at(2) == replace(TILES, kept=32)
    assert TILES.at(1) == TileRule((1, 16, 24), (1, 1, 1), 64, 0.7)
    with pytest.raises(InputError, match="tiles of 6 tokens have no form for a single frame"):
        TileRule((2, 1, 3), (1, 1, 1), 8, 0.7).at(1)
