"""The demonstration LoRA: its clips, the measure of what it does, and the file that ships."""

from __future__ import annotations

import numpy as np
import pytest

from demonstration.lora import LORA, SETTINGS
from demonstration.lora_clips import (
    MOVES,
    NEWEST,
    OLDEST,
    render_trail,
    trail_opacity,
    trail_scene,
    trail_share,
    write_clips,
)
from demonstration.render import render
from demonstration.world import FULL_FRAMES
from framewake.media.clips import read_clip
from framewake.pipeline.adapters import targets_of
from framewake.pipeline.checkpoint import find_checkpoint
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.train.dataset import gathered
from framewake.train.factors import chosen
from framewake.train.settings import training_from
from framewake.train.use import Use
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.file import open_lora

MOST_BYTES = 2_000_000


@pytest.mark.parametrize("number", range(len(MOVES)))
def test_the_measure_tells_trails_from_none(number):
    scene = trail_scene(number)
    plain, trailed = render(scene, 64, 64), render_trail(scene, 64, 64)
    assert np.array_equal(trailed[0], plain[0]), "a clip begins with the picture alone"
    assert trail_share(scene, trailed) > 0.97 and trail_share(scene, plain) < 0.03
    half = (plain.astype(int) + trailed.astype(int)) // 2
    assert 0.4 < trail_share(scene, half.astype(np.uint8)) < 0.6


def test_trails_fade():
    strength = trail_opacity(trail_scene(MOVES.index("right")), 64, 64, 1.0).max(0)
    strength = strength[strength > 0.1]
    assert NEWEST >= strength[-4] > 1.2 * strength[3] > 1.2 * OLDEST


def test_clips_are_read_by_training(tmp_path):
    write_clips(tmp_path, 2, 64)
    use = Use((FULL_FRAMES,), lambda height, width: (height, width))
    examples = gathered(tmp_path, use, None, takes_pictures=False).examples
    assert [example.caption for example in examples] == [trail_scene(number).prompt for number in range(2)]
    frames = read_clip(examples[0].path, FULL_FRAMES).frames
    assert np.abs(frames.astype(int) - render_trail(trail_scene(0), 64, 64)).mean() < 4
    training_from(SETTINGS)


def test_the_shipped_lora_fits_the_shipped_checkpoint():
    assert LORA.stat().st_size < MOST_BYTES
    targets = targets_of(open_checkpoint(find_checkpoint("demo")))
    lora = open_lora("demo/trails", targets)
    assert lora.path == LORA
    assert lora.format == "official" and not lora.unmatched
    assert set(lora.by_weight()) == set(chosen(targets.shapes, HUNYUAN.trained.modules))
    assert all(
        np.isfinite(x).all() for update in lora.updates for x in (lora.part(update, name) for name in update.keys)
    )
