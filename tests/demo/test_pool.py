"""Encoded clips to train on: which scenes are drawn, which prompts they get, and what is kept of an earlier run."""

from __future__ import annotations

import dataclasses

import pytest

from demonstration import models, pool
from demonstration.world import COLOURS, motion_of
from framewake.models.vae import CausalVAE

SMALL = dataclasses.replace(models.VAE, block_out_channels=(4, 4, 4, 4), latent_channels=4, norm_groups=2)


@pytest.fixture
def fill(engine, tmp_path, monkeypatch):
    """Fills a folder with lots, with a tiny autoencoder and shards of six clips."""
    monkeypatch.setattr(pool, "SHARD_CLIPS", 6)
    vae = CausalVAE(engine, SMALL)
    weights = {n: engine.asarray(a) for n, a in models.start_vae(vae.shapes(), 0).items()}
    return lambda *lots: pool.fill(engine, vae, weights, tmp_path, lots)


def test_clips_of_two_shapes_have_prompts_that_name_a_kind_alone(fill, tmp_path):
    fill(pool.Lot({(32, 32): 1}, 1.0))
    prompts = pool.read_shard(tmp_path / "32x32" / "00000.npz").prompts
    told = [prompt.split(" while ")[0].lower() for several in prompts for prompt in several]
    bare = [prompt for prompt in told if not any(colour in prompt for colour in COLOURS)]
    assert len(told) == 48 and 6 <= len(bare) <= 20  # where kinds differ, two of eight and what chance adds


def test_a_lot_can_ask_for_prompts_that_name_a_colour_alone(fill, tmp_path):
    fill(pool.Lot({(32, 32): 1}, 1.0, ("spin",), by_colour=3))
    for prompts in pool.read_shard(tmp_path / "32x32" / "00000.npz").prompts:
        assert len(prompts) == 11
        told = [prompt.split(" while ")[0].lower() for prompt in prompts[-3:]]
        assert all(" shape " in p and any(colour in p for colour in COLOURS) for p in told), told


def test_words_that_no_other_way_has_are_said_of_every_clip(fill, tmp_path):
    fill(pool.Lot({(32, 32): 1}, 0.0, ("down",)))
    for prompts in pool.read_shard(tmp_path / "32x32" / "00000.npz").prompts:
        assert len([p for p in prompts if any(word in p for word in ("sinks", "falls", "falling"))]) >= 2, prompts


def test_a_lot_draws_the_scenes_that_it_wants_and_keeps_what_is_there(fill, tmp_path):
    falls = pool.Lot({(32, 32): 1}, 0.0, ("down",))
    fill(falls)
    first, begun = tmp_path / "32x32" / "00000.npz", (tmp_path / "32x32" / "00000.npz").stat()
    stars = pool.Lot({(32, 32): 4, (32, 48): 1}, 0.0, ("spin", "fade"), lambda scene: scene.shapes[0].kind == "star")
    fill(falls, stars.cut(0.2))
    assert first.stat() == begun and len(list(tmp_path.glob("*/*"))) == 3
    made = [pool.read_shard(tmp_path / name) for name in ("32x32/00001.npz", "32x48/00000.npz")]
    assert [shard.latents.shape for shard in made] == [(6, 4, 9, 4, 4), (6, 4, 9, 4, 6)]
    prompts = [prompt for shard in made for several in shard.prompts for prompt in several]
    assert {motion_of(prompt) for prompt in prompts} == {"spin", "fade"}
    assert not [p for p in prompts if any(kind in p.lower() for kind in ("circle", "square", "triangle"))]
