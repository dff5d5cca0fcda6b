"""``framewake lora train``: options into a run, its events onto the screen."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from framewake import engine as engines
from framewake.app.animate import memory_note
from framewake.app.devices import own_group, parse_devices, variables
from framewake.app.joined import following
from framewake.app.lines import LINE_SECONDS, Pacer, say
from framewake.app.options import option_words
from framewake.app.render import bars, duration, has_terminal
from framewake.app.start import start
from framewake.app.stopping import stopped_by_signals
from framewake.console.escape import escaped, inline
from framewake.console.wrapping import fitted
from framewake.engine.contract import Engine
from framewake.errors import Cancelled
from framewake.pipeline.checkpoint import find_checkpoint
from framewake.pipeline.events import Note
from framewake.pipeline.forecast import parse_memory
from framewake.train.events import Diverged, Encoded, Sampled, Saved, Started, Trained, TrainingEvent, Update, Validated
from framewake.train.run import Places, Trainer
from framewake.train.settings import training_settings
from framewake.train.state import state_path
from framewake.weights.checkpoint.load import open_checkpoint

PLACES = ("checkpoint", "engine", "cache", "memory", "devices")


def train(given: Mapping[str, Any]) -> int:
    """Train the LoRA that the options ask for, here, by processes that are started, or as one of them; the exit code.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C, which says how to go on.
    """
    asked = None if given["devices"] is None else parse_devices(given["devices"])
    group = own_group(asked)
    if group is not None and not group.leads:
        following(group, given["engine"], lambda engine: help_train(given, engine))
    elif group is None and asked is not None and asked.size > 1:
        command = [sys.executable, "-m", "framewake", *command_words(given)]
        return start(command, variables(asked, given["engine"]), asked.size, advice=lambda: saved_of(given))
    else:
        lead(given)
        engines.leave()
    return 0


def command_words(given: Mapping[str, Any]) -> list[str]:
    """The command that was called."""
    words = ["lora", "train", given["data"], given["target"]]
    for name, setting in training_settings().items():
        if setting.kind == "switch":
            words += [setting.flag] if given[name] else []
        else:
            words += option_words(setting.flag, given[name])
    for name in PLACES:
        words += option_words(f"--{name}", given[name])
    return words + [f"--{name}" for name in ("resume", "json") if given[name]]


def trainer_of(given: Mapping[str, Any]) -> Trainer:
    """The run that the options ask for.

    Raises: FramewakeError of any kind.
    """
    settings = {name: given[name] for name in training_settings() if given[name] is not None and given[name] != []}
    cache = None if given["cache"] is None else Path(given["cache"])
    places = Places(Path(given["data"]), Path(given["target"]), cache)
    checkpoint = open_checkpoint(find_checkpoint(given["checkpoint"] or "demo"))
    return Trainer(checkpoint, places, settings, resumes=given["resume"])


def help_train(given: Mapping[str, Any], engine: Engine) -> None:
    """Make the share of a process that another one leads, in silence.

    Raises: FramewakeError of any kind.
    """
    for _ in trainer_of(given).run(engine, memory=parse_memory(given["memory"])):
        pass


def lead(given: Mapping[str, Any]) -> None:
    """Train, alone or as the first process of a group.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C, which says how to go on.
    """
    memory = parse_memory(given["memory"])
    trainer = trainer_of(given)
    engine = engines.join(given["engine"])
    events = trainer.run(engine, memory=memory)
    screen: Screen = TrainingJson() if given["json"] else TrainingTerminal() if has_terminal() else TrainingLines()
    step = trainer.first
    with stopped_by_signals() as check_stopped:
        try:
            if given["checkpoint"] is None:
                text = "no checkpoint was named, so the LoRA is for the embedded demonstration (--checkpoint)."
                screen.show(Note(text))
            for text in memory_note(memory, engine):
                screen.show(Note(text))
            for event in events:
                step = event.step if isinstance(event, Update) else step
                screen.show(event)
                check_stopped()
        except KeyboardInterrupt:
            events.close()  # saves the run, wherever the interrupt came, before anything else can go wrong
            screen.close()
            raise Cancelled(how_to_go_on(given, step)) from None
        finally:
            events.close()
            screen.close()


def how_to_go_on(given: Mapping[str, Any], step: int) -> str:
    """What to tell somebody who pressed Ctrl-C."""
    if not state_path(Path(given["target"])).exists():
        return "stopped before the first update; what was encoded is kept for the next run."
    return f"stopped after update {step}. Nothing is lost: go on with `{resume_command(given)}`."


def saved_of(given: Mapping[str, Any]) -> str:
    """How to go on with a run that has saved something; "" for any other."""
    is_saved = state_path(Path(given["target"])).exists()
    return f"What is saved is not lost: go on with `{resume_command(given)}`." if is_saved else ""


def resume_command(given: Mapping[str, Any]) -> str:
    """The command line that goes on with a run."""
    words = ["framewake", "lora", "train", given["data"], given["target"], "--resume"]
    for name in PLACES:
        if given[name] is not None and (name, given[name]) != ("engine", "auto"):
            words += [f"--{name}", given[name]]
    return shlex.join(words)


class Screen(Protocol):
    """Shows events as they come."""

    def show(self, event: TrainingEvent | Note) -> None:
        """Show one event."""

    def close(self) -> None:
        """Leave the terminal as it was."""


class TrainingJson:
    """One JSON object a line, on stdout."""

    def show(self, event: TrainingEvent | Note) -> None:
        """Print an event."""
        name = type(event).__name__.lower()
        values = {key: str(v) if isinstance(v, Path) else v for key, v in dataclasses.asdict(event).items()}
        sys.stdout.write(json.dumps({"event": name, **values}, ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def close(self) -> None:
        """Nothing to leave."""


class Text:
    """A run in words on stderr, the finished file on stdout; how progress is shown, a subclass says."""

    def show(self, event: TrainingEvent | Note) -> None:
        """Show progress, or print a line."""
        match event:
            case Started(clips, cached, modules, parameters, first, steps, forecast, held):
                self.say(forecast)
                begun = f", {first} done before" if first else ""
                left_out = f", {held} of them left out for validation" if held else ""
                self.say(
                    f"{clips} clips ({cached} encoded before){left_out}, {modules} modules, "
                    f"{parameters:,} numbers to train, {steps} updates{begun}"
                )
                self.move("Encoding" if cached < clips else "Training", 0, steps, "")
            case Encoded(what, done, count):
                self.move(f"Encoding {what}", done, count, f"{done} of {count}")
            case Update(step, count, _, average, _, _, _, seconds_left):
                detail = f"update {step} of {count}, loss {average:.4f}, {duration(seconds_left)} left"
                self.move("Training", step, count, detail)
            case Validated(step, loss, levels):
                each = ", ".join(f"{value:.4f} at {level}" for level, value in levels.items())
                self.say(f"validation after update {step}: loss {loss:.4f} ({each})")
            case Diverged(step, average, began):
                text = (
                    f"the loss diverges, from {began:.3g} to {average:.3g} (mean) after update {step}: stop, and begin"
                )
                self.say(f"Note: {text} under another name with a smaller --lr, or with --warmup.", style="yellow")
            case Saved(step, path):
                self.say(f"saved after update {step}: {inline(path)}")
            case Sampled(step, path):
                self.say(f"sample after update {step}: {inline(path)}")
            case Note(text):
                self.say(f"Note: {text}", style="yellow")
            case Trained(path, step, loss, seconds):
                self.close()
                sys.stdout.write(f"{inline(path)}: {step} updates, loss {loss:.4f}, {duration(seconds)}\n")
                sys.stdout.flush()

    def say(self, text: str, *, style: str | None = None) -> None:
        """Print a line."""
        raise NotImplementedError

    def move(self, label: str, done: int, count: int, detail: str) -> None:
        """Show how far a stage is."""
        raise NotImplementedError

    def close(self) -> None:
        """Leave the terminal as it was."""
        raise NotImplementedError


class TrainingLines(Text):
    """Plain lines for a log."""

    def __init__(self, *, seconds: float = LINE_SECONDS) -> None:
        self._pacer = Pacer(say, seconds=seconds)
        self._stage = ""

    def say(self, text: str, *, style: str | None = None) -> None:
        """Print a line."""
        say(text)

    def move(self, label: str, done: int, count: int, detail: str) -> None:
        """A line where it is time."""
        if label != self._stage:
            self._stage = label
            self._pacer.begin(label)
        self._pacer.move(done / count, detail)

    def close(self) -> None:
        """End the thread."""
        self._pacer.close()


class TrainingTerminal(Text):
    """A bar."""

    def __init__(self) -> None:
        from rich.console import Console  # slow, and programs do not need it

        self._console = Console(stderr=True, highlight=False)
        self._progress: Any = None
        self._task: Any = None

    def say(self, text: str, *, style: str | None = None) -> None:
        """Print a line above the bar."""
        lines = fitted(escaped(text), sys.stderr, indent="  ")
        self._console.print(lines, style=style, soft_wrap=True, markup=False)

    def move(self, label: str, done: int, count: int, detail: str) -> None:
        """Move the bar."""
        if self._progress is None:
            self._progress = bars(self._console)
            self._task = self._progress.add_task(label, total=count, detail="")
            self._progress.start()
        self._progress.update(self._task, description=label, completed=done, total=count, detail=detail)

    def close(self) -> None:
        """Stop the live display."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
