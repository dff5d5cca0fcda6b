"""The diffusers folder layout: which folder holds what, and its config files as our configurations.

Source: specification, sections 4.1 and 7.1; the field names as the folder layout has them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from framewake.config import CONDITIONS, DiTConfig, VAEConfig
from framewake.errors import CheckpointError

C = TypeVar("C")
DIT_CLASS = "HunyuanVideoTransformer3DModel"
VAE_CLASS = "AutoencoderKLHunyuanVideo"
SCHEDULER = ("diffusers", "FlowMatchEulerDiscreteScheduler")
ORIGINAL_VAE = "AutoencoderKLCausal3D"
MOST_LAYERS, MOST_SIZE = 1000, 1 << 24
VERSION = "0.42.1"  # the layout version that our files claim

_DIT_FIELDS = {
    "in_channels": int,
    "out_channels": int,
    "num_attention_heads": int,
    "attention_head_dim": int,
    "num_layers": int,
    "num_single_layers": int,
    "num_refiner_layers": int,
    "mlp_ratio": float,
    "patch_size": int,
    "patch_size_t": int,
    "guidance_embeds": bool,
    "text_embed_dim": int,
    "pooled_projection_dim": int,
    "rope_theta": float,
    "rope_axes_dim": tuple,
}
_MAY_BE_NONE = ("num_layers", "num_single_layers", "num_refiner_layers")
_VAE_FIELDS = {
    "in_channels": int,
    "out_channels": int,
    "latent_channels": int,
    "block_out_channels": tuple,
    "layers_per_block": int,
    "norm_num_groups": int,
    "scaling_factor": float,
    "spatial_compression_ratio": int,
    "temporal_compression_ratio": int,
    "mid_block_add_attention": bool,
}
# What these files call our fields, where it is not the same.
_OURS = {
    "num_attention_heads": "heads",
    "num_layers": "double_blocks",
    "num_single_layers": "single_blocks",
    "num_refiner_layers": "refiner_blocks",
    "guidance_embeds": "has_guidance",
    "text_embed_dim": "text_width",
    "pooled_projection_dim": "pooled_width",
    "rope_axes_dim": "rope_dims",
    "norm_num_groups": "norm_groups",
    "spatial_compression_ratio": "spatial_compression",
    "temporal_compression_ratio": "temporal_compression",
    "mid_block_add_attention": "mid_block_attention",
}


def renamed(kind: Callable[..., C], values: Mapping[str, Any], ours: Mapping[str, str]) -> C:
    """A configuration from a file's values that were checked; ``ours`` has our names of its fields."""
    found = {ours.get(name, name): value for name, value in values.items()}
    return kind(**{name: found[name] for name in inspect.signature(kind).parameters})


def written(config: Any, names: Iterable[str], ours: Mapping[str, str]) -> dict[str, Any]:
    """Those of a configuration's fields that a file has, by its names for them; tuples as lists."""
    found = {name: getattr(config, ours.get(name, name)) for name in names if hasattr(config, ours.get(name, name))}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def dit_config(content: Mapping[str, Any]) -> DiTConfig:
    """The transformer's configuration.

    Raises: CheckpointError when a field is missing, of another kind, or does not fit the others.
    """
    c = _fields(content, _DIT_FIELDS, DIT_CLASS)
    condition = content.get("image_condition_type")
    if condition is None:  # the first release came before this field
        condition = "latent_concat" if c["in_channels"] == 2 * c["out_channels"] + 1 else "none"
    if condition not in CONDITIONS:
        raise CheckpointError(f"the transformer's image_condition_type is {condition!r}; it is unknown here.")
    if sum(c["rope_axes_dim"]) != c["attention_head_dim"] or len(c["rope_axes_dim"]) != 3:
        raise CheckpointError(
            f"the transformer's rope_axes_dim {list(c['rope_axes_dim'])} must be three numbers that add up to the "
            f"head size {c['attention_head_dim']}."
        )
    shape = {
        "patch_size": (c["patch_size_t"], c["patch_size"], c["patch_size"]),
        "hidden_size": c["num_attention_heads"] * c["attention_head_dim"],
        "condition": condition,
    }
    return renamed(DiTConfig, c | shape, _OURS)


def vae_config(content: Mapping[str, Any]) -> VAEConfig:
    """The autoencoder's configuration.

    Raises: CheckpointError when a field is missing or of another kind.
    """
    return renamed(VAEConfig, _fields(content, _VAE_FIELDS, VAE_CLASS), _OURS)


def original_vae_config(content: Mapping[str, Any]) -> VAEConfig:
    """The autoencoder's configuration as the original's own class writes it (specification, section 7.1)."""
    defaults = {"spatial_compression_ratio": 8, "mid_block_add_attention": True}
    given = {name: value for name, value in content.items() if name != "_class_name"}
    return vae_config(defaults | {"temporal_compression_ratio": content.get("time_compression_ratio", 4)} | given)


def original_vae_content(config: VAEConfig) -> dict[str, Any]:
    """The autoencoder's config file as the original's own class reads it."""
    levels = len(config.block_out_channels)
    return vae_content(config) | {
        "_class_name": ORIGINAL_VAE,
        "down_block_types": ["DownEncoderBlockCausal3D"] * levels,
        "up_block_types": ["UpDecoderBlockCausal3D"] * levels,
        "sample_size": 256,
        "sample_tsize": 64,
        "time_compression_ratio": config.temporal_compression,
    }


def dit_content(config: DiTConfig) -> dict[str, Any]:
    """The transformer's config file.

    The diffusers class gives its refiner an MLP of four times the width whatever ``mlp_ratio`` says, so only
    checkpoints with that ratio load there.
    """
    return {
        **_diffusers(DIT_CLASS),
        **written(config, _DIT_FIELDS, _OURS),
        "attention_head_dim": config.head_dim,
        "patch_size": config.patch_size[1],
        "patch_size_t": config.patch_size[0],
        "qk_norm": "rms_norm",
        "image_condition_type": config.condition if config.needs_picture else None,
    }


def vae_content(config: VAEConfig) -> dict[str, Any]:
    """The autoencoder's config file."""
    levels = len(config.block_out_channels)
    return {
        **_diffusers(VAE_CLASS),
        **written(config, _VAE_FIELDS, _OURS),
        "down_block_types": ["HunyuanVideoDownBlock3D"] * levels,
        "up_block_types": ["HunyuanVideoUpBlock3D"] * levels,
        "act_fn": "silu",
    }


def is_size(name: str, value: float, *, least: int = 1) -> bool:
    """Whether a number can be a size, a count of layers or a rate of a model: a list of a billion layers has no end."""
    if isinstance(value, float):
        return 0 < value < float("inf")
    return least <= value <= (MOST_LAYERS if "layers" in name else MOST_SIZE)


def _diffusers(kind: str) -> dict[str, Any]:
    return {"_class_name": kind, "_diffusers_version": VERSION}


def _fields(content: Mapping[str, Any], kinds: Mapping[str, type], expected: str) -> dict[str, Any]:
    """The named fields, each of its kind."""
    found = content.get("_class_name", expected)
    if found != expected:
        raise CheckpointError(f"a {found!r} was found where a {expected} belongs: this is another model.")
    values = {}
    for name, kind in kinds.items():
        value = content.get(name)
        if kind is float and type(value) is int:
            value = float(value)
        if kind is tuple and isinstance(value, list) and all(type(item) is int for item in value):
            value = tuple(value)
        if type(value) is not kind:
            got = "missing" if name not in content else repr(value)
            raise CheckpointError(f"the config of {expected} needs {name} as {kind.__name__}; it is {got}.")
        sizes: Any = value if kind is tuple else (value,)
        if kind is not bool and not all(is_size(name, size, least=name not in _MAY_BE_NONE) for size in sizes or (0,)):
            raise CheckpointError(
                f"the config of {expected} says {name} is {value!r}; sizes begin at 1 and end at {MOST_SIZE}, "
                f"counts of layers at {MOST_LAYERS}."
            )
        values[name] = value
    return values
