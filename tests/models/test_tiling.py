"""Where tiles are cut, how they are blended, and what is asked of the device."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from framewake.config import HUNYUAN_TILING, HUNYUAN_VAE
from framewake.errors import Cancelled, InputError
from framewake.golden import rule
from framewake.models.tiles_shared import shared_out
from framewake.models.tiling import AxisPlan, Cut, blend, decode_tile, tile_plan, tiled_decode, tiled_encode
from framewake.models.vae import CausalVAE

TOY = replace(HUNYUAN_VAE, latent_channels=4, block_out_channels=(4, 4, 4, 4), layers_per_block=1, norm_groups=2)
TOY_TILING = replace(HUNYUAN_TILING, sample_size=32, latent_size=4, sample_frames=16, latent_frames=4)


def decode_plan(frames, height, width, tiling=HUNYUAN_TILING, config=HUNYUAN_VAE):
    return tile_plan((frames, height, width), tiling, config, is_decode=True)


def encode_plan(frames, height, width, tiling=HUNYUAN_TILING, config=HUNYUAN_VAE):
    return tile_plan((frames, height, width), tiling, config, is_decode=False)


def test_a_published_clip_is_decoded_as_the_original_cuts_it():
    plan = decode_plan(33, 90, 160)
    assert plan.frames == AxisPlan((Cut(0, 17, 0, 49), Cut(12, 29, 1, 48), Cut(24, 33, 1, 32)), 16)
    assert [(cut.start, cut.stop, cut.kept) for cut in plan.rows.cuts] == [
        (0, 32, 192),
        (24, 56, 192),
        (48, 80, 192),
        (72, 90, 144),
    ]
    assert plan.columns.cuts[-1] == Cut(144, 160, 0, 128)
    assert plan.rows.blend == plan.columns.blend == 64
    assert plan.tiles == 3 * 4 * 7
    assert (plan.frames.size, plan.rows.size, plan.columns.size) == (129, 720, 1280)


def test_a_published_clip_is_encoded_as_the_original_cuts_it():
    plan = encode_plan(129, 720, 1280)
    assert plan.frames == AxisPlan((Cut(0, 65, 0, 13), Cut(48, 113, 1, 12), Cut(96, 129, 1, 8)), 4)
    assert [cut.start for cut in plan.rows.cuts] == [0, 192, 384, 576]
    assert plan.rows.cuts[0] == Cut(0, 256, 0, 24)
    assert plan.rows.cuts[-1] == Cut(576, 720, 0, 18)
    assert (plan.frames.size, plan.rows.size, plan.columns.size) == (33, 90, 160)


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((16, 32, 32), (1, 1, 1)), ((17, 32, 32), (2, 1, 1)), ((16, 33, 32), (1, 2, 2)), ((16, 8, 33), (1, 1, 2))],
)
def test_decode_is_cut_only_above_the_thresholds(size, tiles):
    plan = decode_plan(*size)
    assert (len(plan.frames.cuts), len(plan.rows.cuts), len(plan.columns.cuts)) == tiles


@pytest.mark.parametrize(
    ("size", "tiles"),
    [((64, 256, 256), (1, 1, 1)), ((65, 256, 256), (2, 1, 1)), ((1, 257, 256), (1, 2, 2)), ((1, 100, 257), (1, 1, 2))],
)
def test_encode_is_cut_only_above_the_thresholds(size, tiles):
    plan = encode_plan(*size)
    assert (len(plan.frames.cuts), len(plan.rows.cuts), len(plan.columns.cuts)) == tiles


def test_each_kind_of_tiling_can_be_off():
    off = replace(HUNYUAN_TILING, is_spatial=False, is_temporal=False)
    assert decode_plan(33, 90, 160, off).tiles == 1
    assert decode_plan(33, 90, 160, replace(off, is_temporal=True)).tiles == 3
    assert decode_plan(33, 90, 160, replace(off, is_spatial=True)).tiles == 28


def test_a_last_tile_of_one_frame_is_not_computed():
    assert [cut.start for cut in decode_plan(25, 8, 8).frames.cuts] == [0, 12]
    assert [cut.start for cut in decode_plan(26, 8, 8).frames.cuts] == [0, 12, 24]
    assert [cut.start for cut in encode_plan(97, 64, 64).frames.cuts] == [0, 48]


@pytest.mark.parametrize("is_decode", [True, False])
def test_every_size_comes_out_whole(is_decode):
    for frames in range(1, 40):
        for side in range(1, 80):
            plan = tile_plan((frames, side, 81 - side), TOY_TILING, TOY, is_decode=is_decode)
            got = (plan.frames.size, plan.rows.size, plan.columns.size)
            if is_decode:
                assert got == (1 + (frames - 1) * 4, side * 8, (81 - side) * 8)
            else:
                assert got == (-(-frames // 4), -(-side // 8), -(-(81 - side) // 8))


@pytest.mark.parametrize(
    ("tiling", "message"),
    [
        (replace(TOY_TILING, sample_size=40, latent_size=5), "40 px .* do not join"),
        (replace(TOY_TILING, sample_size=64), "do not join"),
        (replace(TOY_TILING, overlap=1.0), "never advance"),
        (replace(TOY_TILING, overlap=-0.5), "from 0 to below 1"),
    ],
)
def test_tiles_that_do_not_join_are_refused(tiling, message):
    with pytest.raises(InputError, match=message):
        tile_plan((9, 20, 20), tiling, TOY, is_decode=True)


@pytest.mark.parametrize("axis", [2, 3, 4])
@pytest.mark.parametrize(("before_size", "after_size"), [(8, 8), (3, 8), (8, 2), (8, 1)])
def test_blend_fades_over_the_shorter_of_both(axis, before_size, after_size):
    before_shape, after_shape = [1, 2, 3, 3, 3], [1, 2, 3, 3, 3]
    before_shape[axis], after_shape[axis] = before_size, after_size
    before, after = rule.input("before", before_shape, 1), rule.input("after", after_shape, 1)
    expected = np.moveaxis(after.astype(np.float64), axis, 0)
    extent = min(before_size, after_size, 4)
    for x in range(extent):
        old = np.moveaxis(before, axis, 0)[before_size - extent + x]
        expected[x] = old * (1 - x / extent) + expected[x] * (x / extent)
    blend(before, after, axis, 4)
    assert np.abs(after - np.moveaxis(expected, 0, axis)).max() <= 3e-7


def test_half_precision_products_are_rounded_one_by_one():
    before, after = (rule.input(name, (1, 1, 1, 1, 64), 1).astype(np.float16) for name in ("before", "after"))
    ramp = (np.arange(64) / 64).astype(np.float16)
    expected = before * (np.float16(1) - ramp) + after * ramp
    blend(before, after, 4, 64)
    assert after.dtype == np.float16
    assert np.array_equal(after[..., 1:], expected[..., 1:])


def weights_of(engine, vae):
    return {name: engine.asarray(rule.weight(name, shape, 1)) for name, shape in vae.shapes().items()}


def join(tiles, extent, keep, axis):
    """Blend and crop finished tiles of one axis, plainly: as the specification words it."""
    for before, after in itertools.pairwise(tiles):
        short = min(before.shape[axis], after.shape[axis], extent)
        for x in range(short):
            here, there = [slice(None)] * 5, [slice(None)] * 5
            here[axis], there[axis] = x, before.shape[axis] - short + x
            after[tuple(here)] = before[tuple(there)] * (1 - x / short) + after[tuple(here)] * (x / short)
    return np.concatenate([np.take(tile, range(min(keep, tile.shape[axis])), axis) for tile in tiles], axis)


def test_temporal_tiles_hold_spatial_tiles(engine):
    vae = CausalVAE(engine, TOY)
    w = weights_of(engine, vae)
    latents = rule.input("latents", (1, 4, 6, 2, 5), 1)

    def decode(start, left):
        return engine.numpy(vae.decode(w, engine.asarray(latents[:, :, start : start + 5, :, left : left + 4]))).copy()

    clips = [join([decode(start, 0), decode(start, 3)], 8, 24, 4) for start in (0, 3)]
    clips[1] = clips[1][:, :, 1:]
    whole = join(clips, 4, 10**6, 2)
    expected = np.concatenate([whole[:, :, :13], whole[:, :, clips[0].shape[2] :]], 2)
    seen = []
    found = tiled_decode(
        vae, w, engine.asarray(latents), TOY_TILING, on_tile=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert isinstance(found, np.ndarray)
    assert found.shape == expected.shape == (1, 3, 21, 16, 40)
    assert np.abs(found - expected).max() <= 3e-6 * np.abs(expected).max()


def test_untiled_is_the_plain_model(engine):
    vae = CausalVAE(engine, TOY)
    w = weights_of(engine, vae)
    latents = engine.asarray(rule.input("latents", (1, 4, 2, 3, 3), 1))
    assert np.array_equal(tiled_decode(vae, w, latents, TOY_TILING), engine.numpy(decode_tile(vae, w, latents)))
    pixels = engine.asarray(rule.input("pixels", (1, 3, 5, 16, 24), 1))
    for tiled, plain in zip(tiled_encode(vae, w, pixels, TOY_TILING), vae.encode(w, pixels), strict=True):
        assert np.array_equal(tiled, engine.numpy(plain))
    large = rule.input("pixels", (1, 3, 9, 40, 24), 1)
    found = tiled_encode(vae, w, large, TOY_TILING, compute=lambda x: vae.moments_slabs(w, x, 300))[0]
    expected = tiled_encode(vae, w, large, TOY_TILING)[0]
    assert 0 < np.abs(found - expected).max() <= 5e-6 * np.abs(expected).max()


def test_a_host_array_gives_the_same_and_is_left_alone(engine):
    vae = CausalVAE(engine, TOY)
    w = weights_of(engine, vae)
    pixels = rule.input("pixels", (1, 3, 1, 40, 24), 1)
    kept = pixels.copy()
    for host, device in zip(
        tiled_encode(vae, w, pixels, TOY_TILING),
        tiled_encode(vae, w, engine.asarray(pixels.copy()), TOY_TILING),
        strict=True,
    ):
        assert np.array_equal(host, device)
    assert np.array_equal(pixels, kept)


def test_log_variance_is_clamped_after_stitching(engine):
    vae = CausalVAE(engine, TOY)
    w = weights_of(engine, vae)
    w["quant_conv.bias"] = engine.asarray(np.array([0, 0, 0, 0, 100, -100, 100, -100], dtype=np.float32))
    mean, logvar = tiled_encode(vae, w, rule.input("pixels", (1, 3, 1, 40, 24), 1), TOY_TILING)
    assert np.unique(logvar).tolist() == [-30.0, 20.0]
    assert np.abs(mean).max() < 20


def test_the_callback_can_stop_the_work(engine):
    vae = CausalVAE(engine, TOY)
    done = []

    def stop(count, total):
        done.append(count)
        raise Cancelled(f"after {count} of {total}")

    with pytest.raises(Cancelled, match="after 1 of 4"):
        tiled_decode(vae, weights_of(engine, vae), rule.input("z", (1, 4, 1, 5, 5), 1), TOY_TILING, on_tile=stop)
    assert done == [1]


@pytest.mark.parametrize(("ranks", "percent"), [(2, 0.2), (3, 0.2), (4, 0.5), (8, 1.8), (16, 4.3)])
def test_the_tiles_of_a_published_clip_are_shared_out_evenly(ranks, percent):
    """How much longer the busiest rank works than an even share."""
    costs = [np.prod([cut.stop - cut.start for cut in window]) for window in decode_plan(33, 90, 160).windows()]
    shares = shared_out(costs, ranks)
    assert sorted(number for share in shares for number in share) == list(range(84))
    busiest = max(sum(costs[number] for number in share) for share in shares)
    assert 100 * (1 - sum(costs) / (ranks * busiest)) == pytest.approx(percent, abs=0.06)
