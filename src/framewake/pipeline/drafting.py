"""The steps of a clip with the drafts between them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Generator
from typing import Any, NamedTuple

from framewake.pipeline import finish
from framewake.pipeline.denoise import Denoised, denoise
from framewake.pipeline.drafts import draft_path
from framewake.pipeline.events import Cached, Draft, Drafting, Event, Note, Tile, Written
from framewake.pipeline.jobs import Output, Plan
from framewake.pipeline.latents import Keeper, SavedLatents
from framewake.pipeline.parts import Parts
from framewake.pipeline.precision import Precision
from framewake.pipeline.preview import Preview
from framewake.pipeline.velocity import Condition

MAGNIFIED = 4  # pixels of a small draft for a cell of the latent grid
DECODED = 0.9  # of the work at a draft, roughly


class Course(NamedTuple):
    """A clip whose steps can begin."""

    plan: Plan
    precision: Precision
    condition: Condition
    preview: Preview
    keeper: Keeper | None


def denoise_with_drafts(
    parts: Parts, course: Course, *, start: SavedLatents | None, keeps_transformer: bool
) -> Generator[Event, None, tuple[Denoised, Draft | None]]:
    """All steps, which go on from what was saved behind each draft; the value has the draft that ends the run, if any.

    ``keeps_transformer``: its weights may stay while a draft is decoded.
    Raises: NumericsError as ``denoise``; UnwritableError, DiskFullError.
    """
    plan, precision, condition, preview, keeper = course
    seconds_saved, told = 0.0, list[str]()
    while True:
        steps = denoise(parts, plan, condition, precision=precision, preview=preview, keeper=keeper, start=start)
        found = yield from _once(steps, told)
        if found.cached is not None:
            seconds_saved += found.cached.seconds_saved
            found = found._replace(cached=dataclasses.replace(found.cached, seconds_saved=seconds_saved))
        if found.expected is None or keeper is None or plan.output is None:
            if keeper is not None:  # before anybody hears that the steps are done, and may stop the run
                keeper.metadata = {**keeper.metadata, **steps_told(found.cached)}
                failure = keeper.save(found.step, found.latents)
                yield from () if failure is None else (Note(failure),)
            return found, None
        if not keeps_transformer:
            parts.release("dit")
        try:
            draft = yield from _draft(parts, course, found, plan.output)
        finally:  # behind the draft: who loses power in it gets it again
            with finish.told_where(keeper, plan.output):
                start = keeper.must_save(found.step, found.latents, found.cache)
        if draft.is_end:
            return found, draft
        yield draft


def steps_told(cached: Cached | None) -> dict[str, Any]:
    """What a clip's metadata say of a step cache."""
    return {} if cached is None else {"steps": {"computed": cached.computed, "skipped": cached.skipped}}


def _once(steps: Generator[Event, None, Any], told: list[str]) -> Generator[Event, None, Any]:
    """Events without the notes that an earlier part told."""
    news: list[str] = []
    while True:
        try:
            event = next(steps)
        except StopIteration as end:
            told += news
            return end.value
        if isinstance(event, Note):
            if event.text in told:
                continue
            news.append(event.text)
        yield event


def _draft(parts: Parts, course: Course, found: Denoised, output: Output) -> Generator[Event, None, Draft]:
    """Make and write a draft, whose settings say that it is one. A small one has a frame for each latent frame."""
    request, size, clean = course.plan.request, output.drafts.size, found.expected
    assert clean is not None and course.keeper is not None  # without them there is no draft
    fps = request.fps
    if size == "full":
        frames = yield from _drafting(finish.decode(parts, clean, request, course.precision), found.step, 0.0)
    else:
        config = parts.checkpoint.vae
        dropped = math.ceil(parts.checkpoint.dit.dropped_frames / config.temporal_compression)
        cells = course.preview.frames(clean[:, :, dropped:])
        frames, fps = cells.repeat(MAGNIFIED, axis=1).repeat(MAGNIFIED, axis=2), fps * clean.shape[2] / request.frames
    about = {"step": found.step, "steps": request.steps, "size": size}
    place = dataclasses.replace(output, path=draft_path(output.drafts.beside or output.path, found.step))
    work = finish.write(
        place, frames, dataclasses.replace(request, fps=fps), {**course.keeper.metadata, "draft": about}
    )
    path = yield from _drafting(work, found.step, DECODED)
    return Draft(found.step, request.steps, path, output.drafts.is_end(found.step), frames)


def _drafting(work: Generator[Event, None, Any], step: int, begin: float) -> Generator[Event, None, Any]:
    """The events of a decode, or of a write that begins with so much done, as those of a draft."""
    while True:
        try:
            event = next(work)
        except StopIteration as end:
            return end.value
        if isinstance(event, Tile):
            yield Drafting(step, DECODED * event.index / event.count)
        elif isinstance(event, Written):
            yield Drafting(step, begin + (1 - begin) * event.share)
