"""What a job's folder holds of its clip: finished, begun, or useless; it is also the working folder."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Row

from framewake.errors import FramewakeError, InputError, UnwritableError
from framewake.media.clips import look_at
from framewake.media.video import read_metadata, read_video
from framewake.pipeline.drafts import Drafts, DraftSize, draft_path
from framewake.pipeline.events import STAGES, Event, Stage, Step, Tile
from framewake.pipeline.finish import clip_frames, known_frames
from framewake.pipeline.jobs import Job, Output, Plan, request_from
from framewake.pipeline.latents import SavedLatents, latents_path, load_latents, old_latents_path
from framewake.pipeline.longer import Longer, make_longer, plan_longer, segment_path
from framewake.pipeline.longer import begin as begin_longer
from framewake.pipeline.longer import begun as begun_longer
from framewake.pipeline.origin import other_settings
from framewake.pipeline.run import Pipeline
from framewake.request import Request, from_dict
from framewake.service.storage import CLIP, PICTURE, digest_of

log = logging.getLogger("framewake.worker")

STEPPED = ("denoise", "enlarge")  # stages that go on from their last step


def is_made(pipeline: Pipeline, job: Row[Any]) -> bool:
    """Whether the job's clip is there, whole, and its own; any other file of that name goes."""
    if not Path(CLIP).is_file():
        return False
    try:
        own = from_dict(request_from(read_metadata(Path(CLIP))))
        others = other_settings(from_dict(json.loads(job.request)), own)
        dit = pipeline.checkpoint.dit
        wanted = clip_frames(own.frames or 0, dit)
        wanted += 0 if job.extends is None else look_at(Path(PICTURE)).frames - known_frames(dit)
        is_whole = len(read_video(Path(CLIP))[0]) == wanted
        problem = "; ".join(others) or ("" if is_whole else "it is cut")
    except InputError as error:
        problem = str(error)
    if problem:
        log.warning("%s: the clip that is there is not this job's (%s); making it", job.id, problem)
        Path(CLIP).unlink()
    return not problem


class Goal(NamedTuple):
    """What a job asks for, and its plan; an error in place of the plan where none can be made.

    Finished latents need no plan: the error is raised when one is needed.
    """

    job: Row[Any]
    request: Request
    output: Output
    plan: Plan | FramewakeError


def goal_of(pipeline: Pipeline, job: Row[Any], *, save_every: int, is_asked: Callable[[], bool]) -> Goal:
    """A job settled, once. ``is_asked``: whether it is to pause behind the step at hand."""
    request = from_dict(json.loads(job.request))
    size: DraftSize = "small" if job.draft_size == "small" else "full"
    output = Output(Path(CLIP), save_every=save_every, drafts=Drafts((), job.draft or None, size, is_asked=is_asked))
    try:
        return Goal(job, request, output, pipeline.plan(Job(request, output)))
    except FramewakeError as error:
        return Goal(job, request, output, error)


def begun(pipeline: Pipeline, goal: Goal) -> tuple[Generator[Event, None, None], int]:
    """The run of a job, from what was saved of it where that can be used, and how many steps it has behind it.

    Those in which it is enlarged are counted behind those that were asked for.
    """
    if goal.job.extends is not None:
        return _extending(pipeline, goal), 0
    for file in (latents_path(goal.output.path), old_latents_path(goal.output.path)):
        if file.is_file():
            try:
                saved = load_latents(file)
                return _resumed(pipeline, goal, saved), saved.step
            except InputError as error:
                _forget(goal.job, file, error)
    return _anew(pipeline, goal), 0


def _extending(pipeline: Pipeline, goal: Goal) -> Generator[Event, None, None]:
    """A run that goes on from the clip that is the job's picture, from what was made of it before.

    Raises: InputError.
    """
    check_picture(goal.job)
    longer = Longer((goal.request,), goal.output, PICTURE, goal.job.picture)
    with contextlib.suppress(InputError):  # what is there is no such record: it is made anew
        return make_longer(pipeline, dataclasses.replace(begun_longer(goal.output.path, ()), output=goal.output))
    return make_longer(pipeline, begin_longer(longer, plan_longer(longer, pipeline.checkpoint)))


def waiting_draft(job: Row[Any]) -> int | None:
    """The step of the draft with which the job was to pause, where a worker died between the two."""
    file = latents_path(Path(CLIP) if job.extends is None else segment_path(Path(CLIP), 1))
    if job.draft is None or not file.is_file():
        return None
    with contextlib.suppress(InputError):
        step = load_latents(file).step
        return step if step >= job.draft and draft_path(Path(CLIP), step).is_file() else None
    return None


def _anew(pipeline: Pipeline, goal: Goal) -> Generator[Event, None, None]:
    """A run from its beginning, from the picture that was handed in and no other.

    Raises: InputError.
    """
    check_picture(goal.job)
    if isinstance(goal.plan, FramewakeError):
        raise goal.plan
    return pipeline.run_all([goal.plan])


def check_picture(job: Row[Any]) -> None:
    """Whether the picture is the one that was handed in.

    Raises: InputError.
    """
    if job.picture is not None:
        found = ""
        with contextlib.suppress(OSError):
            found = digest_of(Path(PICTURE).read_bytes())
        if found != job.picture:
            raise InputError("the picture is not the one that was handed in, but lost or damaged: hand it in again.")


def last_place(job: Row[Any]) -> tuple[int, int]:
    """How far the last attempt at a job came: its stage, and its step in there; a damaged record tells nothing."""
    stage = STAGES.index(job.stage) if job.stage in STAGES else -1
    return stage, job.step if isinstance(job.step, int) else 0


def all_steps(goal: Goal) -> dict[str, int]:
    """How many steps a job has, with those in which it is enlarged; nothing where it has no plan."""
    if isinstance(goal.plan, FramewakeError):
        return {}
    larger = goal.plan.larger
    return {"steps": goal.plan.request.steps + (0 if larger is None else larger.request.steps)}


def without_deaths(last: tuple[int, int], stage: Stage, step: int) -> dict[str, int]:
    """The deaths are forgotten where a job comes further than the time before: one that kills dies at one place."""
    place = STAGES.index(stage)
    is_further = place > last[0] or (stage in STEPPED and place == last[0] and step > last[1])
    return {"deaths": 0} if is_further else {}


def told_step(goal: Goal, last: tuple[int, int], stage: Stage | None, index: int) -> dict[str, int]:
    """A step of a stage as the job's, and the deaths that it makes forgotten."""
    step = index + ((goal.request.steps or 0) if stage == "enlarge" else 0)
    return {"step": step, **without_deaths(last, stage or "denoise", step)}


def _resumed(pipeline: Pipeline, goal: Goal, saved: SavedLatents) -> Generator[Event, None, None]:
    """A run from saved latents, from its beginning where they turn out to be of no use on the way."""
    is_begun = False
    plan = None if isinstance(goal.plan, FramewakeError) else goal.plan
    try:
        with contextlib.closing(pipeline.resume(saved, goal.output, request=goal.request, plan=plan)) as events:
            for event in events:
                is_begun = is_begun or isinstance(event, Step | Tile)
                yield event
    except InputError as error:
        if is_begun or isinstance(error, UnwritableError):  # it is not the latents that are wrong
            raise
        _forget(goal.job, latents_path(goal.output.path), error)
        yield from _anew(pipeline, goal)


def _forget(job: Row[Any], file: Path, error: InputError) -> None:
    # Nobody who asks for a video can delete a file here, and trying again would meet the same one.
    log.warning("%s: saved latents are of no use (%s); beginning anew", job.id, error)
    file.unlink(missing_ok=True)
