"""Clips that are left out: which ones, what their loss is, and that nothing of a run changes by looking at them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_training import Task, batch_of

from framewake.errors import InputError
from framewake.train.data import Example
from framewake.train.draws import LEVELS, fixed_draw
from framewake.train.events import Started, Update, Validated
from framewake.train.log import read_log
from framewake.train.settings import training_from
from framewake.train.validation import parted


def examples(count):
    return [Example(Path(f"{n}.mp4"), "x", f"{n * 7919:064x}", 5, (64, 64)) for n in range(1, count + 1)]


def test_the_loss_alone_is_the_loss_of_the_walk(engine):
    task = Task(engine)
    store, batch, walk = task.resident(), batch_of(engine, 2), task.walk()
    expected = walk(task.factors, store, batch)[0]
    assert abs(walk.value(task.factors, store, batch) - expected) <= 1e-6 * expected


def test_validation_is_reported_and_changes_nothing(engine, trainer_of, clips, tmp_path):
    held = tmp_path / "held"
    held.mkdir()
    data = shutil.copytree(clips, tmp_path / "data", ignore=shutil.ignore_patterns(".framewake", "1.*"))
    for name in ("1.webp", "1.txt"):
        shutil.copy(clips / name, held / name)
    plain = list(trainer_of("plain.safetensors", steps=4, data=data).run(engine))
    watched = {"steps": 4, "data": data, "validate_every": 3, "validation": str(held)}
    events = list(trainer_of("watched.safetensors", **watched).run(engine))
    losses = [[e.loss for e in run if isinstance(e, Update)] for run in (plain, events)]
    assert losses[0] == losses[1]
    found = [e for e in events if isinstance(e, Validated)]
    assert [e.step for e in found] == [0, 3, 4]
    assert [float(level) for level in found[0].levels] == list(LEVELS)
    assert all(e.loss == pytest.approx(np.mean(list(e.levels.values()))) and e.loss > 0 for e in found)
    assert found[0].levels != found[2].levels
    begun = next(e for e in events if isinstance(e, Started))
    assert (begun.clips, begun.held) == (3, 1)
    rows = read_log(tmp_path / "watched.training.csv")
    assert [(r.update, r.validation) for r in rows if r.validation is not None] == [(e.step, e.loss) for e in found]
    assert [r.update for r in rows if r.loss is not None] == [1, 2, 3, 4]
    # The noise is that of the clip, whatever the seed and the place of the run.
    again = next(e for e in trainer_of("other.safetensors", seed=7, **watched).run(engine) if isinstance(e, Validated))
    assert again.levels == found[0].levels


def test_a_run_in_two_parts_validates_alike(engine, trainer_of, tmp_path):
    share = {"validate_every": 2, "validation": "0.34"}
    whole = list(trainer_of("whole.safetensors", steps=4, **share).run(engine))
    assert next(e for e in whole if isinstance(e, Started)).held == 1
    part = list(trainer_of("part.safetensors", steps=2, **share).run(engine))
    part += list(trainer_of("part.safetensors", resumes=True, steps=4).run(engine))
    assert [e for e in part if isinstance(e, Validated)] == [e for e in whole if isinstance(e, Validated)]
    assert (tmp_path / "part.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_which_clips_are_left_out():
    settings = training_from({"validate_every": 1, "validation": "0.2"})
    training, held = parted(examples(10), settings, examples)
    assert len(held) == 2 and sorted(training + held) == sorted(examples(10))
    renamed = [example._replace(path=Path("z" + example.path.name)) for example in reversed(examples(10))]
    assert {e.digest for e in parted(renamed, settings, examples)[1]} == {e.digest for e in held}
    twice = examples(10) + renamed
    assert len(parted(twice, settings, examples)[1]) == 4  # never one copy here and one there
    assert parted(examples(10), training_from({}), examples) == (examples(10), [])
    assert len(parted(examples(10), training_from({"validate_every": 1}), examples)[1]) == 1
    with pytest.raises(InputError, match="one clip only"):
        parted(examples(1), settings, examples)


def test_noise_is_that_of_a_clip_and_a_level():
    draws = [fixed_draw((2, 3), digest, n) for digest in ("a" * 64, "b" * 64) for n in range(len(LEVELS))]
    assert len({draw.noise.tobytes() for draw in draws}) == len(draws)
    assert [float(draw.sigma[0]) for draw in draws[:5]] == [pytest.approx(level) for level in LEVELS]


def test_mistakes_are_told_first(trainer_of, clips, tmp_path):
    for changes, words in [
        ({"validation": "0.1"}, "--validation needs --validate-every"),
        ({"validation": "0.9", "validate_every": 1}, "share of the clips up to 0.5"),
        ({"validation": str(tmp_path / "gone"), "validate_every": 1}, "does not exist"),
        ({"validation": str(clips), "validate_every": 1}, "trained on and in --validation"),
    ]:
        with pytest.raises(InputError, match=words):
            trainer_of(**changes)
