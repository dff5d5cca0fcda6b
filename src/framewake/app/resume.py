"""``framewake animate --resume`` and ``--from-latents``: continuing what an earlier run saved."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.app.asked import asked_crf, output_of
from framewake.app.joined import leading
from framewake.app.options import given_settings
from framewake.app.screen import how_to_go_on, reporter, show, tell_draft, with_story
from framewake.errors import InputError
from framewake.lasting import clear_abandoned
from framewake.pipeline.checkpoint import find_checkpoint
from framewake.pipeline.drafts import MARK
from framewake.pipeline.forecast import parse_memory
from framewake.pipeline.jobs import Job, Output, request_from
from framewake.pipeline.latents import ENDING, OLD_ENDING, SavedLatents, latents_path, load_latents, old_latents_path
from framewake.request import from_dict
from framewake.setting import shown
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import open_checkpoint


def go_on(given: Mapping[str, Any]) -> bool:
    """Make the clip of saved latents; False when there are none, but enough was given to begin anew.

    Raises: InputError when what was given contradicts what was saved.
    """
    given = with_named_clip(given)
    if given["from_latents"] is not None:
        file = Path(given["from_latents"])
        refuse_settings(given)
    else:
        if given["like"] is not None:
            raise InputError("--resume goes on with what was begun: leave out --like.")
        found = saved_file(given)
        if found is None:
            return False
        file = found
    saved = load_latents(file)
    check_next_draft(given, saved)
    settings = request_from(saved.metadata)
    changed = given_settings(given)
    if given["resume"]:
        check_agreement(settings, changed, file)
        changed = {}
    request = from_dict(settings | changed)
    saved.metadata["request"] = request.to_dict()
    output = place_of(given, saved, file)
    checkpoint = open_checkpoint(find_checkpoint(given["checkpoint"] or "demo"), parse_files(given["part"] or []))
    clear_abandoned(output.path.parent)
    advice, screen = how_to_go_on([Job(request, output)]), reporter(given, 1)
    with leading(checkpoint, given["engine"], memory=parse_memory(given["memory"])) as pipeline:
        events = with_story(given, pipeline.resume(saved, output), output, devices=pipeline.parts.devices)
        show(screen, [], events, advice, is_busy=pipeline.parts.lead.waits)
    tell_draft(screen, given, output)
    if file == latents_path(output.path) and output.drafts.stop is None:
        file.unlink(missing_ok=True)
    return True


def with_named_clip(given: Mapping[str, Any]) -> Mapping[str, Any]:
    """``--resume FILE`` without a prompt names a clip by itself, by a draft of it or by its saved latents."""
    named = given["image"]
    if not given["resume"] or named is None or given["prompt"] is not None or given["output"] is not None:
        return given
    return {**given, "image": None, "output": str(clip_of(Path(named)))}


def clip_of(file: Path) -> Path:
    """The clip that a file belongs to: its draft, its saved latents, or the clip itself."""
    if file.name.endswith(ENDING):
        return file.with_name(file.name.removesuffix(ENDING))
    found = re.fullmatch(rf"(.+){re.escape(MARK)}\d{{3,}}(\.\w+)", file.name)
    if found is None:
        return file
    folder = file.with_name(found[1])  # of pictures, whose drafts are a WebP
    return folder if latents_path(folder).is_file() else file.with_name(found[1] + found[2])


def check_next_draft(given: Mapping[str, Any], saved: SavedLatents) -> None:
    """Whether the step of a draft is still to come.

    Raises: InputError.
    """
    if given["draft"] is not None and given["draft"] <= saved.step:
        raise InputError(
            f"a draft after step {given['draft']} is impossible: {saved.step} steps of this clip are done. Name a "
            "later step with --draft, or leave it out."
        )


def refuse_settings(given: Mapping[str, Any]) -> None:
    """``--from-latents`` brings its own settings."""
    other = [name for name in ("batch", "like", "image", "prompt", "preset") if given[name] is not None]
    if other or set(given_settings(given)) - {"precision"}:
        raise InputError(
            "--from-latents takes its settings from the file: give only -o, --checkpoint, --engine, --crf, --precision."
        )


def saved_file(given: Mapping[str, Any]) -> Path | None:
    """The latents that belong to the output, or the only ones in this folder.

    Raises: InputError when it is not clear which, or there are none and nothing else to do.
    """
    if given["output"] is not None:
        output = Path(given["output"])
        file = latents_path(output)
        for place in (file, old_latents_path(output)):
            if place.is_file():
                return place
        if given_settings(given):
            return None
        if output.exists():
            raise InputError(f"{output} is finished: nothing is left to go on with. Without --resume it is made anew.")
        raise InputError(f"{file}: there is nothing to go on from. Leave out --resume and give picture and prompt.")
    files = sorted(path for ending in (ENDING, OLD_ENDING) for path in Path().glob(f"*{ending}"))
    if len(files) == 1:
        return files[0]
    if not files:
        if given_settings(given):
            return None
        raise InputError("there is no stopped clip in this folder: name it with -o, such as --resume -o clip.mp4.")
    names = ", ".join(file.name.removesuffix(ENDING).removesuffix(OLD_ENDING) for file in files[:8])
    raise InputError(f"{len(files)} stopped clips are in this folder: name one with -o ({names}).")


def check_agreement(settings: Mapping[str, Any], changed: Mapping[str, Any], file: Path) -> None:
    """A clip goes on with the settings that it was begun with.

    Raises: InputError that names the first difference.
    """
    for name, value in changed.items():
        if value not in (None, settings.get(name)) and (name, value) != ("precision", "auto"):
            raise InputError(
                f"{name} is {shown(value)}, but {file} was begun with {shown(settings.get(name))}: leave the setting "
                "out, or start anew without --resume."
            )


def place_of(given: Mapping[str, Any], saved: SavedLatents, file: Path) -> Output:
    """Where the clip goes: where it was meant to, or where the command line says.

    Raises: InputError when neither tells.
    """
    default = file.with_name(file.name.removesuffix(ENDING))
    if given["output"] is None and default == file:
        raise InputError(f"{file} does not tell where its clip belongs: name the output with -o.")
    path = default if given["output"] is None else Path(given["output"])
    return output_of(given, path, asked_crf(given, saved.metadata))
