"""Shapes of HunyuanVideo-1.5's models from ``config.json`` files and from tensors, and such files from them.

Source: specification of 1.5, sections 2 to 5; the field names as Tencent's, diffusers' and transformers' classes write
them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from framewake.config import ClipVisionConfig, VAEConfig
from framewake.config15 import (
    GLYPH_BYT5,
    HUNYUAN15_DIT,
    HUNYUAN15_VAE,
    QWEN25_VL_7B,
    SIGLIP_SO400M,
    TILES,
    DiT15Config,
    QwenConfig,
    T5Config,
    TileRule,
)
from framewake.errors import CheckpointError
from framewake.weights.checkpoint.diffusers import VERSION, is_size
from framewake.weights.checkpoint.inferred import head_count, layers, shape_of
from framewake.weights.reading.mapped import Shapes

DIT_CLASS, VAE_CLASS = "HunyuanVideo15Transformer3DModel", "AutoencoderKLHunyuanVideo15"
TENCENT_DIT_CLASS, TENCENT_VAE_CLASS = "HunyuanVideo_1_5_DiffusionTransformer", "AutoencoderKLConv3D"
SPARSE = "flex-block-attn"
SIGLIP_HEAD = 72
_INNER = "glyph_inner_widths"  # our own field: diffusers' class has the published ones built in

# Our field -> its names in files, the first that is there counts.
DIT_FIELDS = {
    "out_channels": ("out_channels",),
    "heads": ("num_attention_heads", "heads_num"),
    "double_blocks": ("num_layers", "mm_double_blocks_depth"),
    "refiner_blocks": ("num_refiner_layers",),
    "mlp_ratio": ("mlp_ratio", "mlp_width_ratio"),
    "text_width": ("text_embed_dim", "text_states_dim"),
    "vision_width": ("image_embed_dim", "vision_states_dim"),
    "rope_theta": ("rope_theta",),
    "rope_dims": ("rope_axes_dim", "rope_dim_list"),
}
_TILES = {
    "tile": ("tile_size",),
    "window": ("win_size",),
    "kept": ("ssta_topk",),
    "likeness": ("ssta_lambda",),
}
_SPARSE_FACTS = {
    "attn_sparse_type": "ssta",
    "ssta_threshold": 0.0,
    "ssta_sampling_type": "importance",
    "ssta_adaptive_pool": None,
    "attn_pad_type": "zero",
    "attn_use_text_mask": 1,
    "attn_mask_share_within_head": 0,
}
VAE_FIELDS = {
    "in_channels": ("in_channels",),
    "out_channels": ("out_channels",),
    "latent_channels": ("latent_channels",),
    "block_out_channels": ("block_out_channels",),
    "layers_per_block": ("layers_per_block",),
    "scaling_factor": ("scaling_factor",),
    "spatial_compression": ("spatial_compression_ratio", "ffactor_spatial"),
    "temporal_compression": ("temporal_compression_ratio", "ffactor_temporal"),
}
_QWEN = {
    "hidden_size": ("hidden_size",),
    "mlp_size": ("intermediate_size",),
    "layers": ("num_hidden_layers",),
    "heads": ("num_attention_heads",),
    "kv_heads": ("num_key_value_heads",),
    "vocab_size": ("vocab_size",),
    "norm_eps": ("rms_norm_eps",),
    "rope_theta": ("rope_theta",),
}
_T5 = {
    "hidden_size": ("d_model",),
    "head_dim": ("d_kv",),
    "mlp_size": ("d_ff",),
    "layers": ("num_layers",),
    "heads": ("num_heads",),
    "vocab_size": ("vocab_size",),
    "position_buckets": ("relative_attention_num_buckets",),
    "position_distance": ("relative_attention_max_distance",),
    "norm_eps": ("layer_norm_epsilon",),
}
_SIGLIP = {
    "hidden_size": ("hidden_size",),
    "mlp_size": ("intermediate_size",),
    "layers": ("num_hidden_layers",),
    "heads": ("num_attention_heads",),
    "image_size": ("image_size",),
    "patch_size": ("patch_size",),
    "activation": ("hidden_act",),
    "norm_eps": ("layer_norm_eps",),
}


def _read(content: Mapping[str, Any], names: Mapping[str, tuple[str, ...]], like: Any) -> dict[str, Any]:
    """The fields that a file names, each of the kind of the published value; others are as published.

    Raises: CheckpointError for a value of another kind.
    """
    values = {}
    for ours, theirs in names.items():
        name = next((each for each in theirs if content.get(each) is not None), None)
        if name is None:
            continue
        value, usual = content[name], getattr(like, ours)
        if isinstance(usual, float) and type(value) is int:
            value = float(value)
        if isinstance(usual, tuple) and isinstance(value, list):
            value = tuple(value)
        sizes = value if isinstance(value, tuple) else (value,)
        is_right = type(value) is type(usual) and all(isinstance(size, int | float | str) for size in sizes)
        if not is_right or not sizes:
            raise CheckpointError(f"config.json says {name} is {value!r}; expected a value like {usual!r}.")
        if not isinstance(usual, str) and not all(is_size(name, size) for size in sizes):
            raise CheckpointError(f"config.json says {name} is {value!r}; no model has such a size.")
        values[ours] = value
    return values


def written(config: Any, names: Mapping[str, tuple[str, ...]], *, place: int = 0) -> dict[str, Any]:
    """The fields as a file has them: under the first of their names, or another one."""
    found = {theirs[place]: getattr(config, ours) for ours, theirs in names.items()}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _class(content: Mapping[str, Any], *known: str) -> None:
    found = content.get("_class_name", known[0])
    if found not in known:
        raise CheckpointError(f"a {found!r} was found where a {known[0]} belongs: this is another model.")


def dit_config(content: Mapping[str, Any]) -> DiT15Config:
    """The transformer's configuration, as Tencent or diffusers write it.

    Raises: CheckpointError for a field of another kind, and for what is not run here.
    """
    _class(content, DIT_CLASS, TENCENT_DIT_CLASS)
    values = _read(content, DIT_FIELDS, HUNYUAN15_DIT)
    config = dataclasses.replace(HUNYUAN15_DIT, **values)
    width = content.get("hidden_size", config.heads * content.get("attention_head_dim", HUNYUAN15_DIT.head_dim))
    first = content.get("text_embed_2_dim", HUNYUAN15_DIT.glyph_widths[0])
    inner = content.get(_INNER, HUNYUAN15_DIT.glyph_widths[1:])
    sizes = (width, first, *(inner if isinstance(inner, list | tuple) else [inner]))
    if len(sizes) != 4 or not all(type(size) is int and is_size("", size) for size in sizes):
        raise CheckpointError(f"config.json says sizes {sizes!r}; expected whole numbers.")
    if len(config.rope_dims) != 3 or sum(config.rope_dims) * config.heads != width:
        raise CheckpointError(f"config.json: {config.rope_dims} must be three numbers that add up to the head size.")
    task = content.get("task_type", content.get("ideal_task", "i2v"))
    return dataclasses.replace(
        config,
        hidden_size=width,
        in_channels=2 * config.out_channels + 1,
        glyph_widths=(sizes[1], sizes[2], sizes[3]),
        condition="none" if task == "t2v" else "latent_concat",
        is_step_distilled=content.get("use_meanflow") is True,
        tiles=_tiles(content.get("attn_param") or {}) if content.get("attn_mode") == SPARSE else None,
    )


def _tiles(content: Mapping[str, Any]) -> TileRule:
    """The rule of sparse attention as the original's class writes it, what is not there as published.

    Raises: CheckpointError for a rule of another kind.
    """
    for name, usual in _SPARSE_FACTS.items():
        if content.get(name, usual) != usual:
            raise CheckpointError(f"config.json says {name} is {content[name]!r}: only {usual!r} is run here.")
    given = dict(content)
    if isinstance(given.get("win_size"), list) and len(given["win_size"]) == 1:  # one for all layers
        given["win_size"] = given["win_size"][0]
    rule = dataclasses.replace(TILES, **_read(given, _TILES, TILES))
    if len(rule.tile) != 3 or len(rule.window) != 3:
        raise CheckpointError(f"config.json says tiles of {rule.tile} in {rule.window}; expected three numbers each.")
    return rule


def tiles_content(rule: TileRule) -> dict[str, Any]:
    """The rule of sparse attention as the original's class reads it."""
    found = _SPARSE_FACTS | written(rule, _TILES)
    return {"attn_mode": SPARSE, "attn_param": found | {"win_size": [found["win_size"]]}}


def larger_dit_config(content: Mapping[str, Any]) -> DiT15Config:
    """The same of a transformer that enlarges clips: it also sees those of a smaller one, and their mask."""
    config = dit_config(content)
    return dataclasses.replace(config, in_channels=3 * config.out_channels + 2)


def dit_content(config: DiT15Config) -> dict[str, Any]:
    """The transformer's config file; ``target_size`` is not known of a shape, and diffusers' pipelines need it."""
    return {
        "_class_name": DIT_CLASS,
        "_diffusers_version": VERSION,
        **written(config, DIT_FIELDS),
        "in_channels": config.in_channels,
        "attention_head_dim": config.head_dim,
        "patch_size": 1,
        "patch_size_t": 1,
        "qk_norm": "rms_norm",
        "text_embed_2_dim": config.glyph_widths[0],
        "task_type": "i2v" if config.needs_picture else "t2v",
        "use_meanflow": config.is_step_distilled,
        **inner_content(config),
        **({} if config.tiles is None else tiles_content(config.tiles)),
    }


def inner_content(config: DiT15Config) -> dict[str, Any]:
    """The widths of the layers behind byT5, where they are not the published ones."""
    inner = config.glyph_widths[1:]
    return {} if inner == HUNYUAN15_DIT.glyph_widths[1:] else {_INNER: list(inner)}


def infer_dit(shapes: Shapes, like: DiT15Config | None) -> DiT15Config:
    """The transformer's configuration from its tensors under our names, what they do not tell as in ``like``.

    Raises: CheckpointError when the tensors are those of another model.
    """
    hidden, channels, *_ = shape_of(shapes, "img_in.proj.weight", 5)
    head = shape_of(shapes, "double_blocks.0.img_attn_q_norm.weight", 1)[0]
    out = shape_of(shapes, "final_layer.linear.weight", 2)[0]
    is_like = like is not None and like.head_dim == head
    return dataclasses.replace(
        like or HUNYUAN15_DIT,
        in_channels=channels,
        out_channels=out,
        hidden_size=hidden,
        heads=hidden // head,
        rope_dims=like.rope_dims if like is not None and is_like else (head // 8, 7 * head // 16, 7 * head // 16),
        mlp_ratio=shape_of(shapes, "double_blocks.0.img_mlp.fc1.weight", 2)[0] / hidden,
        double_blocks=layers(shapes, "double_blocks"),
        refiner_blocks=layers(shapes, "txt_in.individual_token_refiner.blocks"),
        text_width=shape_of(shapes, "txt_in.input_embedder.weight", 2)[1],
        glyph_widths=(
            shape_of(shapes, "byt5_in.layernorm.weight", 1)[0],
            shape_of(shapes, "byt5_in.fc1.weight", 2)[0],
            shape_of(shapes, "byt5_in.fc2.weight", 2)[0],
        ),
        vision_width=shape_of(shapes, "vision_in.proj.0.weight", 1)[0],
        is_step_distilled="time_r_in.mlp.0.weight" in shapes,
    )


def vae_config(content: Mapping[str, Any]) -> VAEConfig:
    """The autoencoder's configuration, as Tencent or diffusers write it."""
    _class(content, VAE_CLASS, TENCENT_VAE_CLASS)
    return dataclasses.replace(HUNYUAN15_VAE, **_read(content, VAE_FIELDS, HUNYUAN15_VAE))


def vae_content(config: VAEConfig) -> dict[str, Any]:
    """The autoencoder's config file."""
    matches = {"downsample_match_channel": True, "upsample_match_channel": True}
    return {"_class_name": VAE_CLASS, "_diffusers_version": VERSION, **written(config, VAE_FIELDS), **matches}


def infer_vae(shapes: Shapes) -> VAEConfig:
    """The autoencoder's configuration from its tensors under our names."""
    levels = layers(shapes, "encoder.down")
    names = [f"encoder.down.{level}.block.0.conv1.conv.weight" for level in range(levels)]
    return dataclasses.replace(
        HUNYUAN15_VAE,
        in_channels=shape_of(shapes, "encoder.conv_in.conv.weight", 5)[1],
        out_channels=shape_of(shapes, "decoder.conv_out.conv.weight", 5)[0],
        latent_channels=shape_of(shapes, "decoder.conv_in.conv.weight", 5)[1],
        block_out_channels=tuple(shape_of(shapes, name, 5)[0] for name in names),
        layers_per_block=layers(shapes, "encoder.down.0.block"),
    )


def qwen_config(content: Mapping[str, Any]) -> QwenConfig:
    """The language model's configuration, from its own file or that of a model around it."""
    text = content.get("text_config", content)
    kind = str(text.get("model_type", "qwen2_5_vl_text"))
    if not kind.startswith("qwen2"):
        raise CheckpointError(f"config.json describes a model of type {kind!r}, expected Qwen2.5-VL's language model.")
    config = dataclasses.replace(QWEN25_VL_7B, **_read(text, _QWEN, QWEN25_VL_7B))
    return dataclasses.replace(config, head_dim=config.hidden_size // config.heads)


def qwen_content(config: QwenConfig) -> dict[str, Any]:
    """The language model's config file."""
    kind = {"architectures": ["Qwen2_5_VLTextModel"], "model_type": "qwen2_5_vl_text"}
    return kind | written(config, _QWEN) | {"hidden_act": "silu"}


def infer_qwen(shapes: Shapes) -> QwenConfig:
    """The language model's configuration from its tensors; heads are as wide as in the published one."""
    vocab, hidden = shape_of(shapes, "model.embed_tokens.weight", 2)
    first, head = "model.layers.0.", QWEN25_VL_7B.head_dim
    return dataclasses.replace(
        QWEN25_VL_7B,
        hidden_size=hidden,
        mlp_size=shape_of(shapes, f"{first}mlp.gate_proj.weight", 2)[0],
        layers=layers(shapes, "model.layers"),
        heads=head_count(shape_of(shapes, f"{first}self_attn.q_proj.weight", 2)[0], head, "the language model"),
        kv_heads=head_count(shape_of(shapes, f"{first}self_attn.k_proj.weight", 2)[0], head, "the language model"),
        vocab_size=vocab,
    )


def t5_config(content: Mapping[str, Any]) -> T5Config:
    """The encoder's configuration."""
    return dataclasses.replace(GLYPH_BYT5, **_read(content, _T5, GLYPH_BYT5))


def t5_content(config: T5Config) -> dict[str, Any]:
    """The encoder's config file."""
    kind = {"architectures": ["T5EncoderModel"], "model_type": "t5", "feed_forward_proj": "gated-gelu"}
    return kind | written(config, _T5) | {"is_encoder_decoder": False, "pad_token_id": 0, "eos_token_id": 1}


def infer_t5(shapes: Shapes) -> T5Config:
    """The encoder's configuration from its tensors, which tell all but the farthest distance."""
    first = "block.0.layer.0.SelfAttention."
    buckets, heads = shape_of(shapes, f"{first}relative_attention_bias.weight", 2)
    inner, hidden = shape_of(shapes, f"{first}q.weight", 2)
    return dataclasses.replace(
        GLYPH_BYT5,
        hidden_size=hidden,
        head_dim=inner // heads,
        mlp_size=shape_of(shapes, "block.0.layer.1.DenseReluDense.wi_0.weight", 2)[0],
        layers=layers(shapes, "block"),
        heads=heads,
        vocab_size=shape_of(shapes, "embed_tokens.weight", 2)[0],
        position_buckets=buckets,
    )


def siglip_config(content: Mapping[str, Any]) -> ClipVisionConfig:
    """The vision tower's configuration, from its own file or that of a model around it."""
    vision = content.get("vision_config", content)
    kind = str(vision.get("model_type", "siglip_vision_model"))
    if not kind.startswith("siglip"):
        raise CheckpointError(f"config.json describes a model of type {kind!r}, expected SigLIP's vision tower.")
    return dataclasses.replace(SIGLIP_SO400M, **_read(vision, _SIGLIP, SIGLIP_SO400M))


def siglip_content(config: ClipVisionConfig) -> dict[str, Any]:
    """The vision tower's config file."""
    return {"architectures": ["SiglipVisionModel"], "model_type": "siglip_vision_model"} | written(config, _SIGLIP)


def infer_siglip(shapes: Shapes) -> ClipVisionConfig:
    """The vision tower's configuration from its tensors; heads are as wide as in the published one."""
    hidden, _, patch, _ = shape_of(shapes, "vision_model.embeddings.patch_embedding.weight", 4)
    patches = shape_of(shapes, "vision_model.embeddings.position_embedding.weight", 2)[0]
    side = math.isqrt(patches) * patch
    published = SIGLIP_SO400M
    return dataclasses.replace(
        published,
        hidden_size=hidden,
        mlp_size=shape_of(shapes, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        layers=layers(shapes, "vision_model.encoder.layers"),
        heads=head_count(hidden, SIGLIP_HEAD, "the vision tower"),
        # The last pixels of the published side are in no patch.
        image_size=published.image_size if (patch, patches) == (published.patch_size, published.patches) else side,
        patch_size=patch,
    )
