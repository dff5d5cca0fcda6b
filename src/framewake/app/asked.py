"""What a command line asks for: requests, each with the place for its clip."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.app.options import given_settings, place_words
from framewake.app.outputs import free_path
from framewake.batch import read_batch
from framewake.errors import InputError
from framewake.media.video import MAX_CRF
from framewake.pipeline.jobs import Job, Output, request_from
from framewake.request import Request, draw_seed, from_dict
from framewake.setting import Setting, check_setting

CRF = 18
# Options that saved latents do not hold: the command that goes on names them again.
KEPT = ("checkpoint", "engine", "memory", "part", "crf", "no_metadata", "json", "quiet")


def jobs_of(command: str, given: Mapping[str, Any], like: Mapping[str, Any]) -> list[Job]:
    """The jobs of a command line, each with its seed and its output; ``command`` is what was called.

    Raises: InputError for anything that is missing or does not go together.
    """
    crf, folder = asked_crf(given, like), Path()
    if given["batch"] is not None and given["output"] is not None:
        folder = Path(given["output"])
    jobs: list[Job] = []
    for asked in requests_of(command, given, like):
        request = dataclasses.replace(asked, seed=draw_seed() if asked.seed is None else asked.seed)
        taken = [job.output.path for job in jobs if job.output is not None]
        is_named = given["batch"] is None and given["output"] is not None
        path = Path(given["output"]) if is_named else free_path(request, folder, taken=taken)
        jobs.append(Job(request, output_of(given, path, crf)))
    return jobs


def output_of(given: Mapping[str, Any], path: Path, crf: int) -> Output:
    """A clip at this path, with what the options beside its settings say."""
    return Output(path, crf, has_metadata=not given["no_metadata"], options=tuple(place_words(given, KEPT)))


def requests_of(command: str, given: Mapping[str, Any], like: Mapping[str, Any]) -> list[Request]:
    """What a command line asks for, as it asks.

    Raises: InputError for anything that is missing or does not go together.
    """
    common = ({} if given["like"] is None else request_from(like)) | given_settings(given)
    if given["batch"] is not None:
        return read_batch(given["batch"], common=common)
    if "prompt" not in common:
        what = "neither picture nor prompt was" if "image" not in common else "no prompt was"
        usage = f'framewake {command} IMAGE "PROMPT"  (or --batch, --like; see framewake {command} --help).'
        raise InputError(f"{what} given: {usage}")
    return [from_dict(common)]


def asked_crf(given: Mapping[str, Any], made: Mapping[str, Any]) -> int:
    """The mp4's quality: what the command line says, else that of a clip made before.

    Raises: InputError when it is none.
    """
    crf = made.get("crf", CRF) if given["crf"] is None else given["crf"]
    check_setting("crf", crf, Setting("integer", "", "--crf", 0, MAX_CRF))
    return crf
