"""A clip's story: what differs from run to run, and so cannot stand in the clip; JSON beside it."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

from framewake.errors import FramewakeError, InputError, said
from framewake.lasting import written_whole
from framewake.pipeline.events import STAGES, Draft, Event, Note, Result, Stage, StageFinished, StageStarted

ENDING, FORMAT = ".story.json", "framewake story 1"
_NEW: dict[str, Any] = {"format": FORMAT, "clip": None, "devices": [], "drafts": [], "pauses": 0, "seconds": {}}


def story_path(output: Path) -> Path:
    """Where the story of a clip lies: beside it, as "clip.mp4.story.json"."""
    output = output if output.name else output.resolve()
    return output.with_name(output.name + ENDING)


def read_story(output: Path) -> dict[str, Any] | None:
    """The story of the clip that is there, or, where none is, of one that was begun; None for that of another clip.

    Raises: InputError when it cannot be read.
    """
    story = _read(story_path(output))
    return story if story and story["clip"] == (digest_of(output) if output.exists() else None) else None


def _read(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        story = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({said(error)}): remove it.") from error
    if not isinstance(story, dict) or story.get("format") != FORMAT or set(story) != set(_NEW):
        raise InputError(f"{path} was written by another version or program: remove it.")
    return story


def digest_of(clip: Path) -> str:
    """What tells a clip, or a folder of pictures, from any other."""
    digest = hashlib.sha256()
    for file in sorted(clip.iterdir()) if clip.is_dir() else [clip]:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def telling(
    events: Generator[Event, None, None], output: Path, *, devices: int, is_resumed: bool
) -> Generator[Event, None, None]:
    """The same events, written down beside the clip when a stage ends, a draft is there, or the run does.

    Of a run that dies at once, the seconds of the stage at hand are lost. A story is worth no clip: one that cannot be
    written is told, and the run goes on.
    """
    story = (_begun(output) if is_resumed else None) or copy.deepcopy(_NEW)
    story["devices"].append(devices)
    seconds, begin = story["seconds"], 0.0
    stage: Stage | None = None
    told = _written(output, story)
    with contextlib.closing(events):
        try:
            if told is not None:
                yield Note(told)
            for event in events:
                match event:
                    case StageStarted():
                        stage, begin = event.stage, time.perf_counter()
                    case StageFinished():
                        seconds[event.stage] = seconds.get(event.stage, 0.0) + event.seconds
                        stage = None
                    case Draft():
                        story["drafts"] = sorted({*story["drafts"], event.step})
                        story["pauses"] += event.is_end
                    case Result():
                        story["clip"] = None if event.path is None else digest_of(event.path)
                if isinstance(event, StageFinished | Draft | Result):
                    _written(output, story)
                yield event
        finally:
            if stage is not None:
                seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - begin
                _written(output, story)


def _begun(output: Path) -> dict[str, Any] | None:
    """The story of a clip that is not made yet."""
    story = None
    with contextlib.suppress(InputError):  # damaged: the story begins here
        story = _read(story_path(output))
    return story if story and story["clip"] is None else None


def _written(output: Path, story: dict[str, Any]) -> str | None:
    """Write a story down; a sentence for a person where that failed."""
    text = json.dumps(story, indent=1)
    try:
        with written_whole(story_path(output), len(text)) as part:
            part.write_text(text, encoding="ascii")
    except FramewakeError as error:
        return f"the clip's story cannot be written ({str(error).rstrip('.')}); going on without."
    return None


def story_lines(story: dict[str, Any]) -> list[tuple[str, str]]:
    """What a story tells a person, as names and texts."""
    seconds = story["seconds"]
    lines = [
        ("runs", f"{len(story['devices'])}, on so many devices: {', '.join(map(str, story['devices']))}"),
        ("drafts taken", ", ".join(f"after step {step}" for step in story["drafts"])),
        ("pauses", str(story["pauses"] or "")),
        ("seconds", ", ".join(f"{stage} {seconds[stage]:.3g}" for stage in STAGES if stage in seconds)),
    ]
    return [(name, text) for name, text in lines if text]
