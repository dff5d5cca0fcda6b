"""The fields of ``POST /v1/videos``, and what they mean as a ``Request``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from framewake.errors import InputError, nearest
from framewake.request import Request, from_dict, settings
from framewake.weights.settings import Settings

_LIMITS = settings()
MOST_FPS = 120.0
MAX_INTEGER = 2**63 - 1

# What a setting of a request is called in the API.
FIELD_OF = {
    "fps": "fps",
    "seed": "seed",
    "steps": "num_inference_steps",
    "embedded_guidance": "guidance_scale",
    "guidance_scale": "true_cfg_scale",
    "negative_prompt": "negative_prompt",
    "flow_shift": "flow_shift",
    "frames": "num_frames",
    "resolution": "resolution",
    "is_stable": "stability",
    "precision": "precision",
    "vae_tiling": "vae_tiling",
    "cache": "cache",
}


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
            pattern=r"^[0-9]{2,5}x[0-9]{2,5}$",
            description="Width x height, such as 1280x720: chooses the nearest resolution class. The picture's own "
            "shape decides the exact size.",
        ),
    ] = None
    resolution: Annotated[str | None, Field(max_length=20, description="720p, 540p or 360p; wins over size.")] = None
    seconds: Annotated[
        float | str | None, Field(description="Length; the nearest possible number of frames is made.")
    ] = None
    num_frames: Annotated[
        int | None, Field(ge=1, le=1025, description="A multiple of 4 plus 1; wins over seconds.")
    ] = None
    fps: Annotated[float | None, Field(ge=1, le=MOST_FPS, description=_LIMITS["fps"].help)] = None
    seed: Annotated[int | None, Field(ge=0, le=MAX_INTEGER, description=_LIMITS["seed"].help)] = None
    num_inference_steps: Annotated[int | None, Field(ge=1, le=1000, description=_LIMITS["steps"].help)] = None
    guidance_scale: Annotated[
        float | None, Field(ge=0, le=100, description=_LIMITS["embedded_guidance"].help + " 6 by default.")
    ] = None
    true_cfg_scale: Annotated[
        float | None, Field(ge=0, le=100, description=_LIMITS["guidance_scale"].help + " 1 by default.")
    ] = None
    negative_prompt: Annotated[str | None, Field(max_length=10_000, description=_LIMITS["negative_prompt"].help)] = None
    flow_shift: Annotated[float | None, Field(ge=0.01, le=1000, description=_LIMITS["flow_shift"].help)] = None
    stability: Annotated[bool | None, Field(description=_LIMITS["is_stable"].help)] = None
    precision: Annotated[str | None, Field(max_length=20, description=_LIMITS["precision"].help)] = None
    vae_tiling: Annotated[bool | None, Field(description=_LIMITS["vae_tiling"].help)] = None
    cache: Annotated[str | None, Field(max_length=200, description=_LIMITS["cache"].help)] = None
    lora: Annotated[
        list[LoraReference] | None, Field(max_length=8, description="LoRA files that the server offers, by name.")
    ] = None
    callback_url: Annotated[
        str | None, Field(max_length=2000, description="Gets a signed POST when the video has ended.")
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


def request_of(given: VideoSettings, checkpoint: Settings, *, picture: str | None) -> Request:
    """The fields as a request.

    Raises: InputError.
    """
    values: dict[str, Any] = {"prompt": given.prompt, "image": picture}
    asked = {name: getattr(given, field) for name, field in FIELD_OF.items()}
    values |= {name: value for name, value in asked.items() if value is not None}
    if given.resolution is None and given.size is not None:
        values["resolution"] = resolution_of(given.size, checkpoint.resolutions)
    if given.num_frames is None and given.seconds is not None:
        values["frames"] = frames_of(given.seconds, given.fps or checkpoint.fps)
    return from_dict(values)


def check_model(name: str | None, served: str) -> None:
    """Whether the model asked for is the served one.

    Raises: InputError.
    """
    if name is not None and name != served:
        raise InputError(f"model is {name!r}, but this server has {served!r}: leave it out." + nearest(name, [served]))


def resolution_of(size: str, resolutions: Mapping[str, int]) -> str:
    """The class whose square has the nearest area.

    Raises: InputError for a size that is none.
    """
    found = re.fullmatch(r"(\d{2,5})x(\d{2,5})", size)
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
        raise InputError(f"seconds is {seconds!r}: expected a number above 0 and below 1025 / fps.")
    return max(1, round((length * fps - 1) / 4) * 4 + 1)
