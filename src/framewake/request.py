"""Request: every setting of a generation, declared once.

Command line, Python, page and the metadata in a video all derive from the fields below: each carries
a ``Setting`` with its help text, its range and its flag (``settings()`` lists them).
"""

from __future__ import annotations

import dataclasses
import functools
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framewake.cache import OFF, CacheChoice, parse_cache
from framewake.errors import InputError, about, nearest
from framewake.lora import LoraUse, parse_lora
from framewake.setting import SPELLINGS, Setting, check_setting, choice, number, plain, shown, whole
from framewake.shapes import KNOWN_RESOLUTIONS, PUBLISHED_RESOLUTIONS, base_px, check_frames, parse_crop

MAX_SEED = 2**64 - 1
MAX_DRAWN_SEED = 1_000_000  # the original draws from 0 to this, both included

CENTRE = "0.5,0.5"  # where the original crops
STABLE_SHIFT = 7.0
DYNAMIC_SHIFT = 17.0
NO_SCALE = 1.0  # of classic guidance: there is none
# The two ways to animate that the model's authors recommend; each with the checkpoint's own shift for it.
PRESETS: Mapping[str, Mapping[str, Any]] = {
    "stable": {"is_stable": True, "flow_shift": None},
    "dynamic": {"is_stable": False, "flow_shift": None},
}


@dataclass(frozen=True)
class Request:
    """One video to make; ``validate`` checks it and ``resolve`` fills in what is None.

    Source: specification, section 1.1.
    """

    prompt: str = field(
        metadata={"setting": Setting("text", "What happens in the video, in a sentence or two.", "--prompt")}
    )
    image: str | None = plain(None, "path", "--image", "The picture that the video starts from.", unset="no picture")
    background: str = plain("white", "text", "--background", "Colour behind a transparent picture: white, #ff8800, ...")
    takes_first_frame: bool = plain(
        False, "switch", "--first-frame/--last-frame", "Which frame to use when a clip is given as the picture."
    )
    crop: str = plain(
        CENTRE,
        "text",
        "--crop",
        "Which part of the picture becomes the video: x,y from 0,0 (left, top) to 1,1; 0.5,0.5 is the centre. fit "
        "keeps all of it: its blurred edges fill the rest of the frame, and the model animates these too.",
    )
    negative_prompt: str | None = plain(
        None,
        "text",
        "--negative-prompt",
        "What to avoid; only used with a guidance scale above 1.",
        unset="the model's own list of flaws",
    )
    resolution: str | None = choice(
        None,
        "--resolution",
        "Resolution class; the picture's shape decides the exact size.",
        KNOWN_RESOLUTIONS,
        unset="the checkpoint's own",
    )
    frames: int | None = whole(
        None, "--frames", "Frames of the video, a multiple of 4 plus 1.", (1, 1025), unset="the checkpoint's own length"
    )
    steps: int | None = whole(
        None,
        "--steps",
        "Denoising steps: more take longer and show finer detail.",
        (1, 1000),
        unset="the checkpoint's own number",
    )
    seed: int | None = whole(
        None,
        "--seed",
        "Number that fixes the noise: the same seed gives the same video.",
        (0, MAX_SEED),
        unset="random, and reported",
    )
    is_stable: bool = plain(True, "switch", "--stable/--dynamic", "Keep the video calm and close to the picture.")
    flow_shift: float | None = number(
        None,
        "--flow-shift",
        "Schedule shift: higher values spend more steps on the motion.",
        (0.01, 1000.0),
        unset=f"the checkpoint's own, such as {STABLE_SHIFT:g}; {DYNAMIC_SHIFT:g} when dynamic",
    )
    embedded_guidance: float = number(6.0, "--guidance", "Guidance that the model was distilled with.", (0.0, 100.0))
    guidance_scale: float | None = number(
        None,
        "--guidance-scale",
        "Classic guidance against the negative prompt; above 1 every step takes twice as long, and at 1 there is none.",
        (0.0, 100.0),
        unset="the checkpoint's own",
    )
    fps: float | None = number(
        None,
        "--fps",
        "Frames per second of the file, possibly fractional.",
        (1.0, 120.0),
        unset="the checkpoint's own rate",
    )
    precision: str = choice(
        "auto",
        "--precision",
        "Number type of the transformer; auto chooses what suits the device.",
        ("auto", "float32", "bfloat16", "float16"),
        spellings=SPELLINGS,
    )
    vae_tiling: bool = plain(
        True,
        "switch",
        "--vae-tiling/--no-vae-tiling",
        "Decode in overlapping tiles: less memory, and what the original does.",
    )
    super_resolution: bool = plain(
        False,
        "switch",
        "--super-resolution/--no-super-resolution",
        "Make the clip larger in a second run of few steps: 480p to 720p, 720p to 1080p. HunyuanVideo-1.5 only.",
    )
    rng: str = choice(
        "philox",
        "--rng",
        "Source of the noise: philox gives the same video everywhere, torch repeats PyTorch's generator.",
        ("philox", "torch"),
    )
    loras: tuple[str, ...] = plain(
        (),
        "texts",
        "--lora",
        "LoRA file with its weight, FILE:0.8, or weights by step, FILE:0-20=1.0,20-50=0.4; may be repeated.",
    )
    ignores_lora_alpha: bool = plain(
        False, "switch", "--lora-ignore-alpha", "Apply LoRA factors without alpha / rank, as the original does."
    )
    allows_partial_loras: bool = plain(
        False, "switch", "--lora-partial", "Apply what fits of a LoRA file instead of refusing it."
    )
    solver: str = choice("euler", "--solver", "How latents follow the velocity from step to step.", ("euler",))
    cache: str = plain(
        OFF,
        "text",
        "--cache",
        "Skip steps that change little: fast, faster, or a rule with its number such as easy:0.05, tea:0.1, "
        "first-block:0.1, taylor1:2 or fixed:2. Off gives the exact clip.",
    )

    def __post_init__(self) -> None:
        if isinstance(self.image, os.PathLike):
            object.__setattr__(self, "image", os.fspath(self.image))
        if isinstance(self.loras, list):
            object.__setattr__(self, "loras", tuple(self.loras))
        for name, setting in settings().items():
            value = getattr(self, name)
            if setting.spellings:
                object.__setattr__(self, name, setting.standard(value))
            # 7 and 7.0 must be the same request, also in JSON. Beyond 2**53 the check of the range speaks.
            if setting.kind == "number" and type(value) is int and abs(value) < 2**53:
                object.__setattr__(self, name, float(value))

    @functools.cached_property
    def uses(self) -> tuple[LoraUse, ...]:
        """The LoRAs, each with its weight over the steps.

        Raises: InputError.
        """
        return tuple(map(parse_lora, self.loras))

    @functools.cached_property
    def step_cache(self) -> CacheChoice | None:
        """The step cache, None when it is off.

        Raises: InputError.
        """
        return parse_cache(self.cache)

    @functools.cached_property
    def crop_place(self) -> tuple[float, float] | None:
        """Where the crop lies, across and down; None where the whole picture is kept.

        Raises: InputError.
        """
        return parse_crop(self.crop)

    def to_dict(self) -> dict[str, Any]:
        """Every setting as a value that JSON can hold; ``from_dict`` undoes it exactly."""
        values = dataclasses.asdict(self) | {"loras": list(self.loras)}
        # Left out where they say nothing: the file of a clip from a plain picture is the same as before there were any.
        quiet = ("background", "takes_first_frame", "crop", "solver", "super_resolution")
        silent = [name for name in quiet if values[name] == getattr(Request, name)]
        return {name: value for name, value in values.items() if name not in silent}


@dataclass(frozen=True)
class Settled(Request):
    """A request with nothing left open: what may still be None or "auto" has a meaning of its own."""

    resolution: str = field(kw_only=True)
    frames: int = field(kw_only=True)
    steps: int = field(kw_only=True)
    seed: int = field(kw_only=True)
    flow_shift: float = field(kw_only=True)
    guidance_scale: float = field(kw_only=True)
    fps: float = field(kw_only=True)


@dataclass(frozen=True)
class Defaults:
    """What a checkpoint does where a request says nothing; ``flow_shift`` is that of stable requests.

    The first of ``resolutions`` is the usual one.
    """

    frames: int
    steps: int
    fps: float
    resolutions: Mapping[str, int]
    flow_shift: float = STABLE_SHIFT
    dynamic_shift: float = DYNAMIC_SHIFT
    guidance_scale: float = NO_SCALE


PUBLISHED_DEFAULTS = Defaults(frames=129, steps=50, fps=24.0, resolutions=PUBLISHED_RESOLUTIONS)


def settings() -> dict[str, Setting]:
    """Every field of ``Request`` that can be chosen with its description, in order; of one choice there is none."""
    return {name: setting for name, setting in _declared().items() if len(setting.choices or "any") > 1}


def _declared() -> dict[str, Setting]:
    return {entry.name: entry.metadata["setting"] for entry in dataclasses.fields(Request)}


def preset(name: str) -> Mapping[str, Any]:
    """The settings that a preset stands for.

    Raises: InputError for an unknown name.
    """
    if name not in PRESETS:
        raise InputError(f"preset {name!r} is unknown: choose {' or '.join(PRESETS)}." + nearest(str(name), PRESETS))
    return PRESETS[name]


def validate(request: Request, resolutions: Mapping[str, int] | None = None) -> Request:
    """The request itself when every setting is usable; files are looked at elsewhere.

    Without ``resolutions`` a class of any family's checkpoints is.

    Raises: InputError that names the setting, what it was and what it may be.
    """
    for name, setting in _declared().items():
        value = getattr(request, name)
        if value is None and setting.is_optional:
            continue
        with about(name):
            if name == "resolution" and resolutions is not None:
                base_px(value, resolutions)
            else:
                check_setting(name, value, setting)
    with about("prompt"):
        if not request.prompt.strip():
            raise InputError("the prompt is empty: say in a sentence what happens in the video.")
    with about("image"):
        if request.image is not None and not request.image:
            raise InputError("the path of the picture is empty: name a PNG, JPEG or WebP file.")
    with about("crop"):
        _ = request.crop_place
    with about("frames"):
        if request.frames is not None:
            check_frames(request.frames)
    with about("loras"):
        _ = request.uses
    with about("cache"):
        _ = request.step_cache
    return request


def resolve(request: Request, defaults: Defaults = PUBLISHED_DEFAULTS) -> Settled:
    """The validated request with every None that has a default filled in, a random seed included."""
    validate(request, defaults.resolutions)
    own: dict[str, Any] = {
        "resolution": next(iter(defaults.resolutions)),
        "frames": defaults.frames,
        "steps": defaults.steps,
        "seed": draw_seed(),
        "flow_shift": defaults.flow_shift if request.is_stable else defaults.dynamic_shift,
        "guidance_scale": defaults.guidance_scale,
        "fps": defaults.fps,
    }
    return settled(dataclasses.replace(request, **{name: own[name] for name in open_settings(request)}))


def open_settings(request: Request) -> list[str]:
    """The settings that a request leaves to the checkpoint, or to chance."""
    return [
        entry.name for entry in dataclasses.fields(Settled) if entry.kw_only and getattr(request, entry.name) is None
    ]


def settled(request: Request) -> Settled:
    """A request that leaves nothing open."""
    assert not open_settings(request)
    return Settled(**{entry.name: getattr(request, entry.name) for entry in dataclasses.fields(Request)})


def draw_seed() -> int:
    """A seed for a request that names none, drawn as the original does (specification, section 1.4)."""
    return random.SystemRandom().randint(0, MAX_DRAWN_SEED)


def from_dict(values: Mapping[str, Any]) -> Request:
    """A validated request from a dictionary such as JSON gives; what is not named keeps its default.

    Raises: InputError for an unknown name, a wrong type or a value out of range.
    """
    if not isinstance(values, Mapping):
        raise InputError(f"a request is {shown(values)}: expected names and values in {{ }}.")
    known = settings()
    for name in values:
        if name not in known:
            raise InputError(f"setting {name!r} is unknown.{nearest(str(name), known)} Known are: {', '.join(known)}.")
    if "prompt" not in values:
        raise InputError('a request needs a prompt: add "prompt": "what happens in the video".')
    return validate(Request(**values))
