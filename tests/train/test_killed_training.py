"""Runs that are killed at any moment go on to the same file; a full disk and broken numbers cost nothing saved."""

from __future__ import annotations

import signal

import numpy as np
import pytest
from killed_run import killed, trainer
from small_disk import MIB, mounted

from framewake.errors import DiskFullError, NumericsError
from framewake.train.events import Saved, Update
from framewake.train.loop import SAVE_SECONDS, added
from framewake.train.state import load_run, save_run, state_path

MOMENTS = ("between updates", "inside an update", "between its files")


def test_a_killed_run_goes_on_to_the_same_file(engine, toy, clips, tmp_path):
    list(trainer(toy, clips, tmp_path / "whole.safetensors").run(engine))
    # Each moment costs a process: on one engine all of them, they are the same code.
    for number, moment in enumerate(MOMENTS if engine.kind == "torch" else MOMENTS[1:2]):
        name = f"part{number}.safetensors"
        assert killed(toy, clips, tmp_path / name, engine, moment) == -signal.SIGKILL, moment
        step = load_run(tmp_path / name).state.step
        assert 0 < step < 4, moment
        list(trainer(toy, clips, tmp_path / name, resumes=True).run(engine))
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole.safetensors").read_bytes(), moment
        states = [state_path(tmp_path / each).read_bytes() for each in (name, "whole.safetensors")]
        assert states[0] == states[1], moment


def test_states_are_saved_by_time_too(engine, trainer_of):
    """Of a run whose updates take minutes, no more than ten minutes are lost."""

    class Slow:
        """A clock by which every look takes four minutes."""

        now = 0.0

        def __call__(self):
            self.now += SAVE_SECONDS * 0.4
            return self.now

    clock = Slow()
    trainer = trainer_of(steps=6)
    events = [event for event in trainer.run(engine, clock=clock) if isinstance(event, Update | Saved)]
    saved = [event.step for event in events if isinstance(event, Saved)]
    assert saved == [3, 6]


def test_a_full_disk_keeps_what_was_saved(engine, trainer_of, tmp_path):
    with mounted(tmp_path / "disk", 4 * MIB) as disk:
        trainer = trainer_of("disk/a.safetensors", steps=3, save_every=1)
        with pytest.raises(DiskFullError):
            for event in trainer.run(engine):
                if isinstance(event, Saved) and event.step == 1:
                    disk.fill()
        assert load_run(disk.folder / "a.safetensors").state.step == 1
        disk.clear()
        again = trainer_of("disk/a.safetensors", resumes=True)
        list(again.run(engine))
        found = (disk.folder / "a.safetensors").read_bytes()
    list(trainer_of("whole.safetensors", steps=3, save_every=1).run(engine))
    assert found == (tmp_path / "whole.safetensors").read_bytes()


def test_broken_numbers_stop_the_run_and_keep_the_last_good_state(engine, trainer_of, tmp_path):
    list(trainer_of(steps=1).run(engine))
    target = tmp_path / "a.safetensors"
    saved = load_run(target)
    name = next(iter(saved.state.factors))
    saved.state.factors[name] = np.full_like(saved.state.factors[name], np.nan)
    save_run(target, saved)
    before = state_path(target).read_bytes()
    with pytest.raises(NumericsError, match="at update 2"):
        list(trainer_of(resumes=True, steps=3).run(engine))
    assert state_path(target).read_bytes() == before


def test_gradients_of_several_batches_are_their_mean():
    random = np.random.default_rng(1)
    parts = [{"a": random.standard_normal(5).astype(np.float32)} for _ in range(4)]
    total = {}
    for part in parts:
        total = added(total, dict(part), 4)
    assert np.abs(total["a"] - np.mean([part["a"] for part in parts], 0)).max() < 1e-6
    assert added({}, parts[0], 1) is parts[0]
