"""Training parts on both engines: the optimiser learns, states survive, a training step lowers the loss."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from engines_here import FIRST, INSTALLED, needs_torch

from demonstration import foresight, misses, models, pool, reader, recipe, train_dit, train_vae, transformer, windows
from demonstration.optimiser import Muon, clip_norm
from demonstration.render import background, render, render_poses
from demonstration.state import load_state, save_state
from demonstration.tokenizers import write_tokenizers
from demonstration.world import MOTIONS, SHAPES, Scene, Shape, acting, corpus, motion_of, pose, sample_scene
from framewake import engine as engines
from framewake.errors import InputError
from framewake.models.vae import CausalVAE

SMALL = dataclasses.replace(models.VAE, block_out_channels=(4, 4, 4, 4), latent_channels=4, norm_groups=2)


def test_muon_fits_a_linear_map(engine):
    rng = np.random.default_rng(0)
    x = engine.asarray(rng.standard_normal((64, 8)).astype(np.float32))
    wanted = engine.asarray(rng.standard_normal((6, 8)).astype(np.float32))
    target = engine.linear(x, wanted)
    weights = {"w.weight": engine.zeros((6, 8)), "w.bias": engine.full((6,), 0.1)}

    def loss(w, x, target):
        error = engine.linear(x, w["w.weight"], w["w.bias"]) - target
        return engine.mean(error * error, (0, 1))

    step, optimiser = engine.grad(loss), Muon(engine, weights)
    first, _ = step(weights, x, target)
    for number in range(60):
        _, grads = step(weights, x, target)
        grads, _ = clip_norm(engine, grads, 1.0)
        rate = 0.01 * (1 - number / 60)
        weights = optimiser.step(weights, grads, rate, rate)
    last, _ = step(weights, x, target)
    assert float(engine.numpy(last)) < 0.05 * float(engine.numpy(first))


def test_a_training_step_lowers_the_autoencoders_loss(engine):
    vae = CausalVAE(engine, SMALL)
    weights = {n: engine.asarray(a) for n, a in models.start_vae(vae.shapes(), 0).items()}
    rng = np.random.default_rng(4)
    pixels = engine.asarray(train_vae.sample_pixels(rng, 16, 5, 1))
    ones = engine.full((1, 1, 5, 16, 16), 1.0)
    noise = engine.asarray(rng.standard_normal((1, 4, 2, 2, 2)).astype(np.float32))
    step = engine.grad(lambda w, *data: train_vae.loss(engine, vae, w, *data))
    first, grads = step(weights, pixels, ones, ones, noise)
    optimiser = Muon(engine, weights)
    for _ in range(3):
        weights = optimiser.step(weights, clip_norm(engine, grads, 1.0)[0], 1e-3, 1e-3)
        last, grads = step(weights, pixels, ones, ones, noise)
    assert float(engine.numpy(last)) < float(engine.numpy(first))


def test_inner_errors_are_of_what_is_inside_shapes(engine):
    rng = np.random.default_rng(3)
    error = rng.standard_normal((2, 3, 2, 16, 32)).astype(np.float32)
    core = (rng.random((2, 1, 2, 16, 32)) < 0.2).astype(np.float32)
    core[0, 0, 0, :, :16] = 0
    off, area = (engine.numpy(x) for x in train_vae.inner_errors(engine, engine.asarray(error), engine.asarray(core)))
    assert off.shape == (2, 3, 2, 1, 2) and area.shape == (2, 1, 2, 1, 2)
    is_inside = core[1, 0, 1, :, 16:] > 0
    np.testing.assert_allclose(off[1, 2, 1, 0, 1], error[1, 2, 1, :, 16:][is_inside].mean(), rtol=2e-3)
    np.testing.assert_allclose(area[1, 0, 1, 0, 1], is_inside.mean(), rtol=1e-5)
    assert (off[0, :, 0, 0, 0] == 0).all()


def test_beyond_an_extreme_that_is_wanted_nothing_is_off(engine):
    pixels = np.float32([1, 1, -1, -1, 0.5, 0.5, -1, 1])
    found = np.float32([1.5, 0.8, -1.2, -0.9, 2.5, 0.25, 1.5, -1])
    error = train_vae.seen_errors(engine, engine.asarray(found), engine.asarray(pixels))
    np.testing.assert_allclose(engine.numpy(error), [0, -0.2, 0, 0.1, 2.0, -0.25, 2.5, -2], atol=1e-6)


def test_cores_are_where_the_judge_looks_for_colours():
    scene = sample_scene(np.random.default_rng(12), motion="right", pairs=0.0)
    frames = render(scene, 128, 128)
    found = windows.cores(
        windows.to_pixels(frames[None]), windows.to_pixels(background(scene, 128, 128)[None, None])[:, :, 0]
    )
    assert found.shape == (1, 1, 33, 128, 128)
    colour = np.asarray(scene.shapes[0].colour)
    for frame, core in zip(frames, found[0, 0], strict=True):
        is_full = (frame == colour).all(-1)
        assert 0.5 * is_full.sum() < core.sum() <= is_full.sum()
        assert np.abs(frame[core > 0].mean(0) - colour).max() < 1


def test_places_weigh_by_what_passes_them_and_shapes_by_themselves():
    rng, turn = np.random.default_rng(1), windows.Turn(64, 33, 1, 64)
    part = windows.draw_noisy(rng, turn)
    pixels, ground = windows.to_pixels(part.frames[None]), windows.to_pixels(part.ground[None, None])[:, :, 0]
    weight = windows.place_weight(pixels, ground)
    assert weight.shape == (1, 1, 33, 64, 64) and np.isclose(weight.mean(), 1)
    is_still = np.ptp(pixels[0], axis=1).max(0) == 0
    is_ground = np.abs(pixels[0] - ground[0, :, None]).max(0) < 0.02
    ratios = weight[0, 0] / weight.min()
    assert 1 < is_still.sum() < is_still.size
    np.testing.assert_allclose(ratios[is_ground & is_still], 1, rtol=1e-5)
    np.testing.assert_allclose(ratios[~is_ground & ~is_still].max(), 17, rtol=1e-5)
    still = windows.place_weight(pixels[:, :, :1], ground)
    np.testing.assert_allclose(np.unique(still) / still.min(), [1, 9], rtol=1e-5)


def test_windows_are_cut_from_whole_latents_around_what_matters(engine, tmp_path):
    vae = CausalVAE(engine, models.VAE)
    weights = {
        n: engine.asarray(a)
        for n, a in recipe.read_all(recipe.open_checkpoint(recipe.CHECKPOINT).tensors("vae")).items()
    }
    source = windows.Windows(engine, vae, weights, tmp_path)
    whole = source.draw(np.random.default_rng(3), windows.Turn(64, 5, 1, 64))
    part = source.draw(np.random.default_rng(3), windows.Turn(64, 5, 1, 32))  # the same draws until the cut
    assert [a.shape for a in part] == [(1, 3, 5, 32, 32), (1, 1, 5, 32, 32), (1, 1, 5, 32, 32), (1, 16, 2, 4, 4)]
    places = [
        (top, left)
        for top in range(0, 40, 8)
        for left in range(0, 40, 8)
        if np.array_equal(whole.pixels[..., top : top + 32, left : left + 32], part.pixels)
    ]
    cuts = [whole.given[..., t // 8 : t // 8 + 4, left // 8 : left // 8 + 4] for t, left in places]
    assert any(np.array_equal(cut, part.given) for cut in cuts)
    assert part.weight.max() == whole.weight.max() and 0 < part.core.sum() <= whole.core.sum()
    several = source.draw(np.random.default_rng(4), windows.Turn(64, 5, 3, 32))
    assert several.pixels.shape == (3, 3, 5, 32, 32) and np.ptp(several.weight, axis=(1, 2, 3, 4)).min() > 0


def test_thin_shapes_are_drawn_more_often():
    rng = np.random.default_rng(5)
    drawn = [windows.draw_scene(rng) for _ in range(1500)]
    usual = [sample_scene(rng, motion=str(rng.choice(windows.DRAWN))) for _ in range(1500)]
    thin, usually = (
        np.mean([any(s.kind in windows.THIN for s in scene.shapes) for scene in scenes]) for scenes in (drawn, usual)
    )
    assert thin > usually + 0.05  # 0.12, with a deviation of 0.02


def test_what_latents_are_given_drifts_from_the_first_frames_colours():
    scene = sample_scene(np.random.default_rng(1), motion="left", pairs=1.0)
    drifting = windows.drift(np.random.default_rng(2), scene, 9)
    assert len(drifting) == 9 and drifting[0] == scene
    true = np.array([shape.colour for shape in scene.shapes], float)
    off = np.array([[shape.colour for shape in each.shapes] for each in drifting]) - true
    assert np.abs(off[-1]).max() > 3
    assert np.abs(off[1] - off[-1] / 2).max() <= 1  # whole levels
    assert all(dataclasses.replace(each, shapes=scene.shapes) == scene for each in drifting)
    part = windows.draw_noisy(np.random.default_rng(3), windows.Turn(64, 9, 1, 64))
    assert np.array_equal(part.pictures[0], part.frames[0]) and part.pictures.shape == (3, 64, 64, 3)
    assert not np.array_equal(part.pictures[2], part.frames[8])  # what is to be drawn does not drift


def test_colours_are_read_in_the_order_of_a_cells_blocks():
    pixels = np.random.default_rng(3).random((2, 3, 16, 24)).astype(np.float32)
    found = reader.colours_of(pixels)
    assert found.shape == (2, 12, 2, 3)
    for channel, row, column in ((0, 0, 1), (2, 1, 0)):
        block = pixels[1, channel, 8 + 4 * row : 12 + 4 * row, 16 + 4 * column : 20 + 4 * column]
        np.testing.assert_allclose(found[1, 4 * channel + 2 * row + column, 1, 2], block.mean(), rtol=1e-5)


def off_after(engine, steps, *, pictures=96):
    """How far a reader is off on pictures that it did not learn from, as a share of their variance; 1 knows nothing."""
    vae = CausalVAE(engine, models.VAE)
    checkpoint = recipe.open_checkpoint(recipe.CHECKPOINT)
    weights = recipe.as_tensors(engine, recipe.read_all(checkpoint.tensors("vae")))
    scale = checkpoint.vae.scaling_factor
    pixels = train_vae.sample_pixels(np.random.default_rng(5), 128, 1, 12)
    latents = engine.asarray(engine.numpy(windows.picture_latents(engine, vae, weights, engine.asarray(pixels))[0]))
    wanted = reader.colours_of(pixels[:, :, 0])
    taught = reader.teach(engine, vae, weights, scale, pictures=pictures, steps=steps)
    found = engine.numpy(reader.read_colours(engine, taught, latents[:, :, 0] * scale))
    return float(np.mean((found - wanted) ** 2) / wanted.var())


def test_a_reader_learns_what_colours_latents_stand_for():
    assert off_after(engines.get(FIRST), 200) < 0.35  # 0.2 where it learns from twice as many


@pytest.mark.parametrize("other", INSTALLED[1:])
def test_a_reader_learns_alike_on_every_engine(other):
    expected, found = (off_after(engines.get(name), 10, pictures=48) for name in (FIRST, other))
    assert found == pytest.approx(expected, rel=1e-3)


def test_a_clips_weight_is_the_same_everywhere_and_larger_for_little_change():
    latents = np.random.default_rng(3).standard_normal((1, 16, 1, 8, 8)).astype(np.float32).repeat(9, 2).repeat(3, 0)
    latents[1, :, 3:, 2:4, 2:4] += 2.0  # 0.188 of mean change
    latents[2, :, 3:] += 2.0  # 3.0
    weight = transformer.clip_weight(latents)
    assert weight.shape == (3, 1, 1, 1, 1)
    np.testing.assert_allclose(weight[:, 0, 0, 0, 0], [0.2 / 0.015, 0.2 / 0.1875, 0.2 / 3.0], rtol=1e-5)


def test_what_is_covered_is_the_acting_shapes_place_and_that_of_each_kind():
    ground = ((255, 255, 255), (255, 255, 255))
    shape = Shape("square", "red", (255, 0, 0), 0.25, 0.25, 0.25, 0.0)
    other = Shape("circle", "blue", (0, 0, 255), 0.75, 0.75, 0.25, 0.0)
    scene = Scene((shape, other), "right", ground, 0.0, 1.0, 1.0, "the red square moves right")
    for index, acts in enumerate((scene, acting(scene, 1, "left"))):
        named, *kinds = foresight.covered_by(acts).T.reshape(5, 8, 8)
        here, there = ((slice(1, 3),) * 2, (slice(5, 7),) * 2)
        square, circle = (kinds[SHAPES.index(kind)] for kind in ("square", "circle"))
        assert square[here].min() > 0.4 and square.sum() == square[here].sum()
        assert circle[there].min() > 0.4 and circle.sum() == circle[there].sum()
        assert np.array_equal(named, (square, circle)[index]) and np.sum(kinds) == square.sum() + circle.sum()


def test_a_shape_acts_only_where_there_is_room():
    ground = ((255, 255, 255), (255, 255, 255))
    shape = Shape("circle", "red", (255, 0, 0), 0.2, 0.5, 0.3, 0.0)
    other = Shape("star", "black", (0, 0, 0), 0.8, 0.5, 0.2, 0.0)
    scene = Scene((shape, other), "still", ground, 0.0, 1.0, 1.0, "")
    assert [acting(scene, 0, motion) is None for motion in ("left", "right", "up", "spin", "grow", "bounce")] == [
        True,  # out of the frame
        True,  # into the star
        True,  # out of the frame
        True,  # a circle that spins looks like one that does not
        True,  # out of the frame
        False,
    ]
    spinning = acting(scene, 1, "spin")
    assert spinning.shapes == (other, shape) and spinning.motion == "spin"


@needs_torch
def test_foresight_teaches_the_double_blocks_and_the_text_encoders_only(tmp_path, monkeypatch):
    monkeypatch.setattr(foresight, "FIT_BATCHES", 4)
    engine = engines.get("torch:cpu")  # the recipe's
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)
    scale = float((tmp_path / "scale.txt").read_text())
    model = transformer.Model(engine, transformer.Texts(tmp_path))
    frames = foresight.FirstFrames(engine, pool.frozen_vae(engine, tmp_path), model.texts, scale)
    glances = frames.draw(np.random.default_rng(0), 16)
    assert glances.batch.latents.shape == (16, 16, 1, 16, 16) and glances.covered.shape == (16, 64, 5)
    known = load_state(tmp_path / "dit.safetensors").weights
    known |= {n: a for n, a in model.start(1).items() if not n.startswith("dit.")}  # or nothing would be left to learn
    before = {n: engine.asarray(a) for n, a in known.items()}
    before |= {n: engine.asarray(a) for n, a in foresight.fitted_head(model, before, frames).items()}
    teacher = foresight.Foresight(model, Muon(engine, before, plain=(foresight.HEAD,)))
    weights, values = before, []
    for _ in range(12):
        weights = teacher.step(weights, glances, 1e-4)
        values.append(teacher.value)
    assert values[-1] < 0.8 * values[0]
    moved = {n for n in before if np.abs(engine.numpy(weights[n] - before[n])).max() > 0}
    assert not [n for n in moved if ".single_blocks." in n or ".final_layer." in n]
    for part in (
        "dit.double_blocks.1.img_mlp.fc2",
        "dit.double_blocks.0.txt_attn_qkv",
        "llava.language_model",
        "clip.",
    ):
        assert [n for n in moved if n.startswith(part)], part


def test_what_is_learned_late_stands_in_the_pool_more_often(tmp_path):
    write_tokenizers(tmp_path, corpus())
    said = {
        "the red circle grows": 1,
        "the star spins": 2,
        "the red star spins while the blue circle stays still": 6,
        "The star spins.": 6,  # of the same clip
    }
    prompts = list(said)
    target = tmp_path / "pool" / "64x64"
    target.mkdir(parents=True)
    nothing = np.zeros((3, 16, 9, 8, 8), np.float16), np.zeros((3, 64, 64, 3), np.uint8)
    clips = [[prompts[0]], [prompts[1]], prompts[2:]]
    np.savez(target / "00000.npz", latents=nothing[0], pictures=nothing[1], prompts=np.array(json.dumps(clips)))
    texts = transformer.Texts(tmp_path)
    source = train_dit.Clips(tmp_path / "pool", texts, 1.0, often={"spin": 2}, pairs=3)
    assert source.refresh() == 3
    entries = [entry for several in source.by_length["64x64"].values() for entry in several]
    found = {clips[clip][number]: entries.count((0, clip, number)) for _, clip, number in entries}
    assert found == said


def test_a_prompt_names_its_motion():
    rng = np.random.default_rng(2)
    for motion in MOTIONS * 8:
        assert motion_of(sample_scene(rng, motion=motion, pairs=0.5).prompt) == motion
    with pytest.raises(ValueError, match="names no motion"):
        motion_of("a horse")


def test_a_state_comes_back_as_it_was(engine, tmp_path):
    weights = {"a": engine.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))}
    assert load_state(tmp_path / "none.safetensors") is None
    save_state(tmp_path / "run.safetensors", engine, weights=weights, average=weights, progress={"clips": 12.5})
    state = load_state(tmp_path / "run.safetensors")
    assert state.progress == {"clips": 12.5}
    np.testing.assert_array_equal(state.weights["a"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert not list(tmp_path.glob("*.partial"))


def test_the_shipped_checkpoint_can_be_trained_further(engine, tmp_path):
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)
    state = load_state(tmp_path / "dit.safetensors")
    recipe.export(engine, tmp_path, tmp_path / "again")
    for name in ("transformer", "vae"):
        file = f"{name}/diffusion_pytorch_model.safetensors"
        assert (tmp_path / "again" / file).read_bytes() == (recipe.CHECKPOINT / file).read_bytes()
    assert not state.progress
    with pytest.raises(InputError, match="already holds"):
        recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)


@needs_torch
def test_an_encoder_is_settled_once(tmp_path):
    engine = engines.get("torch:cpu")
    recipe.adopt(engine, tmp_path, recipe.CHECKPOINT)  # its encoder is settled, its decoder trained since
    before = (tmp_path / "vae.safetensors").read_bytes()
    recipe.freeze(engine, tmp_path)
    assert (tmp_path / "vae.safetensors").read_bytes() == before
    scale = (tmp_path / "scale.txt").read_text()
    (tmp_path / "scale.txt").unlink()  # and one that is not, once it is trained
    recipe.freeze(engine, tmp_path)
    assert (tmp_path / "vae.safetensors").read_bytes() != before
    assert float((tmp_path / "scale.txt").read_text()) == pytest.approx(float(scale), rel=0.1)


def test_the_nearest_clip_to_latents_is_found():
    scene = sample_scene(np.random.default_rng(5), motion="right", pairs=1.0)

    def encode(pictures):  # mean colours of cells: latents of a kind
        cells = pictures.reshape(len(pictures), 16, 8, 16, 8, 3).mean((2, 4))
        return (cells / 127.5 - 1).transpose(0, 3, 1, 2).astype(np.float32)

    own = render(scene, 128, 128)[::4]
    poses = [[pose(scene, index, i / 8) for index in (0, 1)] for i in range(9)]
    moved = [[dataclasses.replace(a, x=a.x + 0.015, y=a.y - 0.01, size=a.size * 1.1), b] for a, b in poses]
    moved[0] = poses[0]
    elsewhere = np.stack([render_poses(scene, each, 128, 128) for each in moved])
    noise = np.random.default_rng(6).standard_normal((3, 9, 16, 16)) * 0.02
    found = misses.fit_poses(encode, scene, encode(elsewhere).swapaxes(0, 1) + noise)
    assert found[0] == poses[0]
    for each, wanted, start in zip(found[1:], moved[1:], poses[1:], strict=True):
        assert abs(each[0].x - wanted[0].x) < 0.003 and abs(each[0].y - wanted[0].y) < 0.003
        assert abs(each[0].size / wanted[0].size - 1) < 0.04
        assert abs(each[1].x - start[1].x) < 0.003 and abs(each[1].y - start[1].y) < 0.003
    frames = misses.render_found(scene, found, 128)
    assert frames.shape == (33, 128, 128, 3) and np.array_equal(frames[0], own[0])
    assert np.abs(frames[::4].astype(float) - elsewhere).mean() < 0.2 * np.abs(own.astype(float) - elsewhere).mean()
    between = misses.render_found(scene, moved, 128)[30]  # half way between the last two, both moved by as much
    a, b = (pose(scene, index, 30 / 32) for index in (0, 1))
    half = dataclasses.replace(a, x=a.x + 0.015, y=a.y - 0.01, size=a.size * 1.1)
    assert np.array_equal(between, render_poses(scene, [half, b], 128, 128))


@needs_torch
def test_misses_of_the_transformer_reach_the_decoders_training(tmp_path):
    engine = engines.get("torch:cpu")  # the recipe's; the parts are tested on both
    recipe.adopt(engine, tmp_path / "run", recipe.CHECKPOINT)
    vae, weights = pool.frozen_vae(engine, tmp_path / "run")
    misses.fill(engine, vae, weights, tmp_path / "run", count=1)
    [path] = (tmp_path / "run" / windows.MISSES).iterdir()
    parts = [windows.draw_miss(np.random.default_rng(seed), [path], 17) for seed in range(9)]
    for frames, ground, pictures, off in parts:
        assert frames.shape == (17, 128, 128, 3) and off.shape == (16, 5, 16, 16)
        is_ground = np.abs(frames - ground).max(-1) < 2
        assert 0.3 < is_ground.mean() < 1
        assert off[:, 1:].std() > 1e-3
        np.testing.assert_array_equal(pictures, frames[::4])
    begins = [np.abs(part.off[:, 0]).max() < 1e-3 for part in parts]  # the first frame is given
    assert set(begins) == {True, False}
    drawn = windows.Windows(engine, vae, weights, tmp_path / "run").draw(np.random.default_rng(1), train_vae.SHAPES)
    assert [a.shape for a in drawn] == [(4, 3, 9, 64, 64), (4, 1, 9, 64, 64), (4, 1, 9, 64, 64), (4, 16, 3, 8, 8)]
    misses.fill(engine, vae, weights, tmp_path / "run", count=1)  # has what is asked for
    assert [path] == list((tmp_path / "run" / windows.MISSES).iterdir())
