"""``framewake animate``: options into jobs, events onto the screen."""

from __future__ import annotations

import dataclasses
import shlex
import signal
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from framewake import engine as engines
from framewake.app.options import given_settings
from framewake.app.outputs import free_path
from framewake.app.render import JsonLines, Quiet, Reporter, Terminal
from framewake.batch import read_batch
from framewake.errors import Cancelled, FramewakeError, InputError
from framewake.media.video import MAX_CRF, read_metadata
from framewake.pipeline.checkpoint import open_whole
from framewake.pipeline.events import Event, Note, Result
from framewake.pipeline.forecast import Forecast, parse_memory
from framewake.pipeline.jobs import Job, Output, plan_job, request_from
from framewake.pipeline.latents import latents_path
from framewake.pipeline.run import Pipeline
from framewake.request import Request, draw_seed, from_dict
from framewake.setting import Setting, check_setting
from framewake.weights.layouts import parse_files
from framewake.weights.load import Checkpoint

CRF = 18


def animate(given: Mapping[str, Any]) -> None:
    """Make the clips that the options ask for.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C.
    """
    if given["from_latents"] is not None or given["resume"]:
        from framewake.app.resume import go_on

        if go_on(given):
            return
    like = {} if given["like"] is None else read_metadata(given["like"])
    jobs = jobs_of("animate", given, like)
    notes = []
    if given["checkpoint"] is None:
        notes.append("no checkpoint was named, so the small embedded demonstration checkpoint is used (--checkpoint).")
    checkpoint = open_whole(given["checkpoint"] or "demo", parse_files(given["part"] or []))
    made_with = like.get("checkpoint", checkpoint.settings.name)
    if made_with != checkpoint.settings.name:
        notes.append(f"{given['like']} was made with {made_with!r}; {checkpoint.settings.name!r} gives another clip.")
    check_jobs(jobs, checkpoint)
    pipeline = Pipeline(checkpoint, engines.get(given["engine"]), memory=parse_memory(given["memory"]))
    if len(jobs) == 1:
        notes.append(plan_note(pipeline.forecast(jobs[0])))
    show(reporter(given, len(jobs)), notes, pipeline.run_all(jobs), jobs)


def jobs_of(command: str, given: Mapping[str, Any], like: Mapping[str, Any]) -> list[Job]:
    """The jobs of a command line, each with its seed and its output; ``command`` is what was called.

    Raises: InputError for anything that is missing or does not go together.
    """
    common = ({} if given["like"] is None else request_from(like)) | given_settings(given)
    if given["batch"] is not None:
        requests = read_batch(given["batch"], common=common)
    else:
        if "prompt" not in common:
            what = "neither picture nor prompt was" if "image" not in common else "no prompt was"
            usage = f'framewake {command} IMAGE "PROMPT"  (or --batch, --like; see framewake {command} --help).'
            raise InputError(f"{what} given: {usage}")
        requests = [from_dict(common)]
    crf = asked_crf(given, like)
    jobs: list[Job] = []
    seeded = [dataclasses.replace(r, seed=draw_seed() if r.seed is None else r.seed) for r in requests]
    for request in seeded:
        taken = [job.output.path for job in jobs if job.output is not None]
        path = output_path(given, request, taken)
        jobs.append(Job(request, Output(path, crf, has_metadata=not given["no_metadata"])))
    return jobs


def asked_crf(given: Mapping[str, Any], made: Mapping[str, Any]) -> int:
    """The mp4's quality: what the command line says, else that of a clip made before.

    Raises: InputError when it is none.
    """
    crf = made.get("crf", CRF) if given["crf"] is None else given["crf"]
    check_setting("crf", crf, Setting("integer", "", "--crf", 0, MAX_CRF))
    return crf


def check_jobs(jobs: Sequence[Job], checkpoint: Checkpoint) -> None:
    """Everything that can be refused is refused here, before a framework starts; of several, the number is said.

    Raises: InputError, CheckpointError.
    """
    for number, job in enumerate(jobs, 1):
        try:
            plan_job(job, checkpoint)
        except FramewakeError as error:
            if len(jobs) > 1:
                error.args = (f"clip {number} of {len(jobs)}: {error}",)
            raise


def plan_note(found: Forecast) -> str:
    """A forecast as one text."""
    return "\n  ".join(["The plan:", *found.lines])


def output_path(given: Mapping[str, Any], request: Request, taken: list[Path]) -> Path:
    """Where a clip goes."""
    asked = given["output"]
    if given["batch"] is None:
        return free_path(request, Path()) if asked is None else Path(asked)
    if asked is not None and not Path(asked).is_dir():
        raise InputError(f"with --batch, -o names the folder for all clips, and {asked} is none. Make it first.")
    return free_path(request, Path(asked or ""), taken=taken)


def reporter(given: Mapping[str, Any], clips: int) -> Reporter:
    """Who shows the events."""
    if given["json"]:
        return JsonLines()
    return Quiet() if given["quiet"] else Terminal(clips)


def show(screen: Reporter, notes: list[str], events: Generator[Event, None, None], jobs: list[Job]) -> None:
    """Show events to the end.

    Raises: Cancelled after Ctrl-C or a polite kill, which says how to go on.
    """
    # A kill without -9 stops as cleanly as Ctrl-C: no half file, no temporary file.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    done = 0
    try:
        for note in notes:
            screen.show(Note(note))
        for event in events:
            done += isinstance(event, Result)
            screen.show(event)
    except KeyboardInterrupt:
        screen.close()
        events.close()  # saves the latents, wherever the interrupt came
        raise Cancelled(how_to_go_on(jobs, done)) from None
    except FramewakeError as error:
        if len(jobs) > 1:
            error.args = (f"{error} ({done} of {len(jobs)} clips are made.)",)
        raise
    finally:
        screen.close()
        signal.signal(signal.SIGTERM, before)


def how_to_go_on(jobs: list[Job], done: int) -> str:
    """What to tell somebody who pressed Ctrl-C."""
    made = f" {done} of {len(jobs)} clips are made." if len(jobs) > 1 else ""
    job = jobs[min(done, len(jobs) - 1)]
    if job.output is not None and latents_path(job.output.path).exists():
        return f"stopped.{made} Nothing is lost: go on with `{resume_command(job.output.path)}`."
    return f"stopped; no half file is left.{made} The same clip is made by adding --seed {job.request.seed}."


def resume_command(path: Path) -> str:
    """The command line that goes on with a clip."""
    return f"framewake animate --resume -o {shlex.quote(str(path))}"
