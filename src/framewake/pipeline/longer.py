"""Clips longer than one run: segments, each made from the last frame of the one before, and joined at the end.

While they are made, a folder beside the clip's place holds a record of what is wanted, and every segment that is done,
without loss. A segment is an ordinary clip with its own saved latents: whatever ends the work, nothing of it is lost.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from framewake.config import DiTConfig
from framewake.errors import InputError, said
from framewake.lasting import read_record, removed_at_end, temporary_path, write_record, written_whole
from framewake.media.anchor import colour_offset, led_back, shifted
from framewake.media.clips import Clip, fitted, look_at, read_clip
from framewake.media.output import check_output
from framewake.media.video import read_metadata
from framewake.pipeline import finish
from framewake.pipeline.events import Event, Result, StageFinished, StageStarted
from framewake.pipeline.jobs import Job, Output, Plan, defaults_of, plan_job, plan_size
from framewake.pipeline.latents import latents_path, load_latents
from framewake.pipeline.run import Pipeline
from framewake.request import Request, from_dict, resolve
from framewake.shapes import PixelShape
from framewake.weights.checkpoint.load import Checkpoint

ENDING, RECORD, FORMAT = ".segments", "record", "framewake segments 1"


@dataclasses.dataclass(frozen=True)
class Longer:
    """What a longer clip is made of: a request for each segment, behind the clip that goes before, if one does.

    ``is_anchored``: what stands still keeps the colours of the first frame. ``digest`` is that of the clip before.
    """

    requests: tuple[Request, ...]
    output: Output
    before: str | None = None
    digest: str | None = None
    is_anchored: bool = True


def segments_path(output: Path) -> Path:
    """Where the segments of a clip lie while it is being made."""
    output = output if output.name else output.resolve()
    return output.with_name(output.name + ENDING)


def segment_path(output: Path, number: int) -> Path:
    """Where a segment lies as a folder of pictures; its saved latents lie beside it."""
    return segments_path(output) / str(number)


def digest_of(path: str) -> str:
    """What tells a file from any other.

    Raises: InputError when it cannot be read.
    """
    try:
        return hashlib.sha256(Path(path).read_bytes()).hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({said(error)}).") from error


def plan_longer(longer: Longer, checkpoint: Checkpoint) -> list[Plan]:
    """The plan of each segment, with the first picture or the clip before opened; the others have no picture yet.

    Raises: InputError, CheckpointError.
    """
    first = plan_job(Job(longer.requests[0], keeps_size=longer.before is not None), checkpoint)
    size = first.made[1:]
    plans = [first] + [plan_size(each, checkpoint, size, keeps_size=True) for each in longer.requests[1:]]
    for number, plan in enumerate(plans, 1):
        if plan.made[1:] != size:
            raise InputError(f"segment {number} would be of another size: give all the same resolution.")
    frames = count_frames(plans, checkpoint)
    check_output(longer.output.path, shape=PixelShape(frames, *size), fps=plans[0].request.fps)
    return plans


def count_frames(plans: Sequence[Plan], checkpoint: Checkpoint) -> int:
    """How many frames segments have together, none of them twice."""
    known = finish.known_frames(checkpoint.dit)
    return known + sum(finish.clip_frames(plan.shape.frames, checkpoint.dit) - known for plan in plans)


def begin(longer: Longer, plans: list[Plan]) -> Longer:
    """Write down what is wanted, with every choice made; segments of an earlier clip of that name go.

    Raises: UnwritableError, DiskFullError.
    """
    folder = segments_path(longer.output.path)
    _discard(folder)
    settled = tuple(from_dict(plan.request.to_dict()) for plan in plans)
    longer = dataclasses.replace(longer, requests=settled)
    with written_whole(folder) as part:
        part.mkdir()
        values: dict[str, Any] = {"before": longer.before, "digest": longer.digest, "is_anchored": longer.is_anchored}
        values |= {"crf": longer.output.crf, "has_metadata": longer.output.has_metadata}
        requests = [each.to_dict() for each in settled]
        write_record(part / RECORD, {"format": FORMAT, "requests": requests, **values})
    return longer


def begun(output: Path, options: tuple[str, ...]) -> Longer:
    """What was written down for a clip that was stopped.

    Raises: InputError when it is damaged, of another version, or the clip before is another one by now.
    """
    file = segments_path(output) / RECORD
    record = read_record(file)
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise InputError(f"{file} was written by another version: begin the clip anew, without --resume.")
    place = Output(output, record["crf"], has_metadata=record["has_metadata"], options=options)
    requests = tuple(map(from_dict, record["requests"]))
    longer = Longer(requests, place, record["before"], record["digest"], record["is_anchored"])
    if longer.before is not None and digest_of(longer.before) != longer.digest:
        raise InputError(f"{longer.before} is not what was to be extended: put back what it was, or begin anew.")
    return longer


def make_longer(pipeline: Pipeline, longer: Longer) -> Generator[Event, None, None]:
    """Make the segments that are missing, and the clip of all of them, which comes as one ``Result``.

    Drafts are those of a segment, after its own steps, and lie beside the clip.

    Raises: FramewakeError of any kind.
    """
    timings: dict[str, float] = {}
    for number in range(1, len(longer.requests) + 1):
        if not segment_path(longer.output.path, number).is_dir():
            yield from _segment(pipeline, longer, number, timings)
            if not segment_path(longer.output.path, number).is_dir():
                return  # it has ended with a draft
    yield StageStarted("write")
    since = time.perf_counter()
    dit = pipeline.checkpoint.dit
    frames, metadata = joined(longer, dit), about_segments(longer, dit)
    first = resolve(longer.requests[0], defaults_of(pipeline.checkpoint))
    path = yield from finish.write(longer.output, frames, first, metadata)
    seconds = time.perf_counter() - since
    yield StageFinished("write", seconds)
    _discard(segments_path(longer.output.path))
    yield Result(frames, path, first.seed, {**timings, "write": timings.get("write", 0.0) + seconds}, metadata)


def _discard(folder: Path) -> None:
    """Remove segments; who is killed over it leaves all of them, or a temporary folder."""
    if folder.is_dir():
        with removed_at_end(temporary_path(folder)) as gone:
            os.replace(folder, gone)


def _segment(
    pipeline: Pipeline, longer: Longer, number: int, timings: dict[str, float]
) -> Generator[Event, None, None]:
    """One segment, on from where it was stopped."""
    request, place = longer.requests[number - 1], segment_path(longer.output.path, number)
    goes_on = number > 1 or longer.before is not None
    if goes_on:
        request = dataclasses.replace(request, image=str(_start(longer, number)), takes_first_frame=False)
    every, options = longer.output.save_every, longer.output.options
    drafts = dataclasses.replace(longer.output.drafts, beside=longer.output.path)
    output, file = Output(place, save_every=every, options=options, drafts=drafts), latents_path(place)
    plan = pipeline.plan(Job(request, output, keeps_size=goes_on))
    events = (
        pipeline.resume(load_latents(file), output, request=request, plan=plan)
        if file.is_file()
        else pipeline.run_all([plan])
    )
    for event in events:
        if isinstance(event, Result):
            timings.update({stage: timings.get(stage, 0.0) + seconds for stage, seconds in event.timings.items()})
            file.unlink(missing_ok=True)
        else:
            yield event


def _start(longer: Longer, number: int) -> Path:
    """The picture that a segment starts from: the last frame before it, without loss."""
    path = segments_path(longer.output.path) / f"start-{number}.png"
    if not path.is_file():
        frames = _frames(longer, number - 1)
        picture = shifted(frames[-1], _offset(longer, number - 1, frames))
        with written_whole(path, picture.nbytes) as part:
            Image.fromarray(picture).save(part, format="PNG")
    return path


def _frames(longer: Longer, number: int) -> np.ndarray:
    """The frames of a segment as they were decoded; number 0 is the clip before. Shapes: uint8 (F, H, W, 3)."""
    path = Path(longer.before or "") if number == 0 else segment_path(longer.output.path, number)
    return read_clip(path, look_at(path).frames).frames


def _offset(longer: Longer, number: int, frames: np.ndarray) -> np.ndarray:
    """How far the colours of a segment have wandered by its end. The clip before stays as it is."""
    if number == 0 or not longer.is_anchored:
        return np.zeros(3)
    first = _fitted(_frames(longer, 1 if longer.before is None else 0)[:1], frames.shape)[0]
    return colour_offset(first, frames[-1])


def joined(longer: Longer, config: DiTConfig) -> np.ndarray:
    """All frames, none of them twice: what a segment began from is what the one before ends with.

    The colours of a segment are led back on its way, so that it ends with what the next one began from.
    Shapes: uint8 (F, H, W, 3), in the size of the segments.
    """
    found, known = [], finish.known_frames(config)
    for number in range(1, len(longer.requests) + 1):
        frames = _frames(longer, number)
        frames = led_back(frames, _offset(longer, number, frames))
        found.append(frames if number == 1 and longer.before is None else frames[known:])
    if longer.before is not None:
        found.insert(0, _fitted(_frames(longer, 0), found[0].shape))
    return np.concatenate(found)


def _fitted(frames: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Frames cropped and scaled as a picture is, where they are of another size. Shapes: uint8 (F, H, W, 3)."""
    return frames if frames.shape[1:] == shape[1:] else fitted(Clip(Path(), frames), *shape[1:3])


def about_segments(longer: Longer, config: DiTConfig) -> dict[str, Any]:
    """What a longer clip says about its making: what its first segment says, and the settings of every one."""
    metadata = read_metadata(segment_path(longer.output.path, 1))
    segments = []
    for number, request in enumerate(longer.requests, 1):
        own = read_metadata(segment_path(longer.output.path, number))
        values = {name: value for name, value in request.to_dict().items() if name != "image"}
        steps = {"steps": own["steps"]} if "steps" in own else {}
        values["precision"] = own["request"]["precision"]
        frames = finish.clip_frames(values["frames"], config)
        segments.append({"frames": frames, **steps, "request": values})
    metadata.pop("steps", None)
    told: dict[str, Any] = {"segments": segments, "anchor": longer.is_anchored, "crf": longer.output.crf}
    if longer.before is not None:
        told["before"] = {"clip": longer.before, "sha256": longer.digest, "made": _made(longer.before)}
    return {**metadata, "request": {**metadata["request"], "image": longer.requests[0].image}, **told}


def _made(clip: str) -> Mapping[str, Any] | None:
    try:
        return read_metadata(clip)
    except InputError:
        return None
