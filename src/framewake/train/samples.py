"""The clips that a training run makes on the way, to look at: of one prompt, or of a file with many."""

from __future__ import annotations

import re
from pathlib import Path

from framewake.errors import InputError
from framewake.pipeline.jobs import Job, Output, Plan, plan_job
from framewake.request import Request
from framewake.train.settings import Training
from framewake.weights.checkpoint.load import Checkpoint

# What may stand behind a prompt, as other trainers have it: the setting that it names, and its type.
WORDS = {"i": ("image", str), "d": ("seed", int), "f": ("frames", int), "s": ("steps", int)}
EXPECTED = "expected a prompt, and behind it --i PICTURE, --d SEED, --f FRAMES or --s STEPS"


def sample_plans(settings: Training, target: Path, checkpoint: Checkpoint) -> list[Plan]:
    """The clips as they are without the LoRA, which is still to be trained; none where none are asked for.

    Raises: InputError.
    """
    asked = settings.sample_prompt, settings.sample_image
    shared = {"resolution": settings.resolution, "frames": settings.frames, "precision": settings.precision}
    found: list[dict] = [{"prompt": asked[0], "image": asked[1]}] if asked[0] else []
    if settings.sample_prompts is not None:
        found += [{"image": asked[1], **words} for words in read_prompts(Path(settings.sample_prompts))]
    requests = [Request(**{"seed": settings.seed, **shared, **words}) for words in found]
    return [plan_job(Job(request, sample_output(target, 0)), checkpoint) for request in requests]


def read_prompts(path: Path) -> list[dict]:
    """A prompt a line with what stands behind it, as settings; empty lines and those that begin with # are left out.

    Raises: InputError for a file without prompts, and words that are unknown.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}): name a file with a prompt a line.") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        prompt, *words = re.split(r"\s--(?=[a-z])", f" {line.strip()}")
        settings: dict = {"prompt": prompt.strip()}
        for word in words:
            name, _, value = word.strip().partition(" ")
            setting, kind = WORDS.get(name, ("", str))
            if not setting or not value.strip() or (kind is int and not value.strip().isdecimal()):
                raise InputError(f"{path}, line {number}: --{word.strip()} is unknown: {EXPECTED}.")
            settings[setting] = kind(value.strip())
        if not settings["prompt"]:
            raise InputError(f"{path}, line {number} has no prompt: {EXPECTED}.")
        found.append(settings)
    if not found:
        raise InputError(f"{path} holds no prompt: {EXPECTED}, a line each.")
    return found


def sample_output(target: Path, step: int, *, number: int | None = None) -> Output:
    """Where the sample clip of an update goes, and of a prompt where there are several."""
    prompt = "" if number is None else f"-{number:02d}"
    return Output(target.with_name(f"{target.stem}-{step:06d}{prompt}.mp4"), save_every=0)
