"""Every setting of a training run, declared once: the command line and the saved state derive from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from framewake.errors import InputError, nearest
from framewake.setting import SPELLINGS, Setting, check_setting, choice, number, plain, whole
from framewake.shapes import KNOWN_RESOLUTIONS, check_frames
from framewake.weights.lora.keys import FORMATS

STORED = ("float16", "bfloat16", "float32")
MAX_SEED = 2**64 - 1


@dataclass(frozen=True)
class Training:
    """One LoRA to train. Those of ``FREE`` may change when a run goes on, the others are part of what it is.

    Source: specification, section 10.6; departures are in docs/decisions.md.
    """

    steps: int = whole(1000, "--steps", "Updates of the weights.", (1, 10_000_000))
    rank: int = whole(64, "--rank", "Rank of the factors; 8 to 32 suffice for most.", (1, 1024))
    alpha: float | None = number(None, "--alpha", "Alpha of the LoRA.", (1e-3, 1e4), unset="the rank")
    targets: tuple[str, ...] = plain(
        (),
        "texts",
        "--target",
        'Train these modules only; a pattern such as "single_blocks.*" or "*attn_qkv", may be repeated.',
        unset="every module of the published LoRAs",
    )
    learning_rate: float = number(1e-4, "--lr", "Learning rate of AdamW.", (1e-9, 1.0), unset="1e-4")
    warmup: int = whole(0, "--warmup", "Updates over which the rate grows from a hundredth of itself.", (0, 10_000_000))
    decays: bool = plain(False, "switch", "--decay", "Let the rate fall to a tenth by the last update (cosine).")
    weight_decay: float = number(0.0, "--weight-decay", "Weight decay of AdamW.", (0.0, 10.0))
    batch: int = whole(1, "--batch", "Clips of one size that are computed together.", (1, 1024))
    accumulation: int = whole(1, "--accumulate", "Batches behind each update.", (1, 4096))
    frames: int | None = whole(
        None,
        "--frames",
        "Frames taken from the start of each clip, a multiple of 4 plus 1.",
        (1, 1025),
        unset="the checkpoint's own length",
    )
    resolution: str = choice(
        "360p",
        "--resolution",
        "Resolution class; each clip's shape decides the exact size.",
        KNOWN_RESOLUTIONS,
        unset="360p, or the checkpoint's first",
    )
    flow_shift: float = number(
        7.0,
        "--flow-shift",
        "Shift of the noise levels; larger looks at noisier clips.",
        (1e-3, 1000.0),
        unset="7; 3 for HunyuanVideo-1.5",
    )
    timesteps: str = choice(
        "lognormal", "--timesteps", "How noise levels are drawn before the shift.", ("lognormal", "uniform")
    )
    guidance: float | None = number(
        None,
        "--embedded-guidance",
        "Embedded guidance scale that the transformer is told.",
        (0.0, 100.0),
        unset="the checkpoint's own",
    )
    caption_drop: float = number(0.1, "--drop-caption", "Share of clips whose caption is left out.", (0.0, 1.0))
    picture_drop: float = number(
        0.1,
        "--drop-picture",
        "Share of clips whose picture LLaVA sees black.",
        (0.0, 1.0),
        unset="0.1; HunyuanVideo-1.5 always sees it",
    )
    seed: int = whole(42, "--seed", "Number that fixes every random draw.", (0, MAX_SEED))
    precision: str = choice(
        "auto",
        "--precision",
        "Type of the frozen weights and of the computation; factors stay float32.",
        ("auto", "float32", "bfloat16"),  # small gradients would vanish in float16
        spellings=SPELLINGS,
    )
    format: str = choice("official", "--format", "Format of the file.", FORMATS)
    stored: str = choice("float16", "--dtype", "Type of the numbers in the file.", STORED, spellings=SPELLINGS)
    save_every: int = whole(100, "--save-every", "Updates between saved states.", (1, 10_000_000))
    validate_every: int = whole(
        0, "--validate-every", "Updates between losses on clips that are left out; 0 leaves none out.", (0, 10_000_000)
    )
    validation: str | None = plain(
        None,
        "text",
        "--validation",
        "The clips that are left out: a folder of its own, or a share of DATA such as 0.2.",
        unset="0.1 of DATA",
    )
    sample_every: int = whole(0, "--sample-every", "Updates between sample clips; 0 makes none.", (0, 10_000_000))
    sample_image: str | None = plain(
        None, "path", "--sample-image", "The picture of the sample clips.", unset="no picture"
    )
    sample_prompt: str | None = plain(None, "text", "--sample-prompt", "The prompt of the sample clips.", unset="none")
    sample_prompts: str | None = plain(
        None,
        "path",
        "--sample-prompts",
        "A file with a prompt a line, each with a sample clip; behind it may stand --i PICTURE, --d SEED.",
        unset="none",
    )
    tensorboard: str | None = plain(
        None, "path", "--tensorboard", "Write the run's curves for TensorBoard into a folder of DIR.", unset="no files"
    )


# With these, a run may go on otherwise than it began: they do not change what its next update does.
FREE: tuple[str, ...] = ("steps", "save_every", "format", "stored", "tensorboard")
FREE += ("sample_every", "sample_image", "sample_prompt", "sample_prompts")


def training_settings() -> dict[str, Setting]:
    """Every field of ``Training`` with its description, in order; a default of its own is told where it has one."""
    return {entry.name: _told(entry.metadata["setting"], entry.default) for entry in dataclasses.fields(Training)}


def _told(setting: Setting, default: Any) -> Setting:
    if setting.unset or setting.kind in ("switch", "texts"):
        return setting
    return dataclasses.replace(setting, unset=f"{default:g}" if isinstance(default, float) else str(default))


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
    has_prompts = bool(made.sample_prompt or made.sample_prompts)
    if made.sample_every and not has_prompts:
        raise InputError("--sample-every needs --sample-prompt (and, unless for text-to-video, --sample-image).")
    if (has_prompts or made.sample_image) and not made.sample_every:
        raise InputError("--sample-prompt and --sample-image need --sample-every N: after how many updates?")
    if made.validation is not None and not made.validate_every:
        raise InputError("--validation needs --validate-every N: after how many updates?")
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
