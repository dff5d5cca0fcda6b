"""The original's command line, ``sample_image2video.py``, translated into jobs.

Source: specification, section 1; what is different is told to the user in notes.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from framewake.app.devices import Devices, own_group, variables
from framewake.app.original_flags import FLAGS, OTHERS, parser
from framewake.app.reporting import reporting
from framewake.app.start import start
from framewake.console.ending import run_program
from framewake.errors import CheckpointError, InputError
from framewake.pipeline.checkpoint import check_whole, find_checkpoint
from framewake.pipeline.jobs import Job, Output, Plan, placed, plan_job
from framewake.request import Request, draw_seed, settings, validate
from framewake.setting import check_setting
from framewake.weights.checkpoint.layouts import Files, transformer_file
from framewake.weights.checkpoint.load import Checkpoint, open_checkpoint

CRF = 23  # the original leaves it to x264, and this is x264's default
DEFAULTS = {flag.key: flag.default for flag in FLAGS}
NAME_BYTES = 255


class Translation(NamedTuple):
    """What a command line of the original asks for: a clip, once under each seed's name."""

    request: Request
    folder: Path
    names: dict[int, str]
    notes: list[str]
    checkpoint: str
    condition: str | None


def translate(given: Mapping[str, Any]) -> Translation:
    """A request from the flags that were given, and the names of its clips.

    Raises: InputError for what cannot be done here.
    """
    refuse(given)
    notes = notes_on(given)
    flags = {**DEFAULTS, **given}
    image = image_path(given)
    folder = f"{flags['save_path']}_{flags['save_path_suffix']}" if flags["save_path_suffix"] else flags["save_path"]
    first = draw_seed() if flags["seed"] is None else flags["seed"]
    moment = time.strftime("%Y-%m-%d-%H:%M:%S")
    request = validate(
        Request(
            prompt=flags["prompt"] or "",
            image=image,
            negative_prompt=flags["neg_prompt"],
            # Not given: the checkpoint's own, which for the published one are the original's defaults.
            resolution=given.get("i2v_resolution"),
            frames=given.get("video_length"),
            steps=given.get("infer_steps"),
            seed=first,
            is_stable=flags["i2v_stability"],
            flow_shift=given.get("flow_shift"),
            embedded_guidance=flags["embedded_cfg_scale"] or 6.0,
            guidance_scale=given.get("cfg_scale"),
            precision=given.get("precision", "auto"),
            loras=(f"{flags['lora_path']}:{flags['lora_scale']}",) if flags["use_lora"] else (),
        )
    )
    seeds = range(first, first + flags["num_videos"])
    check_setting("seed", seeds[-1], settings()["seed"])
    names = {seed: file_name(request.prompt, seed, moment) for seed in seeds}
    base = given.get("model_base") or os.environ.get("MODEL_BASE") or DEFAULTS["model_base"]
    return Translation(request, Path(folder), names, notes, base, given.get("i2v_condition_type"))


def refuse(given: Mapping[str, Any]) -> None:
    """Stop at what the original can do and this program cannot (yet), or what neither can."""
    if given.get("use_lora") and not given.get("lora_path"):
        raise InputError("--use-lora needs --lora-path FILE.")
    for name in ("ulysses_degree", "ring_degree"):
        if given.get(name, 1) < 1:
            raise InputError(f"--{name.replace('_', '-')} {given[name]}: expected 1 or more.")
    for name, only in (("denoise_type", "flow"), ("flow_solver", "euler")):
        if given.get(name, only) != only:
            raise InputError(f"--{name.replace('_', '-')} {given[name]}: only {only} exists.")
    if given.get("num_videos", 1) < 1:
        raise InputError(f"--num-videos {given['num_videos']}: expected 1 or more.")
    if not (given.get("prompt") or "").strip():
        raise InputError('no prompt was given: add --prompt "what happens in the video".')


def notes_on(given: Mapping[str, Any]) -> list[str]:
    """One warning with all flags that change nothing, and a note for each one whose absence the original punishes."""
    ignored = [f"--{flag.name}" for flag in (*FLAGS, *OTHERS) if not flag.is_used and flag.key in given]
    if given.get("model") == "HYVideo-S/2":
        ignored.insert(0, "--model HYVideo-S/2")
    if not given.get("use_lora"):
        ignored += [f"--{name.replace('_', '-')}" for name in ("lora_path", "lora_scale") if name in given]
    notes = [f"flags that have no meaning here are ignored: {', '.join(ignored)}."] if ignored else []
    if device_count(given) > 1:
        notes.append(f"{device_count(given)} devices share tokens and heads as it suits them; no size is rounded.")
    if not given.get("flow_reverse"):
        notes.append("--flow-reverse is missing, which gives noise in the original; here it is always on.")
    if not given.get("embedded_cfg_scale"):
        notes.append("--embedded-cfg-scale is missing, without which the original cannot run; 6.0 is used.")
    if not given.get("i2v_mode") and "i2v_image_path" in given:
        notes.append("--i2v-mode is missing but a picture was named; it is used.")
    if "dit_weight" in given and image_path(given) is not None:
        notes.append("--dit-weight is for text alone, as in the original; with a picture, --i2v-dit-weight counts.")
    return notes


def device_count(given: Mapping[str, Any]) -> int:
    """How many devices make a clip together: the product of both degrees."""
    return int(given.get("ulysses_degree", 1) * given.get("ring_degree", 1))


def image_path(given: Mapping[str, Any]) -> str | None:
    """The picture, None for text-to-video.

    Raises: InputError when image mode has no picture: the original's default does not exist anywhere.
    """
    path = given.get("i2v_image_path")
    if path is None and given.get("i2v_mode"):
        default = DEFAULTS["i2v_image_path"]
        if not Path(default).is_file():
            raise InputError("no picture was given: add --i2v-image-path FILE.")
        return default
    return path


def file_name(prompt: str, seed: int, moment: str) -> str:
    """The original's name for a clip, cut where a file system would refuse it (specification, section 1.3)."""
    start, end = f"{moment}_seed{seed}_", ".mp4"
    words = prompt.strip()[:100].replace("/", "")
    room = NAME_BYTES - len(os.fsencode(start + end))
    return start + words.encode()[:room].decode(errors="ignore") + end


def model_place(asked: Translation) -> Path:
    """The checkpoint of --model-base; without a picture its text-to-video model, when it has one."""
    if asked.checkpoint == DEFAULTS["model_base"] and not Path(asked.checkpoint).exists():
        raise CheckpointError(
            f"there is no folder {asked.checkpoint} here, where the original looks for its weights: add --model-base "
            "FOLDER (or set MODEL_BASE), or fetch them with `framewake checkpoints download ckpts --name tencent`."
        )
    base = find_checkpoint(asked.checkpoint)
    text_model = base / "hunyuan-video-t2v-720p"
    return text_model if asked.request.image is None and text_model.is_dir() else base


def files_of(given: Mapping[str, Any]) -> Files:
    """The transformer that was named; the original's default is found below --model-base, wherever that is.

    Raises: InputError for an empty name.
    """
    key = "dit_weight" if "dit_weight" in given and image_path(given) is None else "i2v_dit_weight"
    name = given.get(key, DEFAULTS[key])
    if not name:  # as a path it would mean this folder
        raise InputError(f"--{key.replace('_', '-')} is empty: name a file, or leave the flag out.")
    return Files() if name == DEFAULTS[key] else Files(dit=transformer_file(Path(name).expanduser()))


def run(given: Mapping[str, Any]) -> int:
    """Make what the flags ask for, here, by processes that are started, or as one of them; the exit code.

    Raises: FramewakeError of any kind.
    """
    refuse(given)
    from framewake.app.joined import follow

    devices, engine = Devices(device_count(given)), os.environ.get("FRAMEWAKE_ENGINE", "auto")
    group = own_group(devices, option="--ulysses-degree times --ring-degree is")
    if group is None and devices.size > 1:
        return start([sys.executable, *sys.orig_argv[1:]], variables(devices, engine), devices.size)
    asked = translate(given)
    place, files = model_place(asked), files_of(given)
    checkpoint = open_checkpoint(place, files)
    if group is not None and not group.leads:
        follow(group, checkpoint, engine)
    else:
        lead(asked, checkpoint, engine, words_of(place, files, devices))
    return 0


def words_of(place: Path, files: Files, devices: Devices) -> tuple[str, ...]:
    """The options with which a clip of this program goes on."""
    part = () if "dit" not in files else ("--part", f"dit={files['dit']}")
    many = () if devices.size == 1 else ("--devices", str(devices.size))
    return ("--checkpoint", str(place), *part, *many)


def lead(asked: Translation, checkpoint: Checkpoint, engine: str, words: tuple[str, ...]) -> None:
    """Make the clips, alone or as the first process of a group.

    Raises: FramewakeError of any kind.
    """
    from framewake.app.joined import leading
    from framewake.app.screen import screen_of, show

    if asked.condition not in (None, checkpoint.dit.condition):
        raise InputError(
            f"--i2v-condition-type {asked.condition}: the checkpoint's transformer is of the type "
            f"{checkpoint.dit.condition}. Leave the flag out."
        )
    try:
        asked.folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--save-path {asked.folder}: the folder cannot be made ({error.strerror}).") from error
    check_whole(checkpoint)
    outputs = {seed: Output(asked.folder / name, CRF, options=words) for seed, name in asked.names.items()}
    plan = plan_job(Job(fitted(asked.request, checkpoint)), checkpoint)
    plans = [placed(plan, output, seed=seed) for seed, output in outputs.items()]
    with leading(checkpoint, engine) as pipeline:
        show(
            screen_of(len(plans)),
            asked.notes,
            pipeline.run_all(plans),
            lambda done: advice(plans, done),
            has_more=len(plans) > 1,
            is_busy=pipeline.parts.lead.waits,
        )


def fitted(request: Request, checkpoint: Checkpoint) -> Request:
    """The request with the original's defaults where they are its model's: HunyuanVideo-1.5 has a shift of its own, and
    no --i2v-stability that could be left out."""
    if not checkpoint.dit.mixes_picture:
        return dataclasses.replace(request, is_stable=True)
    return (
        request if request.flow_shift is not None else dataclasses.replace(request, flow_shift=DEFAULTS["flow_shift"])
    )


def advice(plans: Sequence[Plan], done: int) -> str:
    """How to go on after so many clips: with the one that was being made, then with the rest."""
    from framewake.app.screen import how_to_go_on
    from framewake.pipeline.latents import latents_path

    made = f"{done} of {len(plans)} clips are made. " if len(plans) > 1 else ""
    output = plans[min(done, len(plans) - 1)].output
    first = done + (output is not None and latents_path(output.path).exists())
    rest = plans[first:] if len(plans) > 1 else []
    told = "" if rest and first == done else how_to_go_on(plans)(done)
    if rest:
        told += f" Add --seed {rest[0].request.seed} --num-videos {len(rest)} to make the other {len(rest)}."
    return made + told.strip()


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the original's command line and exit; errors are one line on stderr."""
    run_program("sample_image2video.py", lambda: reporting(lambda: run(vars(parser().parse_args(arguments)))))
