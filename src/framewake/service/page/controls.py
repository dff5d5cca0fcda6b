"""The controls of the form, made from the descriptions in ``Request``; their values as settings and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from framewake.cache import PRESETS
from framewake.errors import InputError
from framewake.lora import ENDINGS
from framewake.request import Request, from_dict, settings
from framewake.service.fields import FIELD_OF
from framewake.service.page.examples import PROMPTS
from framewake.service.page.texts import say
from framewake.setting import Setting, shown
from framewake.shapes import nearest_frames
from framewake.weights.checkpoint.settings import Enlargement, Settings

BASIC = ("prompt", "resolution", "is_stable", "frames", "steps", "seed")
ADVANCED = (
    "negative_prompt",
    "guidance_scale",
    "embedded_guidance",
    "flow_shift",
    "fps",
    "precision",
    "vae_tiling",
    "super_resolution",
    "cache",
)
NAMES = (*BASIC, "crop", *ADVANCED)
MOST_LORAS = 8
MOTION = ("stable", "dynamic")


def control(name: str, language: str, checkpoint: Settings, *, is_idle: bool = False) -> gr.components.Component:
    """The control of one setting; one that would change nothing is not shown."""
    setting = settings()[name]
    described: dict[str, Any] = {
        "label": say(language, f"setting.{name}"),
        "info": say(language, f"setting.{name}.help"),
        "elem_id": f"fw-{name}",
    }
    described["visible"] = not is_idle
    if name == "super_resolution" and checkpoint.enlargement == Enlargement():
        described["visible"] = False
    if name == "crop":
        described["visible"] = "hidden"  # it is moved over the picture
    if name == "is_stable":
        words = [(say(language, f"setting.motion.{word}"), word) for word in MOTION]
        described |= {"label": say(language, "setting.motion"), "info": say(language, "setting.motion.help")}
        return gr.Radio(words, value=MOTION[0], **described)
    if name == "resolution":
        return gr.Radio(_classes(checkpoint), value=first_class(checkpoint), **described)
    if name in ("frames", "steps"):
        value = getattr(checkpoint, name)
        step = 4 if name == "frames" else 1
        return gr.Slider(1, largest(name, value, checkpoint), value=value, step=step, **described)
    if name == "prompt":
        described |= {"label": say(language, "prompt.label"), "info": None}
        hint = PROMPTS[0] if checkpoint.is_demo else say(language, "prompt.placeholder")
        return gr.Textbox(placeholder=hint, lines=3, max_length=10_000, **described)
    if name == "seed":  # text: a browser's numbers end at 2^53
        return gr.Textbox(placeholder=say(language, "setting.seed.random"), max_lines=1, **described)
    return plain_control(name, setting, language, described)


def plain_control(name: str, setting: Setting, language: str, described: dict[str, Any]) -> gr.components.Component:
    """The control that follows from a setting's kind alone."""
    default = getattr(Request(prompt=""), name)
    if name == "cache":  # any other rule can be written too
        words = [(say(language, f"setting.cache.{rule}"), rule) for rule in ("off", *PRESETS)]
        described["info"] = say(language, "setting.cache.page")
        return gr.Dropdown(words, value="off", allow_custom_value=True, **described)
    hint = say(language, f"setting.{name}.unset") if setting.unset else None
    if setting.kind == "choice":
        return gr.Dropdown(list(setting.choices or ()), value=default, **described)
    if setting.kind == "switch":
        return gr.Checkbox(value=default, **described)
    if setting.kind in ("number", "integer") and not setting.is_optional:
        return gr.Number(value=default, step=1 if setting.kind == "integer" else 0.5, **described)
    # Text where nothing is a choice too: Gradio's number boxes make a 0 of it.
    lines = 2 if setting.kind == "text" and setting.is_optional else 1
    return gr.Textbox(value=default, placeholder=hint, lines=lines, max_lines=8, max_length=10_000, **described)


def _classes(checkpoint: Settings) -> list[tuple[str, str]]:
    """The resolution classes to choose from; where a class is smaller than its name says, its side stands there."""
    published = Settings().resolutions
    return [
        (name if side == published.get(name) else f"{name} ({side} px)", name)
        for name, side in checkpoint.resolutions.items()
    ]


def first_class(checkpoint: Settings) -> str:
    """The resolution class that a request has when it says nothing."""
    return next(iter(checkpoint.resolutions))


def largest(name: str, value: int, checkpoint: Settings) -> int:
    """Where a slider ends: twice the usual number, or further when a value needs it."""
    usual = getattr(checkpoint, name)
    return max(2 * (usual - 1) + 1, value) if name == "frames" else max(2 * usual, value)


def settings_of(values: Sequence[Any]) -> dict[str, Any]:
    """What the controls hold, in the order of ``NAMES``, as settings of a request; what is empty is left out.

    Raises: InputError for text where a number belongs.
    """
    found: dict[str, Any] = {}
    for name, value in zip(NAMES, values, strict=True):
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        found[name] = _value(name, settings()[name], value)
    if "frames" in found:  # the page shows the nearest ones as soon as the box is left
        found["frames"] = nearest_frames(max(1, found["frames"]))
    return found


def _value(name: str, setting: Setting, value: Any) -> Any:
    if name == "is_stable":
        return value == MOTION[0]
    if setting.kind in ("integer", "number"):
        kind = int if setting.kind == "integer" else float
        try:
            return kind(value)
        except (TypeError, ValueError, OverflowError) as error:
            what = "whole number" if kind is int else "number"
            raise InputError(f"{name} is {shown(value)}: expected a {what}.") from error
    return value


def fields_of(values: Sequence[Any], loras: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """The same as fields of ``POST /v1/videos``.

    Raises: InputError.
    """
    given = settings_of(values)
    made = {FIELD_OF.get(name, name): value for name, value in given.items()}
    if loras:
        made["lora"] = [{"name": name, "scale": scale} for name, scale in loras]
    return made


def values_of(request: Request, checkpoint: Settings) -> list[Any]:
    """Updates that make every control show a request."""
    updates = []
    for name in NAMES:
        value = getattr(request, name)
        if name == "is_stable":
            value = MOTION[0 if value else 1]
        if value is not None and settings()[name].is_optional and settings()[name].kind in ("integer", "number"):
            value = (
                value if name in ("frames", "steps") else f"{value:.17g}" if isinstance(value, float) else str(value)
            )
        if name in ("frames", "steps"):
            value = getattr(checkpoint, name) if value is None else value
            updates.append(gr.update(value=value, maximum=largest(name, value, checkpoint)))
            continue
        if name == "resolution" and value not in checkpoint.resolutions:
            value = first_class(checkpoint)
        updates.append(gr.update(value=value))
    return updates


def usable(values: Mapping[str, Any]) -> tuple[Request, dict[str, float]]:
    """A request from settings of another day, and its LoRAs by name; files and places do not come along.

    Raises: InputError.
    """
    kept = {name: value for name, value in values.items() if name in (*NAMES, "loras")}
    request = from_dict(kept)
    used = request.uses
    return request, {lora_name(use.path): use.strongest() for use in used}


def lora_name(path: str) -> str:
    """How a server calls a LoRA file."""
    name = path.replace("\\", "/").rpartition("/")[2]
    return next((name.removesuffix(ending) for ending in ENDINGS if name.endswith(ending)), name)
