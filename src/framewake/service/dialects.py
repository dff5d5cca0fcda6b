"""The fields of other servers' clients, translated into ours; what has no meaning here is refused by name.

A body may use the names of OpenAI's video endpoints, vLLM-Omni, SGLang, LiteLLM, diffusers and hosted services. Each
name below either means a field of ours, asks for nothing that is not done anyway, or is answered with what to do.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from starlette.datastructures import UploadFile

from framewake.errors import InputError, nearest
from framewake.service.body import json_value
from framewake.service.reference import picture_in
from framewake.setting import shown

PICTURE = "input_reference"
# Objects of further fields; in a form, as JSON.
ENVELOPES = ("extra_body", "extra_params", "extra_args")
# Other names of our fields.
SAME: Mapping[str, tuple[str, ...]] = {
    PICTURE: (
        *("image", "images", "image_url", "image_urls", "input_references", "input_image", "input_image_url"),
        *("image_reference", "reference_image", "reference_url", "reference_image_url", "init_image", "start_image"),
        *("first_frame", "first_frame_image", "first_frame_url", "first_frame_image_url", "start_image_url"),
        *("img_url", "image_base64", "image_b64", "ref_image"),
    ),
    "num_frames": ("frames", "n_frames", "video_length", "frame_count", "number_of_frames", "num_video_frames"),
    "num_inference_steps": ("steps", "num_steps", "infer_steps", "inference_steps", "sampling_steps", "sample_steps"),
    "seconds": ("duration", "duration_seconds", "n_seconds", "video_seconds"),
    "fps": ("frame_rate", "framerate", "frames_per_second"),
    "negative_prompt": ("neg_prompt", "n_prompt"),
    "true_cfg_scale": ("true_guidance_scale",),
    "guidance_scale": ("embedded_guidance", "embedded_guidance_scale", "embedded_cfg_scale"),
    "flow_shift": ("shift", "time_shift", "timestep_shift"),
    "lora": ("loras",),
    "callback_url": ("callback", "webhook_url", "webhook"),
}
_OURS_OF = {other: ours for ours, others in SAME.items() for other in others}
# Names without an effect on the video, whatever they say.
IDLE = ("user", "user_id", "safety_identifier", "generator_device", "metadata", "service_tier")
# Values that ask for what is done anyway.
_ONE, _OFF = frozenset({"1", "1.0"}), frozenset({"false", "0", "0.0", "off", "none", "no"})
ANYWAY: Mapping[str, tuple[frozenset[str], str]] = {
    **dict.fromkeys(
        ("n", "num_videos", "num_videos_per_prompt", "num_outputs_per_prompt", "number_of_videos", "batch_size"),
        (_ONE, "one request makes one video: send it again for another, with another seed."),
    ),
    **dict.fromkeys(
        ("response_format", "output_format"),
        (
            frozenset({"mp4", "video", "video/mp4"}),
            "the answer tells the video's state, and its content endpoint gives the mp4: leave it out.",
        ),
    ),
    "stream": (_OFF, "its events endpoint tells every change: leave it out."),
    **dict.fromkeys(
        ("sync", "sync_mode", "wait"),
        (_OFF, "a video is always made in the background: ask for it by its id until it is completed."),
    ),
    **dict.fromkeys(("enable_teacache", "use_teacache"), (_OFF, "ask for a step cache with cache, such as tea:0.1.")),
    **dict.fromkeys(
        ("generate_sound", "generate_audio", "with_audio", "enable_frame_interpolation", "prompt_enhance"),
        (_OFF, "there is nothing of the kind here: leave it out."),
    ),
    **dict.fromkeys(
        ("prompt_extend", "enhance_prompt", "enable_prompt_expansion", "prompt_upsampling", "rollout"),
        (_OFF, "there is nothing of the kind here: leave it out."),
    ),
}
_SHAPE = "the picture's own shape decides the video's: leave it out, and choose the size with resolution or size."
_SECOND = "this model has one transformer and no second stage: leave it out."
_GUIDANCE = "guidance_scale is the embedded guidance, true_cfg_scale the classic one: send the one that you mean."
_ONE_PICTURE = "a video starts from one picture and has no other references: leave it out."
HINTS: Mapping[str, str] = {
    **dict.fromkeys(("aspect_ratio", "ratio", "orientation"), _SHAPE),
    **dict.fromkeys(("guidance_scale_2", "boundary_ratio"), _SECOND),
    **dict.fromkeys(("cfg_scale", "cfg", "guidance"), _GUIDANCE),
    **dict.fromkeys(("last_frame", "last_frame_image", "end_image", "tail_image", "mask", "video"), _ONE_PICTURE),
    **dict.fromkeys(("video_reference", "control_reference", "audio_reference", "characters"), _ONE_PICTURE),
    **dict.fromkeys(("lora_path", "lora_name"), 'LoRA files are named so: lora=[{"name": "style", "scale": 0.8}].'),
    "output_path": "the server keeps the file, and the video's content endpoint gives it: leave it out.",
    "messages": "this endpoint takes prompt and input_reference.",
    "input": "this endpoint takes prompt and input_reference.",
}
_SIZE = re.compile(r"\s*([1-9]\d{1,4})\s*[xX*×]\s*([1-9]\d{1,4})\s*")
_CLASS = re.compile(r"\s*(\d{3,4})[pP]\s*")
# Taken out of a picture's keys, as forms spell them: input_reference[image_url], lora[0][name], extra_params[seed].
_PARTS = re.compile(r"\[([^\[\]]*)\]")
MOST_PARTS = 4


class Said(NamedTuple):
    """A value, and the name that it came under."""

    name: str
    value: Any


def unfolded(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The fields of a form, names with brackets put together; what is empty was not filled in.

    Raises: InputError for a field that was given twice.
    """
    found: dict[str, Any] = {}
    for key, value in pairs:
        name, bracket, _ = key.partition("[")
        parts = _PARTS.findall(key) if bracket else []
        if len(parts) > MOST_PARTS or (bracket and f"{name}[{']['.join(parts)}]" != key):
            raise unknown(key)
        if value == "":
            continue
        _put(found, [name, *parts], value)
    return found


def _put(place: Any, path: list[str], value: Any) -> None:
    """A value at its place: a name in an object, a number or nothing in a list."""
    step, *rest = path
    if isinstance(place, list):
        # lora[][name] and lora[][scale] are one object until a name comes again.
        is_same = not step and rest and place and isinstance(place[-1], dict) and rest[0] not in place[-1]
        key: Any = int(step) if step else len(place) - bool(is_same)
        if key >= len(place):
            key = len(place)
            place.append(None)
        held = place[key]
    else:
        key, held = step, place.get(step)
    if not rest:
        if held is not None:
            raise twice(str(path[0]))
        place[key] = value
        return
    kind: type = list if rest[0] == "" or re.fullmatch(r"\d{1,3}", rest[0]) else dict
    if held is None:
        held = place[key] = kind()
    if not isinstance(held, kind):
        raise twice(str(path[0]))
    _put(held, rest, value)


def translated(given: Mapping[str, Any], known: Iterable[str]) -> dict[str, Any]:
    """The body in our own names; ``known`` are those.

    Raises: InputError that is about the field in question.
    """
    ours = tuple(known)
    found: dict[str, Said] = {}
    sides: dict[str, Any] = {}
    for name, value in _opened(given):
        if value is None or (value == "" and name != "prompt"):
            continue
        if isinstance(value, UploadFile) and _OURS_OF.get(name, name) != PICTURE and _is_known(name, ours):
            raise InputError(f"the field {name[:40]!r} must be text, not a file.", about=name)
        if name in ("width", "height"):
            sides[name] = value
        elif name in ANYWAY:
            values, advice = ANYWAY[name]
            if str(value).strip().lower() not in values:
                raise InputError(f"{name} is {shown(value)}: {advice}", about=name)
        elif name not in IDLE:
            for field, each in _meanings(name, value, ours):
                _take(found, field, Said(name, each))
    if sides:
        _take(found, "size", Said("width and height", _sides(sides)))
    return {field: said.value for field, said in found.items()}


def _opened(given: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, value in given.items():
        if name not in ENVELOPES:
            yield name, value
            continue
        inner = _json(name, value) if isinstance(value, str) else value
        if inner is not None and not isinstance(inner, dict):
            raise InputError(
                f'{name} is {shown(value)}: expected an object of fields, such as {{"seed": 3}}.', about=name
            )
        for key, each in (inner or {}).items():
            if key in ENVELOPES:
                raise unknown(key)
            yield key, each


def _meanings(name: str, value: Any, ours: tuple[str, ...]) -> Iterable[tuple[str, Any]]:
    """Our field, or fields, behind a name."""
    field = name if name in ours else _OURS_OF.get(name)
    if field not in ours:
        raise unknown(name, ours)
    if field == PICTURE:
        yield field, picture_in(name, value)
    elif field in ("size", "resolution"):
        yield _size(name, value)
    elif field == "lora":
        yield field, _loras(name, value)
    elif field == "seed" and str(value).strip() == "-1":
        return  # any seed, as other servers say it
    else:
        yield field, value


def _take(found: dict[str, Said], field: str, said: Said) -> None:
    """Keep a field; one that was said twice must have been said alike."""
    before = found.setdefault(field, said)
    if before is said or str(before.value) == str(said.value):
        return
    is_long = field == PICTURE
    what = "two pictures" if is_long else f"{shown(before.value)} and {shown(said.value)}"
    raise InputError(f"{before.name} and {said.name} say different things ({what}): send one of them.", about=field)


def _size(name: str, value: Any) -> tuple[str, Any]:
    """A size in pixels or a class, under either name."""
    if not isinstance(value, str):
        raise InputError(f"{name} is {shown(value)}: expected text such as 1280x720.", about=name)
    pixels, named = _SIZE.fullmatch(value), _CLASS.fullmatch(value)
    if pixels is not None:
        return "size", f"{pixels[1]}x{pixels[2]}"
    if named is not None:
        return "resolution", f"{named[1]}p"
    if name == "resolution":
        return name, value  # the checkpoint knows its own classes
    raise InputError(f"{name} is {shown(value)}: expected width x height, such as 1280x720.", about=name)


def _sides(sides: Mapping[str, Any]) -> str:
    for name, other in (("width", "height"), ("height", "width")):
        if name not in sides:
            raise InputError(f"{other} was sent without {name}: send both, or size such as 1280x720.", about=name)
        if not re.fullmatch(r"[1-9]\d{1,4}", str(sides[name])):
            raise InputError(
                f"{name} is {shown(sides[name])}: expected a whole number of pixels from 10 to 99999.", about=name
            )
    return f"{sides['width']}x{sides['height']}"


def _loras(name: str, value: Any) -> Any:
    """LoRAs as a list, however few there are."""
    if isinstance(value, str):
        try:
            value = json_value(value.encode(errors="replace"))
        except InputError as error:
            raise InputError('lora must be JSON such as [{"name": "style", "scale": 0.8}].', about="lora") from error
    return [value] if isinstance(value, dict) else value


def _json(name: str, text: str) -> Any:
    try:
        return json_value(text.encode(errors="replace"))
    except InputError as error:
        raise InputError(f'{name} must be JSON such as {{"seed": 3}}: {error}', about=name) from error


def _is_known(name: str, ours: tuple[str, ...]) -> bool:
    return name in ours or name in _OURS_OF or name in ANYWAY or name in IDLE or name in ("width", "height")


def unknown(name: str, ours: tuple[str, ...] = ()) -> InputError:
    """The answer to a name that means nothing here."""
    short = name if len(name) <= 40 else name[:37] + "..."
    advice = HINTS.get(name)
    if advice is None:
        close = nearest(name[:100], [*ours, *_OURS_OF, "width", "height"])
        advice = f"there is no such field.{close}" + (f" Known are: {', '.join(ours)}." if ours else "")
    return InputError(f"{short}: {advice}", about=short)


def twice(name: str) -> InputError:
    """The answer to a field of a form that comes again."""
    return InputError(f"the field {name[:40]!r} was given twice.", about=name[:40])
