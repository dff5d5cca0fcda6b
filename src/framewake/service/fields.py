"""The fields of ``POST /v1/videos``, and what they mean as a ``Request``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from framewake.errors import FramewakeError, InputError, about, nearest
from framewake.request import Request, from_dict, settings
from framewake.service.dialects import PICTURE, translated
from framewake.setting import shown
from framewake.weights.checkpoint.settings import Settings

_LIMITS = settings()
MOST_FPS = 120.0
MAX_INTEGER = 2**63 - 1
_KINDS = ("list[LoraReference]", "float", "str")  # which of several kinds a value was tried as: no part of its name

# What a setting of a request is called in the API.
FIELD_OF = {
    "fps": "fps",
    "seed": "seed",
    "steps": "num_inference_steps",
    "embedded_guidance": "guidance_scale",
    "guidance_scale": "true_cfg_scale",
    "background": "background",
    "takes_first_frame": "first_frame",
    "crop": "crop",
    "negative_prompt": "negative_prompt",
    "flow_shift": "flow_shift",
    "frames": "num_frames",
    "resolution": "resolution",
    "is_stable": "stability",
    "precision": "precision",
    "vae_tiling": "vae_tiling",
    "super_resolution": "super_resolution",
    "cache": "cache",
}
# The same where a field is no plain setting.
PARAM_OF = {**FIELD_OF, "image": PICTURE, "loras": "lora"}


class ImageReference(BaseModel):
    """A picture by its address."""

    model_config = ConfigDict(extra="forbid")

    image_url: Annotated[str, Field(max_length=30_000_000, description="http(s) or data URL of a picture.")]


class LoraReference(BaseModel):
    """A LoRA file that the server offers."""

    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(max_length=200)]
    scale: Annotated[float, Field(ge=-10, le=10)] = 1.0


class VideoSettings(BaseModel):
    """What happens in the video and how it is made; what is left out is the checkpoint's own choice."""

    model_config = ConfigDict(extra="forbid")

    prompt: Annotated[str, Field(min_length=1, max_length=10_000, description=_LIMITS["prompt"].help)]
    model: Annotated[str | None, Field(max_length=200, description="Name of the served checkpoint.")] = None
    size: Annotated[
        str | None,
        Field(
            pattern=r"^[1-9][0-9]{1,4}x[1-9][0-9]{1,4}$",
            description="Width x height, such as 1280x720 (also as `width` and `height`): chooses the nearest "
            "resolution class. The picture's own shape decides the exact size.",
        ),
    ] = None
    resolution: Annotated[str | None, Field(max_length=20, description="The class itself, such as 720p.")] = None
    seconds: Annotated[
        float | str | None, Field(description="Length; the nearest possible number of frames is made.")
    ] = None
    num_frames: Annotated[
        int | None, Field(ge=1, le=1025, description="Length in frames instead: a multiple of 4 plus 1.")
    ] = None
    fps: Annotated[float | None, Field(ge=1, le=MOST_FPS, description=_LIMITS["fps"].help)] = None
    seed: Annotated[int | None, Field(ge=-1, le=MAX_INTEGER, description=_LIMITS["seed"].help + " -1: any.")] = None
    num_inference_steps: Annotated[int | None, Field(ge=1, le=1000, description=_LIMITS["steps"].help)] = None
    guidance_scale: Annotated[
        float | None, Field(ge=0, le=100, description=_LIMITS["embedded_guidance"].help + " 6 by default.")
    ] = None
    true_cfg_scale: Annotated[
        float | None, Field(ge=0, le=100, description=_LIMITS["guidance_scale"].help + " The model's own by default.")
    ] = None
    background: Annotated[str | None, Field(max_length=100, description=_LIMITS["background"].help)] = None
    first_frame: Annotated[
        bool | None,
        Field(description="Of a clip as input_reference, take the first frame and not the last."),
    ] = None
    crop: Annotated[str | None, Field(max_length=100, description=_LIMITS["crop"].help)] = None
    negative_prompt: Annotated[str | None, Field(max_length=10_000, description=_LIMITS["negative_prompt"].help)] = None
    flow_shift: Annotated[float | None, Field(ge=0.01, le=1000, description=_LIMITS["flow_shift"].help)] = None
    stability: Annotated[bool | None, Field(description=_LIMITS["is_stable"].help)] = None
    precision: Annotated[str | None, Field(max_length=20, description=_LIMITS["precision"].help)] = None
    vae_tiling: Annotated[bool | None, Field(description=_LIMITS["vae_tiling"].help)] = None
    super_resolution: Annotated[bool | None, Field(description=_LIMITS["super_resolution"].help)] = None
    cache: Annotated[str | None, Field(max_length=200, description=_LIMITS["cache"].help)] = None
    lora: Annotated[
        list[LoraReference] | None, Field(max_length=8, description="LoRA files that the server offers, by name.")
    ] = None
    draft: Annotated[
        int | None,
        Field(ge=1, le=999, description="Pause after this step with a draft: a clip of what is expected by then."),
    ] = None
    draft_size: Annotated[
        Literal["full", "small"] | None,
        Field(description="full decodes all of a draft; small shows colours and motion at once, without detail."),
    ] = None
    callback_url: Annotated[
        str | None,
        Field(max_length=2000, description="Gets a signed POST when the video has ended, or has a draft."),
    ] = None


class JsonVideo(VideoSettings):
    """The body as JSON."""

    input_reference: Annotated[
        ImageReference | str | None,
        Field(description="The picture that the video starts from: an http(s) or data URL."),
    ] = None


class FormVideo(VideoSettings):
    """The body as a form. ``lora`` is a JSON list in text."""

    input_reference: Annotated[
        Any, Field(json_schema_extra={"type": "string", "format": "binary"}, description="A picture file.")
    ] = None


Fields = TypeVar("Fields", bound=VideoSettings)


def fields_in(given: Mapping[str, Any], kind: type[Fields], *, is_strict: bool = False) -> Fields:
    """The fields of a body, whatever names its client has for them.

    Raises: InputError that is about the field in question.
    """
    found = translated(given, kind.model_fields)
    if not str(found.get("prompt", "")).strip():
        raise InputError("the prompt is empty: say in a sentence what happens in the video.", about="prompt")
    try:
        return kind.model_validate(found, strict=is_strict)
    except ValidationError as error:
        raise problem(error) from error


def problem(error: ValidationError) -> InputError:
    """The first thing that is wrong, in our words: what was received, and what is expected."""
    first = error.errors(include_url=False, include_context=False)[0]
    name = ".".join(str(part) for part in first["loc"] if part not in _KINDS)
    param = str(first["loc"][0]) if first["loc"] else None
    expected = first["msg"].replace("Input should be", "expected").removesuffix(".")
    match first["type"]:
        case "missing":
            text = f"{name} is missing."
        case "extra_forbidden":
            text = f"{name}: there is no such field."
        case "string_too_long":
            text = f"{name} is too long: {expected.removeprefix('String should have ')}."
        case "too_long":
            text = f"{name} holds too many: {expected.removeprefix('List should have ').partition(' after')[0]}."
        case _:
            text = f"{name or 'the body'} is {shown(first['input'])}: {expected}."
    return InputError(text, about=param)


@contextlib.contextmanager
def about_fields() -> Iterator[None]:
    """Errors about a setting of a request name the field that it came from: some names mean another thing there."""
    try:
        yield
    except FramewakeError as error:
        error.about = None if error.about is None else PARAM_OF.get(error.about, error.about)
        raise


def request_of(given: VideoSettings, checkpoint: Settings, *, picture: str | None) -> Request:
    """The fields as a request.

    Raises: InputError.
    """
    values: dict[str, Any] = {"prompt": given.prompt, "image": picture}
    asked = {name: getattr(given, field) for name, field in FIELD_OF.items()}
    values |= {name: value for name, value in asked.items() if value is not None}
    if given.seed == -1:
        del values["seed"]
    if given.size is not None:
        with about("size"):
            meant = resolution_of(given.size, checkpoint.resolutions)
        _agree(given.resolution, meant, f"resolution is {given.resolution!r} and size {given.size}")
        values["resolution"] = meant
    if given.seconds is not None:
        with about("seconds"):
            meant_frames = frames_of(given.seconds, given.fps or checkpoint.fps)
        said = f"num_frames is {given.num_frames} and seconds {given.seconds}"
        _agree(given.num_frames, meant_frames, said)
        values["frames"] = meant_frames
    return from_dict(values)


def fields_again(request: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a video that goes on from the one of a request: its settings, with the next seed."""
    kept = {field: request[name] for name, field in FIELD_OF.items() if request.get(name) is not None}
    for gone in ("background", "first_frame", "crop"):  # of the picture that the first one began with
        kept.pop(gone, None)
    loras = [text.removeprefix("loras/").rpartition(":") for text in request.get("loras", [])]
    return kept | {
        "seed": (request["seed"] + 1) % MAX_INTEGER,
        "lora": [{"name": name, "scale": float(scale)} for name, _, scale in loras] or None,
    }


def _agree(given: Any, meant: Any, said: str) -> None:
    """Whether two fields for one thing agree, when both are there."""
    if given is not None and given != meant:
        name, other = said.partition(" ")[0], said.partition(" and ")[2].partition(" ")[0]
        raise InputError(f"{said}, which means {meant}: send {name} or {other}, not both.", about=name)


def check_model(name: str | None, served: str) -> None:
    """Whether the model asked for is the served one; its owner may stand before it, as on a hub.

    Raises: InputError.
    """
    if name is not None and name.rpartition("/")[2].lower() != served.lower():
        text = f"model is {shown(name)}, but this server has {served!r}: leave it out." + nearest(name, [served])
        raise InputError(text, about="model")


def resolution_of(size: str, resolutions: Mapping[str, int]) -> str:
    """The class whose square has the nearest area.

    Raises: InputError for a size that is none.
    """
    found = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", size)
    if found is None:
        raise InputError(f"size is {size!r}: expected width x height, such as 1280x720.")
    side = (int(found[1]) * int(found[2])) ** 0.5
    return min(resolutions, key=lambda name: abs(resolutions[name] - side))


def frames_of(seconds: float | str, fps: float) -> int:
    """The number of frames nearest to a length that the model can make.

    Raises: InputError.
    """
    try:
        length = float(seconds)
    except ValueError as error:
        raise InputError(f"seconds is {seconds!r}: expected a number.") from error
    if not 0 < length <= 1025:
        raise InputError(f"seconds is {seconds!r}: expected a number above 0, for at most 1025 frames.")
    return max(1, round((length * fps - 1) / 4) * 4 + 1)
