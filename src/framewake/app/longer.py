"""``framewake extend``, and ``framewake animate --then``: clips of several segments."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.app.asked import KEPT, job_of, output_of
from framewake.app.joined import leading
from framewake.app.options import given_settings, place_words
from framewake.app.render import Reporter, duration
from framewake.app.resume import clip_of
from framewake.app.screen import reporter, resume_command, show, with_story
from framewake.errors import InputError
from framewake.lasting import clear_abandoned
from framewake.media.clips import look_at
from framewake.media.video import read_metadata
from framewake.pipeline.checkpoint import open_whole
from framewake.pipeline.forecast import parse_memory
from framewake.pipeline.jobs import Plan
from framewake.pipeline.longer import (
    ENDING,
    Longer,
    begin,
    begun,
    count_frames,
    digest_of,
    make_longer,
    plan_longer,
    segments_path,
)
from framewake.request import MAX_SEED
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import Checkpoint


def is_longer(given: Mapping[str, Any]) -> bool:
    """Whether a command line is about a clip of several segments, or goes on with one."""
    if given["then"] or given.get("extends") is not None:
        return True
    if given["resume"] and given["batch"] is None:
        return _stopped(given) is not None
    return given["like"] is not None and not given["batch"] and "segments" in _made(given["like"])


def lead_longer(given: Mapping[str, Any]) -> None:
    """Make a longer clip, or what is missing of one, alone or as the first process of a group.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C.
    """
    others = [name for name in ("batch", "from_latents", "draft", "drafts", "draft_size") if given[name] is not None]
    if others:
        raise InputError(f"--{others[0].replace('_', '-')} is for a clip of one segment: leave it out.")
    checkpoint = open_whole(given["checkpoint"] or "demo", parse_files(given["part"] or []))
    screen, notes = reporter(given, 1), list[str]()
    if given["resume"]:
        output = _stopped(given)
        if output is None:
            raise InputError("there is nothing to go on from: leave out --resume.")
        if given["then"] or set(given_settings({**given, "image": None})):
            raise InputError("--resume goes on with what was begun: leave out prompts and settings.")
        longer = begun(output, tuple(place_words(given, KEPT)))
    else:
        longer = wanted(given, checkpoint, notes)
        plans = plan_longer(longer, checkpoint)
        tell_segments(screen, plans, count_frames(plans, checkpoint))
        longer = begin(longer, plans)
    place = longer.output
    clear_abandoned(place.path.parent)
    with leading(checkpoint, given["engine"], memory=parse_memory(given["memory"])) as pipeline:
        show(
            screen,
            notes,
            with_story(given, make_longer(pipeline, longer), place, devices=pipeline.parts.devices),
            lambda _done: f"Nothing is lost: go on with `{resume_command(place)}`.",
            is_busy=pipeline.parts.lead.waits,
        )


def wanted(given: Mapping[str, Any], checkpoint: Checkpoint, notes: list[str]) -> Longer:
    """The longer clip that the options ask for; ``notes`` gets what a person should know.

    Raises: InputError.
    """
    before = given.get("extends")
    like: Mapping[str, Any] = {} if given["like"] is None else read_metadata(given["like"])
    segments = like.get("segments", []) if isinstance(like.get("segments"), list) else []
    if before is None and isinstance(like.get("before"), Mapping):
        before = str(like["before"]["clip"])
        if digest_of(before) != like["before"].get("sha256"):
            raise InputError(f"{before} is not the clip that {given['like']} goes on from: put it back.")
    elif before is not None:
        given, like = _continuing(given, before)
    name = like.get("checkpoint", checkpoint.settings.name)
    if name != checkpoint.settings.name:
        notes.append(f"the clip was made with {name!r}, and {checkpoint.settings.name!r} makes what is new.")
    job = job_of("animate", given, like)
    assert job.output is not None and job.request.seed is not None
    first = job.request if before is None else dataclasses.replace(job.request, image=before, takes_first_frame=False)
    texts = given["then"] or [each["request"]["prompt"] for each in segments[1:]]
    seeds = [(first.seed or 0) + number for number in range(1, len(texts) + 1)]
    later = [
        dataclasses.replace(first, prompt=text, seed=seed % MAX_SEED) for text, seed in zip(texts, seeds, strict=True)
    ]
    is_anchored = not given["no_anchor"] and like.get("anchor", True) is True
    digest = None if before is None else digest_of(before)
    return Longer((first, *later), output_of(given, job.output.path, job.output.crf), before, digest, is_anchored)


def _continuing(given: Mapping[str, Any], clip: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The options with the settings of the clip that goes on, as far as they are in it; its speed in any case."""
    like = _made(clip)
    changed: dict[str, Any] = {"image": clip, "fps": look_at(Path(clip)).fps if given["fps"] is None else given["fps"]}
    if not like:
        return {**given, **changed}, {}
    segments = like.get("segments")
    last = segments[-1]["request"] if isinstance(segments, list) and segments else like["request"]
    if given["seed"] is None and isinstance(last.get("seed"), int):
        changed["seed"] = (last["seed"] + 1) % MAX_SEED
    kept = {**{name: like[name] for name in ("checkpoint", "crf") if name in like}, "request": last}
    return {**given, **changed, "like": clip}, kept


def _made(clip: str) -> Mapping[str, Any]:
    """What a clip says of its making; nothing where it was made elsewhere."""
    try:
        return read_metadata(clip)
    except InputError:
        return {}


def _stopped(given: Mapping[str, Any]) -> Path | None:
    """The place of the longer clip that was stopped and is to go on."""
    named = given["output"] or (given["image"] if given["prompt"] is None else None)
    if named is not None:
        output = clip_of(Path(str(named).removesuffix(ENDING)))
        return output if segments_path(output).is_dir() else None
    folders = sorted(Path().glob(f"*{ENDING}"))
    return Path(folders[0].stem) if len(folders) == 1 else None


def tell_segments(screen: Reporter, plans: list[Plan], frames: int) -> None:
    """What will be made."""
    size, seconds = plans[0].made, frames / plans[0].request.fps
    many = "1 segment" if len(plans) == 1 else f"{len(plans)} segments"
    screen.tell(f"{many}, {frames} frames of {size.width}x{size.height}, {duration(seconds)} to see")
