"""LoRA files as the original writes them, merged into the transformer's weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from framewake.errors import CheckpointError, nearest

PREFIX = "Hunyuan_video_I2V_lora_"
DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


def resolve(path: str, names: Iterable[str]) -> str:
    """The module that an underscore path means, such as "double_blocks_0_img_mod_linear".

    An underscore separates modules or belongs to a name; the shortest name that exists in the module tree
    wins at each level.
    Raises: CheckpointError when no module fits.
    Source: specification, section 9.
    """
    modules = {
        ".".join(parts[:depth]) for parts in (name.split(".") for name in names) for depth in range(1, len(parts))
    }
    found, piece = "", ""
    for word in path.split("_"):
        piece = f"{piece}_{word}" if piece else word
        if f"{found}{piece}" in modules:
            found, piece = f"{found}{piece}.", ""
    if piece or not found:
        close = nearest(path.replace("_", "."), modules)
        raise CheckpointError(f"the LoRA's {path!r} is no module of this transformer; is it for another model?{close}")
    return found.removesuffix(".")


def merge(base: Mapping[str, np.ndarray], lora: Mapping[str, np.ndarray], scale: float) -> dict[str, np.ndarray]:
    """The weights plus ``scale`` times every pair's product; ``.alpha`` is ignored, as in the original.

    Precision: the product in float32, the sum rounded to the weight's type.
    Raises: CheckpointError for a key of another kind, half a pair, or shapes that do not fit.
    Source: specification, section 9.
    """
    merged = dict(base)
    for path in _paths(lora):
        name = resolve(path, base) + ".weight"
        key = PREFIX + path
        if key + DOWN not in lora or key + UP not in lora:
            raise CheckpointError(f"the LoRA has only one of {key + DOWN} and {key + UP}.")
        down, up = (np.asarray(lora[key + end], dtype=np.float32) for end in (DOWN, UP))
        if name not in base or (up.shape[0], down.shape[-1]) != base[name].shape or up.shape[-1] != down.shape[0]:
            shape = list(base[name].shape) if name in base else "missing"
            raise CheckpointError(
                f"the LoRA's {path} ({list(up.shape)} by {list(down.shape)}) does not fit {name} ({shape})."
            )
        weight = base[name]
        change = np.float32(scale) * (up @ down)
        merged[name] = (weight.astype(np.float32) + change).astype(weight.dtype)
    return merged


def _paths(lora: Mapping[str, np.ndarray]) -> list[str]:
    """The underscore path of every pair, in the file's order."""
    paths: dict[str, None] = {}
    for key in lora:
        end = next((end for end in (DOWN, UP, ALPHA) if key.endswith(end)), None)
        if end is None or not key.startswith(PREFIX):
            raise CheckpointError(f"the LoRA key {key!r} is not {PREFIX}<module>{DOWN} or {UP}.")
        if end != ALPHA:
            paths[key.removeprefix(PREFIX).removesuffix(end)] = None
    return list(paths)
