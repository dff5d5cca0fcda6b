"""The diffusers folder layout: which folder holds what, and its config files as our configurations.

Source: specification, sections 4.1 and 7.1; the field names as the folder layout has them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framewake.config import ClipTextConfig, DiTConfig, LlavaConfig, VAEConfig
from framewake.errors import CheckpointError

DIT_CLASS = "HunyuanVideoTransformer3DModel"
VAE_CLASS = "AutoencoderKLHunyuanVideo"
OTHERS = {
    "image_processor": ("transformers", "CLIPImageProcessor"),
    "scheduler": ("diffusers", "FlowMatchEulerDiscreteScheduler"),
}
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


def dit_config(content: Mapping[str, Any]) -> DiTConfig:
    """The transformer's configuration.

    Raises: CheckpointError when a field is missing, of another kind, or does not fit the others.
    """
    c = _fields(content, _DIT_FIELDS, DIT_CLASS)
    condition = content.get("image_condition_type")
    if condition is None:  # the first release came before this field
        condition = "latent_concat" if c["in_channels"] == 2 * c["out_channels"] + 1 else "none"
    if condition not in ("token_replace", "latent_concat", "none"):
        raise CheckpointError(f"the transformer's image_condition_type is {condition!r}; it is unknown here.")
    if sum(c["rope_axes_dim"]) != c["attention_head_dim"] or len(c["rope_axes_dim"]) != 3:
        raise CheckpointError(
            f"the transformer's rope_axes_dim {list(c['rope_axes_dim'])} must be three numbers that add up to the "
            f"head size {c['attention_head_dim']}."
        )
    return DiTConfig(
        patch_size=(c["patch_size_t"], c["patch_size"], c["patch_size"]),
        in_channels=c["in_channels"],
        out_channels=c["out_channels"],
        hidden_size=c["num_attention_heads"] * c["attention_head_dim"],
        heads=c["num_attention_heads"],
        rope_dims=c["rope_axes_dim"],
        rope_theta=c["rope_theta"],
        mlp_ratio=c["mlp_ratio"],
        double_blocks=c["num_layers"],
        single_blocks=c["num_single_layers"],
        refiner_blocks=c["num_refiner_layers"],
        text_width=c["text_embed_dim"],
        pooled_width=c["pooled_projection_dim"],
        condition=condition,
        has_guidance=c["guidance_embeds"],
    )


def vae_config(content: Mapping[str, Any]) -> VAEConfig:
    """The autoencoder's configuration.

    Raises: CheckpointError when a field is missing or of another kind.
    """
    c = _fields(content, _VAE_FIELDS, VAE_CLASS)
    return VAEConfig(
        in_channels=c["in_channels"],
        out_channels=c["out_channels"],
        latent_channels=c["latent_channels"],
        block_out_channels=c["block_out_channels"],
        layers_per_block=c["layers_per_block"],
        norm_groups=c["norm_num_groups"],
        scaling_factor=c["scaling_factor"],
        spatial_compression=c["spatial_compression_ratio"],
        temporal_compression=c["temporal_compression_ratio"],
        mid_block_attention=c["mid_block_add_attention"],
    )


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
    return _diffusers(DIT_CLASS) | {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "num_attention_heads": config.heads,
        "attention_head_dim": config.head_dim,
        "num_layers": config.double_blocks,
        "num_single_layers": config.single_blocks,
        "num_refiner_layers": config.refiner_blocks,
        "mlp_ratio": config.mlp_ratio,
        "patch_size": config.patch_size[1],
        "patch_size_t": config.patch_size[0],
        "qk_norm": "rms_norm",
        "guidance_embeds": config.has_guidance,
        "text_embed_dim": config.text_width,
        "pooled_projection_dim": config.pooled_width,
        "rope_theta": config.rope_theta,
        "rope_axes_dim": list(config.rope_dims),
        "image_condition_type": None if config.condition == "none" else config.condition,
    }


def vae_content(config: VAEConfig) -> dict[str, Any]:
    """The autoencoder's config file."""
    levels = len(config.block_out_channels)
    return _diffusers(VAE_CLASS) | {
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "latent_channels": config.latent_channels,
        "down_block_types": ["HunyuanVideoDownBlock3D"] * levels,
        "up_block_types": ["HunyuanVideoUpBlock3D"] * levels,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "act_fn": "silu",
        "norm_num_groups": config.norm_groups,
        "scaling_factor": config.scaling_factor,
        "spatial_compression_ratio": config.spatial_compression,
        "temporal_compression_ratio": config.temporal_compression,
        "mid_block_add_attention": config.mid_block_attention,
    }


def llava_content(config: LlavaConfig) -> dict[str, Any]:
    """LLaVA's config file."""
    text, vision = config.text, config.vision
    return {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "image_token_index": config.image_token_id,
        "image_seq_length": vision.patches if config.drops_class_token else vision.patches + 1,
        "pad_token_id": config.pad_token_id,
        "projector_hidden_act": config.projector_activation,
        "vision_feature_layer": config.vision_feature_layer,
        "vision_feature_select_strategy": "default" if config.drops_class_token else "full",
        "text_config": {
            "model_type": "llama",
            "hidden_size": text.hidden_size,
            "intermediate_size": text.mlp_size,
            "num_hidden_layers": text.layers,
            "num_attention_heads": text.heads,
            "num_key_value_heads": text.kv_heads,
            "head_dim": text.head_dim,
            "vocab_size": text.vocab_size,
            "rms_norm_eps": text.norm_eps,
            "rope_theta": text.rope_theta,
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": vision.hidden_size,
            "intermediate_size": vision.mlp_size,
            "num_hidden_layers": vision.layers,
            "num_attention_heads": vision.heads,
            "image_size": vision.image_size,
            "patch_size": vision.patch_size,
            "hidden_act": vision.activation,
            "layer_norm_eps": vision.norm_eps,
            "projection_dim": vision.hidden_size,
        },
    }


def clip_text_content(config: ClipTextConfig) -> dict[str, Any]:
    """CLIP text's config file."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.mlp_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_positions,
        "hidden_act": config.activation,
        "layer_norm_eps": config.norm_eps,
        "eos_token_id": config.eos_token_id,
        "projection_dim": config.hidden_size,
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
