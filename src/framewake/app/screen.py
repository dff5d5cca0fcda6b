"""Who shows a run's events, and what is printed when the run ends early."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any

from framewake.app.asked import KEPT
from framewake.app.lines import Lines
from framewake.app.options import place_words
from framewake.app.render import JsonLines, Quiet, Reporter, Terminal, has_terminal
from framewake.app.stopping import stopped_by_signals
from framewake.errors import Cancelled, FramewakeError, PeerError
from framewake.pipeline.events import Draft, Event, Note, Result
from framewake.pipeline.jobs import Job, Output, Plan
from framewake.pipeline.latents import latents_path
from framewake.pipeline.story import telling


def reporter(given: Mapping[str, Any], clips: int) -> Reporter:
    """Who shows the events."""
    if given["json"]:
        return JsonLines()
    return Quiet() if given["quiet"] else screen_of(clips)


def screen_of(clips: int) -> Reporter:
    """Bars on a terminal, lines in a log."""
    return Terminal(clips) if has_terminal() else Lines(clips)


def show(
    screen: Reporter,
    notes: list[str],
    events: Generator[Event, None, None],
    advice: Callable[[int], str],
    *,
    has_more: bool = False,
    is_busy: Callable[[], bool] = lambda: False,
) -> None:
    """Show events to the end; ``advice`` is how to go on after so many clips.

    ``has_more``: an error leaves other clips to be made, so it gets the advice too. ``is_busy``: as the signals' own.
    Raises: Cancelled when the run was asked to end, which says how to go on.
    """
    done = 0
    with stopped_by_signals(is_busy) as check_stopped:
        try:
            for note in notes:
                screen.show(Note(note))
            for event in events:
                done += isinstance(event, Result) or (isinstance(event, Draft) and event.is_end)
                screen.show(event)
                check_stopped()
        except KeyboardInterrupt:
            events.close()  # saves the latents, wherever the interrupt came, before anything else can go wrong
            screen.close()
            cancelled = Cancelled(f"stopped. {advice(done)}")
            cancelled.advice = advice(done)
            raise cancelled from None
        except FramewakeError as error:
            if isinstance(error, PeerError):
                error.advice = advice(done)
            if has_more or isinstance(error, PeerError):
                error.args = (f"{str(error).rstrip('.')}. {advice(done)}",)
            raise
        finally:
            events.close()
            screen.close()


def with_story(
    given: Mapping[str, Any], events: Generator[Event, None, None], output: Output | None, *, devices: int
) -> Generator[Event, None, None]:
    """The events, written down beside the clip where that was asked for."""
    if not given["story"] or output is None:
        return events
    is_resumed = given["resume"] or given["from_latents"] is not None
    return telling(events, output.path, devices=devices, is_resumed=is_resumed)


def how_to_go_on(jobs: Sequence[Job | Plan]) -> Callable[[int], str]:
    """What to tell somebody who has stopped a run."""

    def advice(done: int) -> str:
        job = jobs[min(done, len(jobs) - 1)]
        if job.output is not None and latents_path(job.output.path).exists():
            return f"Nothing is lost: go on with `{resume_command(job.output)}`."
        return f"No half file is left. The same clip is made by adding --seed {job.request.seed}."

    return advice


def tell_draft(screen: Reporter, given: Mapping[str, Any], output: Output | None) -> None:
    """How to go on behind the draft that a run has ended with; nothing for any other run."""
    if output is not None and output.drafts.stop is not None:
        names = KEPT if given["drafts"] is None else (*KEPT, "drafts", "draft_size")
        again = dataclasses.replace(output, options=tuple(place_words(given, names)))
        screen.tell(f"Go on with `{resume_command(again)}`.")


def resume_command(output: Output) -> str:
    """The command line that goes on with a clip."""
    return shlex.join(["framewake", "animate", "--resume", "-o", str(output.path), *output.options])
