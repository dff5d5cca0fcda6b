"""``framewake lora train``: options into a run, its events onto the screen."""

from __future__ import annotations

import dataclasses
import json
import shlex
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from framewake import engine as engines
from framewake.app.render import duration, spinner
from framewake.console.escape import escaped, inline
from framewake.errors import Cancelled
from framewake.pipeline.checkpoint import find_checkpoint
from framewake.pipeline.events import Note
from framewake.train.events import Encoded, Sampled, Saved, Started, Trained, TrainingEvent, Update
from framewake.train.run import Places, Trainer
from framewake.train.settings import training_settings
from framewake.train.state import state_path
from framewake.weights.load import open_checkpoint

LINE_SECONDS = 10.0  # between lines where there is no terminal


def train(given: Mapping[str, Any]) -> None:
    """Train the LoRA that the options ask for.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C, which says how to go on.
    """
    settings = {name: given[name] for name in training_settings() if given[name] is not None and given[name] != []}
    cache = None if given["cache"] is None else Path(given["cache"])
    places = Places(Path(given["data"]), Path(given["target"]), cache)
    checkpoint = open_checkpoint(find_checkpoint(given["checkpoint"] or "demo"))
    trainer = Trainer(checkpoint, places, settings, resumes=given["resume"])
    events = trainer.run(engines.get(given["engine"]))
    screen: Screen = Lines() if given["json"] else Terminal()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    step = trainer.first
    try:
        if given["checkpoint"] is None:
            screen.show(Note("no checkpoint was named, so the LoRA is for the embedded demonstration (--checkpoint)."))
        for event in events:
            step = event.step if isinstance(event, Update) else step
            screen.show(event)
    except KeyboardInterrupt:
        screen.close()
        events.close()  # saves the run, wherever the interrupt came
        raise Cancelled(how_to_go_on(given, step)) from None
    finally:
        screen.close()
        signal.signal(signal.SIGTERM, before)


def how_to_go_on(given: Mapping[str, Any], step: int) -> str:
    """What to tell somebody who pressed Ctrl-C."""
    if not state_path(Path(given["target"])).exists():
        return "stopped before the first update; what was encoded is kept for the next run."
    words = ["framewake", "lora", "train", given["data"], given["target"], "--resume"]
    for name in ("checkpoint", "engine", "cache"):
        if given[name] is not None and (name, given[name]) != ("engine", "auto"):
            words += [f"--{name}", given[name]]
    return f"stopped after update {step}. Nothing is lost: go on with `{shlex.join(words)}`."


class Screen(Protocol):
    """Shows events as they come."""

    def show(self, event: TrainingEvent | Note) -> None:
        """Show one event."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class Lines:
    """One JSON object a line, on stdout."""

    def show(self, event: TrainingEvent | Note) -> None:
        """Print an event."""
        name = type(event).__name__.lower()
        values = {key: str(v) if isinstance(v, Path) else v for key, v in dataclasses.asdict(event).items()}
        sys.stdout.write(json.dumps({"event": name, **values}, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing to leave."""


class Terminal:
    """A bar on stderr, the finished file on stdout; lines from time to time where there is no terminal."""

    def __init__(self) -> None:
        from rich.console import Console  # slow, and programs do not need it

        self._console = Console(stderr=True, highlight=False)
        self._progress: Any = None
        self._task: Any = None
        self._loss: float | None = None
        self._told = time.monotonic()

    def show(self, event: TrainingEvent | Note) -> None:
        """Move the bar, or print a line."""
        match event:
            case Started(clips, cached, modules, parameters, first, steps):
                begun = f", {first} done before" if first else ""
                self._say(
                    f"{clips} clips ({cached} encoded before), {modules} modules, {parameters:,} numbers to train, "
                    f"{steps} updates{begun}"
                )
            case Encoded(what, done, count):
                self._bar(f"Encoding {what}", done, count, f"{done} of {count}")
            case Update(step, count, loss, _, _, _, seconds_left):
                # Noise levels differ so much from update to update that only a mean tells anything.
                self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
                detail = f"update {step} of {count}, loss {self._loss:.4f}, {duration(seconds_left)} left"
                self._bar("Training", step, count, detail)
            case Saved(step, path):
                self._say(f"saved after update {step}: {inline(path)}")
            case Sampled(step, path):
                self._say(f"sample after update {step}: {inline(path)}")
            case Note(text):
                self._say(f"Note: {text}", style="yellow")
            case Trained(path, step, loss, seconds):
                self.close()
                sys.stdout.write(f"{inline(path)}: {step} updates, loss {loss:.4f}, {duration(seconds)}\n")
                sys.stdout.flush()

    def close(self) -> None:
        """Stop the live display."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(escaped(text), style=style, soft_wrap=True, markup=False)

    def _bar(self, label: str, done: int, count: int, detail: str) -> None:
        if not self._console.is_terminal:
            if done == count or time.monotonic() - self._told >= LINE_SECONDS:
                self._told = time.monotonic()
                self._say(f"{label}: {detail}")
            return
        if self._progress is None:
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

            columns = (spinner(self._console), TextColumn("{task.description:<20}"), BarColumn(bar_width=16))
            more = (TextColumn("{task.fields[detail]}"), TimeElapsedColumn())
            self._progress = Progress(*columns, *more, console=self._console)
            self._task = self._progress.add_task(label, total=count, detail="")
            self._progress.start()
        self._progress.update(self._task, description=label, completed=done, total=count, detail=detail)
