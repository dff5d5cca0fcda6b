"""A wish as framewake takes it: settings of a Request, or the body of POST /v1/videos. Nothing is imported for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .values import LoraFile, Wish

# The values of framewake.preset, which a test compares: a server's client needs no framewake.
PRESETS = ("stable", "dynamic")
CENTRE = "0.5,0.5"
MOST_FRAMES, MOST_STEPS, MOST_SEED, MOST_GUIDANCE = 1025, 1000, 2**64 - 1, 100.0
OWN = "own"  # of a checkpoint; a clip that asks for another than it has is refused
RESOLUTIONS = (OWN, "1080p", "720p", "540p", "480p", "360p")
CACHES = ("off", "fast", "faster")


class Refused(Exception):
    """What cannot be done, in one sentence for the person at the page."""


def frames_are_possible(frames: int) -> bool | str:
    """ComfyUI's check of an input: True, or what is wrong. Its server does not check steps."""
    if frames % 4 == 1:
        return True
    return f"frames is {frames}: expected a multiple of 4 plus 1, such as {max(1, frames // 4 * 4 + 1)}."


def request_settings(wish: Wish, loras: Sequence[LoraFile]) -> dict[str, Any]:
    """The settings of framewake's Request; the picture is added where it is known."""
    found: dict[str, Any] = {
        "prompt": wish.prompt,
        "resolution": None if wish.resolution == OWN else wish.resolution,
        "frames": wish.frames,
        "steps": wish.steps or None,
        "seed": wish.seed,
        "is_stable": wish.preset == "stable",
        "crop": wish.crop.strip() or CENTRE,
        "cache": wish.cache,
        "guidance_scale": wish.guidance_scale or None,
        "embedded_guidance": wish.embedded_guidance,
        "super_resolution": wish.super_resolution,
        "loras": [f"{lora.path}:{lora.weight}" for lora in loras],
    }
    return found | ({"negative_prompt": wish.negative_prompt} if wish.negative_prompt.strip() else {})


def body(wish: Wish, loras: Sequence[LoraFile]) -> dict[str, Any]:
    """The body of POST /v1/videos. There, LoRAs have names without endings, and one weight each.

    Raises: Refused for weights by step, and a seed that the API has no room for.
    """
    if wish.seed >= 2**63:
        raise Refused(f"seed is {wish.seed}: a server takes seeds below 2^63.")
    found: dict[str, Any] = {
        "prompt": wish.prompt,
        "num_frames": wish.frames,
        "seed": wish.seed,
        "stability": wish.preset == "stable",
        "crop": wish.crop.strip() or CENTRE,
        "cache": wish.cache,
        "guidance_scale": wish.embedded_guidance,
        "super_resolution": wish.super_resolution,
        "lora": [_on_server(lora) for lora in loras],
    }
    if wish.resolution != OWN:
        found["resolution"] = wish.resolution
    if wish.guidance_scale:
        found["true_cfg_scale"] = wish.guidance_scale
    if wish.steps:
        found["num_inference_steps"] = wish.steps
    if wish.negative_prompt.strip():
        found["negative_prompt"] = wish.negative_prompt
    return found


def _on_server(lora: LoraFile) -> dict[str, Any]:
    name = lora.name.replace("\\", "/").rpartition("/")[2]
    try:
        scale = float(lora.weight)
    except ValueError as error:
        raise Refused(f"the weight of {lora.name} is {lora.weight!r}: a server takes one number.") from error
    return {"name": name.rpartition(".")[0] or name, "scale": scale}
