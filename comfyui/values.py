"""What goes along the wires."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class LoraFile:
    """A LoRA: its name in ComfyUI's list, the file, and its weight as framewake reads it, such as 0.8."""

    name: str
    path: str
    weight: str


@dataclass(eq=False)
class Local:
    """A checkpoint in this process. ``pipeline`` is open from the first run until another checkpoint runs.

    Units: ``memory_bytes`` on the device; None is all that is free.
    """

    checkpoint: str
    engine: str
    memory_bytes: int | None
    pipeline: Any = field(default=None, repr=False)


@dataclass(frozen=True)
class Remote:
    """A framewake server by its address."""

    url: str


@dataclass(frozen=True)
class Wish:
    """What a clip is to be. Its fields are those of framewake's Request; a resolution "own", and 0 as ``steps`` or
    ``guidance_scale``, are the checkpoint's own."""

    prompt: str
    resolution: str
    frames: int
    steps: int
    seed: int
    preset: str
    cache: str
    negative_prompt: str = ""
    guidance_scale: float = 0.0
    embedded_guidance: float = 6.0
    crop: str = "0.5,0.5"
    super_resolution: bool = False
