"""What a command line asks for: requests, each with the place for its clip."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.app.options import given_settings, place_words, whole
from framewake.app.outputs import free_path
from framewake.errors import InputError
from framewake.media.video import MAX_CRF
from framewake.pipeline.drafts import DRAFT_SIZES, Drafts
from framewake.pipeline.jobs import Job, Output, request_from
from framewake.request import draw_seed, from_dict
from framewake.setting import Setting, check_setting

CRF = 18
# Options that saved latents do not hold: the command that goes on names them again.
KEPT = ("checkpoint", "engine", "devices", "memory", "part", "crf", "no_metadata", "story", "json", "verbose", "quiet")
DRAFTS = ("draft", "drafts", "draft_size")


def job_of(command: str, given: Mapping[str, Any], like: Mapping[str, Any]) -> Job:
    """The clip of a command line, with its seed and its output; ``command`` is what was called.

    Raises: InputError for anything that is missing or does not go together.
    """
    crf, settings = asked_crf(given, like), settings_of(command, given, like)
    if settings.get("seed") is None:
        settings["seed"] = draw_seed()
    request = from_dict(settings)
    path = free_path(request, Path()) if given["output"] is None else Path(given["output"])
    return Job(request, output_of(given, path, crf))


def output_of(given: Mapping[str, Any], path: Path, crf: int) -> Output:
    """A clip at this path, with what the options beside its settings say."""
    options = tuple(place_words(given, (*KEPT, *DRAFTS)))
    return Output(path, crf, has_metadata=not given["no_metadata"], options=options, drafts=drafts_of(given))


def drafts_of(given: Mapping[str, Any]) -> Drafts:
    """The drafts that the options ask for.

    Raises: InputError.
    """
    size, steps = given["draft_size"], given["drafts"]
    if size is not None:
        check_setting("draft_size", size, Setting("choice", "", "--draft-size", choices=DRAFT_SIZES))
        if given["draft"] is None and steps is None:
            raise InputError("--draft-size says what a draft is like: add --draft or --drafts.")
    if given["batch"] is not None and given["draft"] is not None:
        raise InputError("a batch is made without a stop: take --drafts, which writes drafts on the way.")
    numbers = () if steps is None else tuple(whole(text.strip()) for text in steps.split(","))
    for number in numbers:
        check_setting("drafts", number, Setting("integer", "", "--drafts", 1))
    return Drafts(numbers, given["draft"], size or "full")


def settings_of(command: str, given: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that a command line gives to one clip, or to all of a batch.

    Raises: InputError when that is not enough for a clip.
    """
    common = ({} if given["like"] is None else request_from(like)) | given_settings(given)
    if given["batch"] is None and "prompt" not in common:
        what = "neither picture nor prompt was" if "image" not in common else "no prompt was"
        usage = f'framewake {command} IMAGE "PROMPT"  (from text alone: --prompt "PROMPT"; or --batch, --like; see '
        raise InputError(f"{what} given: {usage}framewake {command} --help).")
    return common


def asked_crf(given: Mapping[str, Any], made: Mapping[str, Any]) -> int:
    """The mp4's quality: what the command line says, else that of a clip made before.

    Raises: InputError when it is none.
    """
    crf = made.get("crf", CRF) if given["crf"] is None else given["crf"]
    check_setting("crf", crf, Setting("integer", "", "--crf", 0, MAX_CRF))
    return crf
