"""Events as a person or a program wants to see them; every reporter has ``show`` and ``close``."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from typing import Any, Protocol

from framewake.console.escape import escaped, inline
from framewake.console.wrapping import fitted
from framewake.pipeline.events import (
    Cached,
    Draft,
    Drafting,
    Event,
    Note,
    Result,
    StageFinished,
    StageStarted,
    Step,
    Tile,
    Written,
)

LABELS = {
    "read image": "Reading the picture",
    "encode text": "Encoding the prompt",
    "encode image": "Encoding the picture",
    "denoise": "Denoising",
    "enlarge": "Super-resolution",
    "decode": "Decoding frames",
    "write": "Writing the clip",
}


BESIDE_BAR = 66  # letters of a line that are no bar


class Reporter(Protocol):
    """Shows events as they come."""

    def show(self, event: Event) -> None:
        """Show one event."""

    def tell(self, text: str) -> None:
        """Say what will happen or has happened, of which nobody needs to be warned."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def record(event: Event) -> dict[str, Any]:
    """An event as plain values for JSON; pictures are left out, their sizes are not."""
    values: dict[str, Any]
    match event:
        case StageStarted(stage):
            name, values = "stage_started", {"stage": stage}
        case StageFinished(stage, seconds):
            name, values = "stage_finished", {"stage": stage, "seconds": round(seconds, 3)}
        case Step(index, count, seconds, seconds_left, _, is_skipped):
            times = {"seconds": round(seconds, 3), "seconds_left": round(seconds_left, 3)}
            name, values = "step", {"index": index, "count": count, **times, "is_skipped": is_skipped}
        case Tile() | Written() | Drafting():
            values = {name: round(value, 3) for name, value in dataclasses.asdict(event).items()}
            name = type(event).__name__.lower()
        case Draft(step, count, path, is_end):
            name, values = "draft", {"step": step, "count": count, "path": str(path), "is_end": is_end}
        case Note(text):
            name, values = "note", {"text": text}
        case Result():
            frames, height, width = event.frames.shape[:3]
            name = "result"
            values = {
                "path": None if event.path is None else str(event.path),
                "frames": frames,
                "height": height,
                "width": width,
                "seed": event.seed,
                "timings": {stage: round(seconds, 3) for stage, seconds in event.timings.items()},
                "metadata": dict(event.metadata),
                "cached": None if event.cached is None else dataclasses.asdict(event.cached),
            }
    return {"event": name, **values}


class Quiet:
    """Only the path of each clip, or of the draft that a run ends with, on stdout."""

    def show(self, event: Event) -> None:
        """Print a result's path."""
        if (isinstance(event, Result) and event.path is not None) or (isinstance(event, Draft) and event.is_end):
            sys.stdout.write(f"{inline(event.path)}\n")
            sys.stdout.flush()

    def tell(self, text: str) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing to leave."""


class JsonLines:
    """One JSON object a line, on stdout."""

    def show(self, event: Event) -> None:
        """Print an event."""
        sys.stdout.write(json.dumps(record(event), ensure_ascii=False) + "\n")
        sys.stdout.flush()

    def tell(self, text: str) -> None:
        """Print it as a note: a program chooses for itself."""
        self.show(Note(text))

    def close(self) -> None:
        """Nothing to leave."""


class Terminal:
    """Bars for stages, steps and the time left on stderr; what was made on stdout."""

    def __init__(self, clips: int = 1) -> None:
        # Rich is slow to import, and help, version and programs do not need it.
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._clips, self._done = clips, 0
        self._begin = time.monotonic()
        self._progress: Any = None
        self._task: Any = None

    def show(self, event: Event) -> None:
        """Move the bars, or print a line."""
        match event:
            case StageStarted(stage):
                self._open().start()
                self._task = self._progress.add_task(LABELS[stage], total=None, detail="")
            case Step(index, count, _, seconds_left):
                detail = f"step {index} of {count}, {duration(seconds_left)} left"
                self._progress.update(self._task, completed=index, total=count, detail=detail)
            case Tile(index, count, seconds_left):
                detail = f"tile {index} of {count}, {duration(seconds_left)} left" if count > 1 else ""
                self._progress.update(self._task, completed=index, total=count, detail=detail)
            case Written(share, seconds_left):
                detail = f"{share:.0%}, {duration(seconds_left)} left"
                self._progress.update(self._task, completed=share, total=1, detail=detail)
            case StageFinished():
                self._progress.update(self._task, total=1, completed=1, detail="")
                self._progress.stop_task(self._task)
            case Drafting(step, share):
                self._progress.update(self._task, detail=f"draft after step {step}, {share:.0%}")
            case Draft(is_end=False):
                self._print(drafted(event))
            case Note(text):
                self._print(f"Note: {text}", style="yellow")
            case Draft() | Result():
                self._result(event)

    def tell(self, text: str) -> None:
        """Print lines."""
        self._print(text)

    def _print(self, text: str, *, style: str | None = None) -> None:
        lines = fitted(escaped(text), sys.stderr, indent="  ")
        self._console.print(lines, style=style, soft_wrap=True, markup=False)

    def _open(self) -> Any:
        """The bars of this clip."""
        if self._progress is None:
            self._progress = bars(self._console)
        return self._progress

    def _result(self, event: Result | Draft) -> None:
        # The path is the program's answer and goes to stdout; the live display must have left the terminal before.
        self.close()
        self._done += 1
        seconds, self._begin = time.monotonic() - self._begin, time.monotonic()
        if isinstance(event, Draft):
            sys.stdout.write(f"{drafted(event)}\n")
        else:
            sys.stdout.write(made(event, self._done, self._clips, seconds=seconds))
        sys.stdout.flush()

    def close(self) -> None:
        """Stop the live display."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def has_terminal() -> bool:
    """Whether bars can be drawn on stderr."""
    from rich.console import Console

    return Console(stderr=True).is_terminal


def made(event: Result, number: int, count: int, *, seconds: float) -> str:
    """A finished clip as a line."""
    frames, height, width = event.frames.shape[:3]
    which = f" ({number} of {count})" if count > 1 else ""
    what = f"{frames} frames of {width}x{height}, seed {event.seed}, {duration(seconds)}"
    if event.cached is not None:
        what += f", {caching(event.cached)}"
    return f"{inline(event.path)}{which}: {what}\n"


def drafted(event: Draft) -> str:
    """A draft as a line."""
    frames, height, width = event.frames.shape[:3]
    what = f"{frames} frames of {width}x{height}"
    return f"{inline(event.path)}: draft after step {event.step} of {event.count}, {what}"


def bars(console: Any) -> Any:
    """Bars as long as the terminal has room for, in signs that it has."""
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    is_plain = console.options.ascii_only
    spinner = SpinnerColumn("line" if is_plain else "dots", finished_text="[green]+" if is_plain else "[green]✓")
    bar = BarColumn(bar_width=min(max(console.width - BESIDE_BAR, 16), 60))
    texts = TextColumn("{task.description:<20}"), bar, TextColumn("{task.fields[detail]}")
    return Progress(spinner, *texts, TimeElapsedColumn(), console=console)


def caching(cached: Cached) -> str:
    """What a step cache did, for a person."""
    count = cached.computed + cached.skipped
    return f"{cached.computed} of {count} steps computed, about {duration(cached.seconds_saved)} saved"


def duration(seconds: float) -> str:
    """Seconds as a person says them: "4.2 s", "3 min 20 s", "1 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    if minutes < 60:
        return f"{minutes} min {round(seconds) % 60} s"
    return f"{minutes // 60} h {minutes % 60} min"
