"""Every setting of a training run, declared once: the command line and the saved state derive from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from framewake.errors import InputError, nearest
from framewake.setting import SPELLINGS, Setting, check_setting
from framewake.shapes import PUBLISHED_RESOLUTIONS, check_frames
from framewake.weights.lora.keys import FORMATS

STORED = ("float16", "bfloat16", "float32")
MAX_SEED = 2**64 - 1
LEAST_FRAMES = 5  # the first latent frame is given, so that there must be a second one to learn from


def _setting(default: Any, setting: Setting) -> Any:
    return field(default=default, metadata={"setting": setting})


@dataclass(frozen=True)
class Training:
    """One LoRA to train. Those of ``FREE`` may change when a run goes on, the others are part of what it is.

    Source: specification, section 10.6; departures are in docs/decisions.md.
    """

    steps: int = _setting(
        1000, Setting("integer", "Updates of the weights.", "--steps", minimum=1, maximum=10_000_000, unset="1000")
    )
    rank: int = _setting(
        64,
        Setting("integer", "Rank of the factors; 8 to 32 suffice for most.", "--rank", 1, 1024, unset="64"),
    )
    alpha: float | None = _setting(
        None,
        Setting("number", "Alpha of the LoRA.", "--alpha", 1e-3, 1e4, is_optional=True, unset="the rank"),
    )
    targets: tuple[str, ...] = _setting(
        (),
        Setting(
            "texts",
            'Train these modules only; a pattern such as "single_blocks.*" or "*attn_qkv", may be repeated.',
            "--target",
            unset="every module of the published LoRAs",
        ),
    )
    learning_rate: float = _setting(
        1e-4, Setting("number", "Learning rate of AdamW.", "--lr", minimum=1e-9, maximum=1.0, unset="1e-4")
    )
    warmup: int = _setting(
        0,
        Setting(
            "integer",
            "Updates over which the rate grows from a hundredth of itself.",
            "--warmup",
            minimum=0,
            maximum=10_000_000,
            unset="0",
        ),
    )
    decays: bool = _setting(
        False, Setting("switch", "Let the rate fall to a tenth by the last update (cosine).", "--decay")
    )
    weight_decay: float = _setting(
        0.0, Setting("number", "Weight decay of AdamW.", "--weight-decay", minimum=0.0, maximum=10.0, unset="0")
    )
    batch: int = _setting(
        1,
        Setting(
            "integer", "Clips of one size that are computed together.", "--batch", minimum=1, maximum=1024, unset="1"
        ),
    )
    accumulation: int = _setting(
        1,
        Setting("integer", "Batches behind each update.", "--accumulate", minimum=1, maximum=4096, unset="1"),
    )
    frames: int | None = _setting(
        None,
        Setting(
            "integer",
            "Frames taken from the start of each clip, a multiple of 4 plus 1.",
            "--frames",
            minimum=1,
            maximum=1025,
            is_optional=True,
            unset="the checkpoint's own length",
        ),
    )
    resolution: str = _setting(
        "360p",
        Setting(
            "choice",
            "Resolution class; each clip's shape decides the exact size.",
            "--resolution",
            choices=tuple(PUBLISHED_RESOLUTIONS),
            unset="360p",
        ),
    )
    flow_shift: float = _setting(
        7.0,
        Setting("number", "Shift of the noise levels; larger looks at noisier clips.", "--flow-shift", 1e-3, 1000.0,
                unset="7"),
    )  # fmt: skip
    timesteps: str = _setting(
        "lognormal",
        Setting("choice", "How noise levels are drawn before the shift.", "--timesteps",
                choices=("lognormal", "uniform"), unset="lognormal"),
    )  # fmt: skip
    guidance: float | None = _setting(
        None,
        Setting(
            "number",
            "Embedded guidance scale that the transformer is told.",
            "--embedded-guidance",
            minimum=0.0,
            maximum=100.0,
            is_optional=True,
            unset="the checkpoint's own",
        ),
    )
    caption_drop: float = _setting(
        0.1,
        Setting("number", "Share of clips whose caption is left out.", "--drop-caption", 0.0, 1.0, unset="0.1"),
    )
    picture_drop: float = _setting(
        0.1,
        Setting("number", "Share of clips whose picture LLaVA sees black.", "--drop-picture", 0.0, 1.0, unset="0.1"),
    )
    seed: int = _setting(
        42, Setting("integer", "Number that fixes every random draw.", "--seed", 0, MAX_SEED, unset="42")
    )
    precision: str = _setting(
        "auto",
        Setting(
            "choice",
            "Type of the frozen weights and of the computation; factors stay float32.",
            "--precision",
            choices=("auto", "float32", "bfloat16"),  # small gradients would vanish in float16
            unset="auto",
            spellings=SPELLINGS,
        ),
    )
    format: str = _setting(
        "official", Setting("choice", "Format of the file.", "--format", choices=FORMATS, unset="official")
    )
    stored: str = _setting(
        "float16",
        Setting(
            "choice",
            "Type of the numbers in the file.",
            "--dtype",
            choices=STORED,
            unset="float16",
            spellings=SPELLINGS,
        ),
    )
    save_every: int = _setting(
        100,
        Setting("integer", "Updates between saved states.", "--save-every", minimum=1, maximum=10_000_000, unset="100"),
    )
    sample_every: int = _setting(
        0,
        Setting("integer", "Updates between sample clips; 0 makes none.", "--sample-every", 0, 10_000_000, unset="0"),
    )
    sample_image: str | None = _setting(
        None,
        Setting("path", "The picture of the sample clips.", "--sample-image", is_optional=True, unset="no picture"),
    )
    sample_prompt: str | None = _setting(
        None, Setting("text", "The prompt of the sample clips.", "--sample-prompt", is_optional=True, unset="none")
    )


# With these, a run may go on otherwise than it began: they do not change what its next update does.
FREE = ("steps", "save_every", "sample_every", "sample_image", "sample_prompt", "format", "stored")


def training_settings() -> dict[str, Setting]:
    """Every field of ``Training`` with its description, in order."""
    return {entry.name: entry.metadata["setting"] for entry in dataclasses.fields(Training)}


def training_from(values: Mapping[str, Any]) -> Training:
    """Checked settings from names and values.

    Raises: InputError for an unknown name, or a value that is none.
    """
    known = training_settings()
    for name in values:
        if name not in known:
            raise InputError(f"training setting {name!r} is unknown.{nearest(str(name), known)}")
    given: dict[str, Any] = {name: known[name].standard(_fixed(value)) for name, value in values.items()}
    made = Training(**given)
    for name, setting in known.items():
        value = getattr(made, name)
        if value is not None or not setting.is_optional:
            check_setting(setting.flag, value, setting)
    if made.frames is not None:
        check_frames(made.frames)
        if made.frames < LEAST_FRAMES:
            raise InputError(f"--frames is {made.frames}: the first frame is given, so at least {LEAST_FRAMES} count.")
    if made.sample_every and not made.sample_prompt:
        raise InputError("--sample-every needs --sample-prompt (and, unless for text-to-video, --sample-image).")
    if (made.sample_prompt or made.sample_image) and not made.sample_every:
        raise InputError("--sample-prompt and --sample-image need --sample-every N: after how many updates?")
    return made


def continued(stored: Training, given: Mapping[str, Any]) -> Training:
    """The settings of a run that goes on: its own, and those that may change.

    Raises: InputError for a given setting that differs from the run's and may not.
    """
    known = training_settings()
    for name, value in given.items():
        was = getattr(stored, name)
        if name not in FREE and known[name].standard(_fixed(value)) != was:
            raise InputError(
                f"{known[name].flag} is {value!r}, but the run began with {was!r}: leave it out, or train a new file."
            )
    if stored.decays and given.get("steps", stored.steps) != stored.steps:
        raise InputError(f"with --decay the rate depends on --steps, which is {stored.steps} in this run: leave it.")
    return training_from(dataclasses.asdict(stored) | dict(given))


def _fixed(value: Any) -> Any:
    """JSON and command lines have lists where a setting is a tuple."""
    return tuple(value) if isinstance(value, list) else value
