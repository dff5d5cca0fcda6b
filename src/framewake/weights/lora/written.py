"""How each format of LoRA files writes the modules of a transformer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

from framewake.config import DiTConfig
from framewake.config15 import DiT15Config
from framewake.weights.lora.keys import OFFICIAL, Format
from framewake.weights.reading.names import NameRule, diffusers_dit
from framewake.weights.reading.names15 import diffusers_dit as diffusers_dit15
from framewake.weights.reading.names15 import published_dit

_KOHYA = (".lora_down.weight", ".lora_up.weight")
_PEFT = (".lora_A.weight", ".lora_B.weight")


class WrittenFormat(NamedTuple):
    """One format: what stands in front of a module's name, and behind it for each of the two factors.

    ``rules`` are the names of modules that are not ours, each with the rows of ours that it is. ``holds``: pairs of
    factors alone, what PEFT knows, or every change of a layer. ``configuration``: what stands in front of the names of
    PEFT's configuration, where alpha is kept in that and not in tensors.
    """

    start: str
    down: str
    up: str
    holds: Literal["pairs", "peft", "layers"]
    is_underscored: bool = False
    rules: tuple[NameRule, ...] = ()
    configuration: str = ""

    @property
    def has_tensors_of_alpha(self) -> bool:
        """Whether each module has its alpha beside its factors."""
        return self.holds != "peft"

    def key(self, module: str) -> str:
        """The beginning of a module's keys."""
        return self.start + (module.replace(".", "_") if self.is_underscored else module)


def _written(config: DiTConfig) -> dict[Format, WrittenFormat]:
    """Those of HunyuanVideo; Tencent's program has pairs of one kind and reads nothing else."""
    return {
        "official": WrittenFormat(OFFICIAL, *_KOHYA, "pairs", is_underscored=True),
        "kohya": WrittenFormat("lora_unet_", *_KOHYA, "layers", is_underscored=True),
        "diffusers": _diffusers(diffusers_dit(config)),
        "comfyui": WrittenFormat("diffusion_model.", *_PEFT, "layers"),
    }


def _written15(config: DiT15Config) -> dict[Format, WrittenFormat]:
    """Those of HunyuanVideo-1.5, whose program is PEFT; for all but ComfyUI, queries, keys and values are apart."""
    published = tuple(published_dit(config))
    return {
        "official": WrittenFormat("", *_PEFT, "peft", rules=published),
        "kohya": WrittenFormat("lora_unet_", *_KOHYA, "layers", is_underscored=True, rules=published),
        "diffusers": _diffusers(diffusers_dit15(config)),
        "comfyui": WrittenFormat("diffusion_model.", *_PEFT, "layers"),
    }


def _diffusers(rules: list[NameRule]) -> WrittenFormat:
    return WrittenFormat("transformer.", *_PEFT, "peft", rules=tuple(rules), configuration="transformer.")


# By a transformer's configuration.
WRITTEN: Mapping[type, Callable[[Any], dict[Format, WrittenFormat]]] = {DiTConfig: _written, DiT15Config: _written15}
