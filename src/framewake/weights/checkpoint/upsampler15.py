"""What enlarges HunyuanVideo-1.5's clips beside a transformer: the row of latent upsamplers, and how many steps.

Source: specification of 1.5, sections 2.1 and 13.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.config15 import HUNYUAN15_UPSAMPLER, UpsamplerConfig
from framewake.errors import CheckpointError
from framewake.weights.checkpoint import component
from framewake.weights.checkpoint.component import Component, Content
from framewake.weights.checkpoint.inferred import layers, shape_of
from framewake.weights.checkpoint.settings import Enlargement
from framewake.weights.reading.mapped import Shapes
from framewake.weights.reading.storage import Tensors

# The larger class of each, by the smaller.
ENLARGEMENTS = {
    "480p": Enlargement(resolution="720p", side_px=960, steps=6, flow_shift=2.0),
    "720p": Enlargement(resolution="1080p", side_px=1440, steps=8, flow_shift=2.0),
}
KINDS = {"plain": "720p", "levels": "1080p"}  # which class an upsampler leads to
_PLAIN_MARK, _LEVELS_MARK = "in_conv.conv.weight", "up.0.block.0.conv1.conv.weight"


def larger_variant(name: str) -> str:
    """What the parts are called that enlarge a variant's clips: "720p_sr_distilled" for "480p_i2v"."""
    found = ENLARGEMENTS.get(name[:4])
    return "" if found is None else f"{found.resolution}_sr_distilled"


def check_enlarging(configs: Mapping[str, Any], transformer: Path | None, enlargement: Enlargement) -> None:
    """Whether the parts that enlarge clips lead to the class that these clips are enlarged to.

    The upsampler's tensors tell where it leads; a transformer's do not, so its names count where they say anything.
    Raises: CheckpointError.
    """
    wanted, found = enlargement.resolution, configs.get(component.UPSAMPLER)
    if not wanted:  # told where somebody asks for it
        return
    if found is not None and KINDS[found.kind] != wanted:
        raise CheckpointError(f"the latent upsampler leads to {KINDS[found.kind]}, and clips go to {wanted} here.")
    names = () if transformer is None else (transformer.name, transformer.parent.name)
    called = next((match[1] for name in names if (match := re.search(r"(720p|1080p)_sr", name))), wanted)
    if called != wanted:
        raise CheckpointError(f"{transformer} is called {called}_sr, and clips go to {wanted} here.")


def read_upsampler(content: Mapping[str, Any]) -> UpsamplerConfig:
    """What a ``config.json`` says that tensors do not tell."""
    return dataclasses.replace(HUNYUAN15_UPSAMPLER, adds_input=content.get("global_residual") is True)


def infer_upsampler(shapes: Shapes, like: UpsamplerConfig | None) -> UpsamplerConfig:
    """An upsampler's configuration from its tensors, what they do not tell as in ``like``.

    Raises: CheckpointError when the tensors are those of another model.
    """
    if _PLAIN_MARK in shapes:
        width, channels = shape_of(shapes, _PLAIN_MARK, 5)[:2]
        adds_input = like is not None and like.adds_input
        return UpsamplerConfig("plain", channels, (width,), layers(shapes, "blocks"), adds_input)
    channels = shape_of(shapes, "conv_in.conv.weight", 5)[1]
    names = [f"up.{level}.block.0.conv1.conv.weight" for level in range(layers(shapes, "up"))]
    widths = tuple(shape_of(shapes, name, 5)[0] for name in names)
    return UpsamplerConfig("levels", channels, widths, layers(shapes, "up.0.block"), adds_input=False)


def upsampler_content(config: UpsamplerConfig) -> Content:
    """An upsampler's config file."""
    if config.kind == "plain":
        sizes = {"in_channels": config.channels, "hidden_channels": config.widths[0], "num_blocks": config.blocks}
        return {**sizes, "out_channels": config.channels, "global_residual": config.adds_input}
    sizes = {"z_channels": config.channels, "num_res_blocks": config.blocks - 1}
    return {**sizes, "out_channels": config.channels, "block_out_channels": list(config.widths)}


def _is_alone(file: Tensors) -> bool:
    """Whether a file's levels are an upsampler's, and no autoencoder's."""
    return not any("decoder." in name for name in file.names())


UPSAMPLER: Component[UpsamplerConfig] = Component(
    name=component.UPSAMPLER,
    word="latent upsampler",
    role="latent upsampler",
    flag="upsampler",
    folder="upsampler",
    library="diffusers",
    kind="",
    tencent="upsampler/{larger}/diffusion_pytorch_model.safetensors",
    read=read_upsampler,
    infer=lambda shapes, hints: infer_upsampler(shapes, hints.like),
    write=upsampler_content,
    marks=(_PLAIN_MARK, _LEVELS_MARK),
    is_told=True,
    told=("channels", "widths", "blocks"),
    meets=lambda config: {"latents": ("the latent upsampler's", config.channels)},
    is_own=_is_alone,
    is_measured=True,
)
