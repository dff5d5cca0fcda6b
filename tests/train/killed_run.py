"""A training run that is killed without a word: between two updates, inside of one, or while it saves.

killed_run.py CHECKPOINT CLIPS TARGET ENGINE MOMENT
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from framewake import engine as engines
from framewake.train.events import Update
from framewake.train.run import Places, Trainer
from framewake.weights.checkpoint.load import open_checkpoint

SETTINGS = {"frames": 5, "rank": 4, "learning_rate": 1e-2, "steps": 4, "save_every": 1, "stored": "float32"}


def trainer(toy, clips, target, *, resumes=False) -> Trainer:
    """The run, or what is left of it."""
    return Trainer(toy, Places(clips, target, target.with_name("cache")), {} if resumes else SETTINGS, resumes=resumes)


def killed(toy, clips, target, engine, moment) -> int:
    """The run in a process that ends itself; its exit code."""
    command = [sys.executable, __file__, *map(str, (toy.folder, clips, target)), engine.name, moment]
    return subprocess.run(command, check=False, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}).returncode


def end() -> None:
    """No handler, no cleaning up."""
    os.kill(os.getpid(), signal.SIGKILL)


def end_between_files(step: int) -> None:
    """End the process when the update behind ``step`` is half saved: an audit hook sees every file appear."""
    renamed = 0

    def hook(event: str, arguments: tuple) -> None:
        nonlocal renamed
        if event == "os.rename" and str(arguments[1]).endswith(".safetensors") and "clip" not in str(arguments[1]):
            renamed += 1
            if renamed == 2 * step + 2:  # the LoRA is new, its state is not yet
                end()

    sys.addaudithook(hook)


class Ending:
    """An engine that ends the process in the middle of a backward walk."""

    def __init__(self, engine, calls: int) -> None:
        self.engine, self.calls = engine, calls

    def __getattr__(self, name: str):
        return getattr(self.engine, name)

    def vjp(self, function):
        """As in the contract, until it was asked for often enough."""
        self.calls -= 1
        if self.calls < 0:
            end()
        return self.engine.vjp(function)


def main(checkpoint: str, clips: str, target: str, engine: str, moment: str) -> None:
    """One run to the moment."""
    if moment == "between its files":
        end_between_files(2)
    made = engines.get(engine)
    run = trainer(open_checkpoint(Path(checkpoint)), Path(clips), Path(target))
    for event in run.run(Ending(made, 7) if moment == "inside an update" else made):
        if isinstance(event, Update) and event.step == 2 and moment == "between updates":
            end()


if __name__ == "__main__":
    main(*sys.argv[1:])
