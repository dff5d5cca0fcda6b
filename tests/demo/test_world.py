"""The demonstration world: scenes are what their prompts say, and the measure can tell."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from demonstration.follow import judge
from demonstration.recipe import SETTINGS
from demonstration.render import render, render_frame, render_poses
from demonstration.world import (
    COLOURS,
    DIRECTIONS,
    MOTIONS,
    SHAPES,
    Scene,
    Shape,
    motion_of,
    pose,
    sample_scene,
    write_prompt,
)
from framewake.demo import CHECKPOINT
from framewake.pipeline.domain import domain_note
from framewake.weights.checkpoint.settings import read_settings

SIDE = 64


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_rendered_scene_follows_its_own_prompt(motion):
    scene = sample_scene(np.random.default_rng(11), motion=motion)
    verdict = judge(scene, render(scene, SIDE, SIDE))
    assert verdict.is_good, verdict


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_clip_of_another_motion_is_told_apart(motion):
    scene = sample_scene(np.random.default_rng(12), motion=motion)
    # In the middle no border stops a shape, which would make two directions look alike.
    actor = dataclasses.replace(scene.shapes[0], x=0.5, y=0.5, size=0.2)
    scene = dataclasses.replace(scene, shapes=(actor,))
    frames = render(scene, SIDE, SIDE)
    for other in set(MOTIONS) - {motion}:
        if other == "spin" and scene.shapes[0].kind == "circle":
            continue
        verdict = judge(dataclasses.replace(scene, motion=other), frames)
        assert not verdict.follows, f"{motion} was taken for {other}"


def test_the_wrong_shape_moving_is_noticed():
    rng = np.random.default_rng(5)
    scene = sample_scene(rng, motion="right")
    while len(scene.shapes) < 2 or scene.shapes[1].x > 0.5:
        scene = sample_scene(rng, motion="right")
    swapped = dataclasses.replace(scene, shapes=scene.shapes[::-1])
    assert not judge(scene, render(swapped, SIDE, SIDE)).follows


def test_the_soft_outline_of_one_shape_is_not_the_other():
    # What is left of a shape that has faded out must not be found at the edge of the one beside it.
    scene = sample_scene(np.random.default_rng(5_000_166), motion="fade", pairs=0.7)
    assert len(scene.shapes) == 2
    soft = ImageFilter.GaussianBlur(1.2)
    frames = np.stack([np.asarray(Image.fromarray(frame).filter(soft)) for frame in render(scene, 128, 128)])
    verdict = judge(scene, frames)
    assert verdict.follows, verdict.reason


def test_a_shape_that_moves_while_it_fades_is_noticed():
    actor = Shape("circle", "blue", (20, 60, 230), 0.4, 0.5, 0.3, 0.0)
    scene = Scene((actor,), "fade", ((250, 240, 230),) * 2, 0.0, 1.0, 1.0, "the blue circle fades out")
    poses = [dataclasses.replace(pose(scene, 0, i / 32), x=0.4 + 0.012 * i) for i in range(33)]
    frames = np.stack([render_poses(scene, [each], 128, 128) for each in poses])
    assert "moved" in judge(scene, frames).reason


def test_a_fade_that_is_a_little_uneven_does_not_move():
    # The right edge is 10 % more opaque than the left one, so that for one frame it alone is more than half there.
    actor = Shape("circle", "blue", (20, 60, 230), 0.5, 0.5, 0.33, 0.0)
    scene = Scene((actor,), "fade", ((250, 240, 230),) * 2, 0.0, 1.0, 1.0, "the blue circle fades out")
    shape, ground = (render_frame(each, 128, 128, 0.0).astype(float) for each in (scene, _empty(scene)))
    uneven = np.linspace(-0.15, 0.15, 128)[:, None]
    frames = [ground + (shape - ground) * np.clip(1 - i / 32 + uneven * (0 < i < 32), 0, 1) for i in range(33)]
    verdict = judge(scene, np.stack(frames).round().astype(np.uint8))
    assert verdict.follows, verdict.reason


def _empty(scene: Scene) -> Scene:
    return dataclasses.replace(scene, motion="fade", shapes=())


def test_blur_noise_and_a_wrong_colour_are_noticed():
    scene = sample_scene(np.random.default_rng(3), motion="left")
    frames = render(scene, SIDE, SIDE)
    noisy = np.clip(frames + np.random.default_rng(0).normal(0, 25, frames.shape), 0, 255).astype(np.uint8)
    assert judge(scene, noisy).first_frame_psnr < 28
    tinted = np.clip(frames + np.array([30, 0, 0]), 0, 255).astype(np.uint8)
    assert not judge(scene, tinted).is_good


def test_prompts_name_the_actor_and_scenes_stay_inside():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        scene = sample_scene(rng, aspect=float(rng.choice([1.0, 1.5, 0.6])))
        actor = scene.shapes[0]
        prompt = write_prompt(rng, scene).lower()
        assert actor.kind in prompt or actor.colour_name in prompt
        assert actor.kind in SHAPES and actor.colour_name in COLOURS
        for progress in (0.0, 0.5, 1.0):
            at = pose(scene, 0, progress)
            assert 0 <= at.x <= scene.width and 0 <= at.y <= scene.height


@pytest.mark.parametrize(
    ("words", "motion"),
    [
        ("moves up-left", "up-left"),
        ("moves diagonally down-right", "down-right"),
        ("is moving diagonally up and to the right", "up-right"),
        ("flies towards the bottom left", "down-left"),
        ("moves to the upper left", "up-left"),
        ("moving to the top", "up"),
        ("falls", "down"),
        ("is rotating", "spin"),
        ("grows smaller", "shrink"),
        ("does nothing", "still"),
        ("becomes transparent", "fade"),
    ],
)
def test_motions_are_said_in_many_ways(words, motion):
    assert motion_of(f"The red circle {words}.") == motion
    picture = Image.fromarray(render_frame(sample_scene(np.random.default_rng(2)), 96, 96, 0.0))
    assert domain_note(SETTINGS, picture, f"The red circle {words}.") is None


def test_colours_are_those_that_people_draw_with():
    rng = np.random.default_rng(8)
    drawn = {(s.colour_name, s.colour) for _ in range(900) for s in sample_scene(rng).shapes}
    pure = {("red", (255, 0, 0)), ("green", (0, 255, 0)), ("yellow", (255, 255, 0)), ("blue", (0, 0, 255))}
    assert pure | {("white", (255, 255, 255)), ("black", (0, 0, 0)), ("purple", (128, 0, 128))} <= drawn
    assert {name for name, _ in drawn} == set(COLOURS)
    # A name's colours are nearer to its own middle than to another name's, but for what lies between two names.
    strays = [name for name, colour in drawn if min(COLOURS, key=lambda n: math.dist(COLOURS[n], colour)) != name]
    assert len(strays) < 0.05 * len(drawn)


def test_a_kind_alone_names_a_shape_only_where_the_other_is_of_another():
    rng = np.random.default_rng(4)
    found = set()
    for _ in range(40):
        scene = sample_scene(rng, pairs=1.0)
        actor, other = scene.shapes
        prompt = write_prompt(rng, scene, called_by="kind").lower().split(" while ")[0]
        is_bare = not any(colour in prompt for colour in COLOURS)
        assert is_bare == (actor.kind != other.kind) and (actor.kind in prompt or not is_bare)
        found.add(is_bare)
    assert found == {True, False}


def test_directions_cover_eight_ways_and_sizes_agree():
    assert len(DIRECTIONS) == 8
    scene = sample_scene(np.random.default_rng(1), motion="still")
    small, large = render_frame(scene, 64, 64, 0.0), render_frame(scene, 128, 128, 0.0)
    shrunk = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX), float)
    assert np.abs(shrunk - small).mean() < 1.0


def test_the_shipped_checkpoint_says_what_the_recipe_says():
    assert read_settings(CHECKPOINT) == SETTINGS


def test_inputs_outside_the_world_get_a_warning():
    scene = sample_scene(np.random.default_rng(2))
    picture = Image.fromarray(render_frame(scene, 96, 96, 0.0))
    assert domain_note(SETTINGS, picture, scene.prompt) is None
    warning = domain_note(SETTINGS, picture, "a cat drinks tea")
    assert "prompt" in warning
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    heading = warning.partition("see '")[2].partition("'")[0]
    assert f"\n## {heading}\n" in readme
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8))
    assert "picture" in domain_note(SETTINGS, noise, scene.prompt)
