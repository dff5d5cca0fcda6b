"""``framewake info``: the settings inside a clip, and how far one is that was stopped."""

from __future__ import annotations

import glob
import json
import sys
from pathlib import Path
from typing import Any

from framewake.console.escape import inline
from framewake.media.metadata import describe, row
from framewake.media.video import read_metadata
from framewake.pipeline.drafts import MARK
from framewake.pipeline.jobs import request_from
from framewake.pipeline.latents import ENDING, load_latents
from framewake.pipeline.story import read_story, story_lines


def print_info(path: str, *, as_json: bool) -> None:
    """Print a clip's settings, or those of saved latents, as a list, or as JSON.

    Raises: InputError for a file without settings, or one that is missing or damaged.
    """
    metadata, lines = read_stopped(Path(path)) if path.endswith(ENDING) else (read_metadata(path), [])
    clip = Path(path.removesuffix(ENDING))
    drafts = sorted(file.name for file in clip.parent.glob(f"{glob.escape(clip.stem)}{MARK}*"))
    story = read_story(clip)
    if story is not None:
        metadata = {**metadata, "story": story}
        lines += [row(name, inline(text)) for name, text in story_lines(story)]
    lines += [row("drafts beside it", inline(", ".join(drafts)))] if drafts else []
    text = json.dumps(metadata, ensure_ascii=False, indent=2) if as_json else "\n".join([*describe(metadata), *lines])
    sys.stdout.write(text + "\n")


def read_stopped(path: Path) -> tuple[dict[str, Any], list[str]]:
    """What saved latents tell of their clip, and in lines how far it is, and where that was computed.

    Raises: InputError for a file that is damaged or something else.
    """
    saved = load_latents(path)
    told = {"step": saved.step, "steps": request_from(saved.metadata).get("steps")}
    if saved.lesser is not None:  # those of super-resolution are counted behind
        told |= {"step": told["steps"], "enlarging": saved.step - (told["steps"] or 0)}
    skipped = saved.cache.get("cache_skipped")
    told |= {} if skipped is None else {"skipped": len(skipped)}
    done = f"step {told['step']} of {told['steps']}" + ("" if skipped is None else f", {told['skipped']} skipped")
    done += "" if saved.lesser is None else f", and step {told['enlarging']} of super-resolution"
    origin = {name: value for name, value in saved.origin.items() if name != "versions"}
    where = ", ".join(f"{name} {value}" for name, value in origin.items())
    lines = [row("saved after", done), row("computed by", inline(where))]
    return {**saved.metadata, "saved": told | {"origin": dict(saved.origin)}}, lines
