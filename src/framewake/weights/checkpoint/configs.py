"""Model shapes from the ``config.json`` files of published text encoders, and such files from them.

Those files leave out what equals a default of the class that wrote them, so the defaults are part of
the format and stand here.  Old and new spellings are read, and the short ones of golden folders
("text", "vision").
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framewake.config import ClipTextConfig, ClipVisionConfig, LlamaConfig, LlavaConfig
from framewake.errors import CheckpointError
from framewake.weights.checkpoint.diffusers import is_size, renamed, written

_LLAMA_DEFAULTS: dict[str, Any] = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "vocab_size": 32000,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
}
_CLIP_VISION_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
# A LLaVA file without any vision part means the large tower at 336 pixels.
_LLAVA_VISION_DEFAULTS = _CLIP_VISION_DEFAULTS | {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
}
_CLIP_TEXT_DEFAULTS: dict[str, Any] = {
    "hidden_size": 512,
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "vocab_size": 49408,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "eos_token_id": 49407,
}
_LLAVA_DEFAULTS: dict[str, Any] = {
    "image_token_index": 32000,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}
_STRATEGIES = {"default": True, "full": False}
# What these files call our fields, where it is not the same.
_OURS = {
    "intermediate_size": "mlp_size",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "num_key_value_heads": "kv_heads",
    "max_position_embeddings": "max_positions",
    "hidden_act": "activation",
    "rms_norm_eps": "norm_eps",
    "layer_norm_eps": "norm_eps",
}


def llava_config(raw: Mapping[str, Any]) -> LlavaConfig:
    """LLaVA's shape from the content of its ``config.json``.

    Raises: CheckpointError for another model, or a feature of one that is not built here.
    """
    _expect_type(raw, "llava")
    values = _filled(raw, _LLAVA_DEFAULTS)
    text = values.get("text_config", values.get("text", {}))
    _expect_type(text, "llama")
    strategy = values["vision_feature_select_strategy"]
    if strategy not in _STRATEGIES:
        raise CheckpointError(f"vision_feature_select_strategy is {strategy!r}; expected 'default' or 'full'.")
    if values.get("multimodal_projector_bias") is False:
        raise CheckpointError("multimodal_projector_bias is false; only a projector with biases is supported.")
    pad = values.get("pad_token_id", _given(text).get("pad_token_id", -1))
    return LlavaConfig(
        text=llama_config(text),
        vision=clip_vision_config(values.get("vision_config", values.get("vision"))),
        projector_activation=values["projector_hidden_act"],
        image_token_id=values.get("image_token_id", values["image_token_index"]),
        pad_token_id=pad,
        vision_feature_layer=values["vision_feature_layer"],
        drops_class_token=_STRATEGIES[strategy],
    )


def llama_config(raw: Mapping[str, Any]) -> LlamaConfig:
    """The language model's shape.

    Raises: CheckpointError for scaled rotary positions, biases or another activation.
    """
    _expect_type(raw, "llama")
    values = _filled(raw, _LLAMA_DEFAULTS)
    rope = {"rope_theta": values["rope_theta"], **_given(values.get("rope_parameters") or {})}
    scaling = {**rope, **_given(values.get("rope_scaling") or {})}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind != "default":
        raise CheckpointError(f"the language model scales its rotary positions ({kind!r}); expected 'default'.")
    if values.get("attention_bias") or values.get("mlp_bias"):
        raise CheckpointError("the language model has biases in its layers; expected a Llama model without them.")
    if values["hidden_act"] != "silu":
        raise CheckpointError(f"the language model's activation is {values['hidden_act']!r}; expected 'silu'.")
    heads = values["num_attention_heads"]
    values = _filled(values, {"num_key_value_heads": heads, "head_dim": values["hidden_size"] // heads})
    return renamed(LlamaConfig, values | {"rope_theta": float(rope["rope_theta"])}, _OURS)


def clip_vision_config(raw: Mapping[str, Any] | None) -> ClipVisionConfig:
    """The vision tower's shape; ``None`` is the tower of a LLaVA file that does not describe one."""
    _expect_type({} if raw is None else raw, "clip_vision_model")
    values = _LLAVA_VISION_DEFAULTS if raw is None else _filled(raw, _CLIP_VISION_DEFAULTS)
    return renamed(ClipVisionConfig, values, _OURS)


def clip_text_config(raw: Mapping[str, Any]) -> ClipTextConfig:
    """CLIP text's shape, from its own file or from that of a whole CLIP model (``text_config`` inside)."""
    if "text_config" in raw:
        _expect_type(raw, "clip")
        raw = raw["text_config"]
    _expect_type(raw, "clip_text_model")
    values = _filled(raw, _CLIP_TEXT_DEFAULTS)
    return renamed(ClipTextConfig, values, _OURS)


def llava_content(config: LlavaConfig) -> dict[str, Any]:
    """LLaVA's config file."""
    text, vision = config.text, config.vision
    sizes = (*_LLAMA_DEFAULTS, "num_key_value_heads", "head_dim")
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
            **written(text, sizes, _OURS),
            "hidden_act": "silu",
            "max_position_embeddings": 8192,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **written(vision, _CLIP_VISION_DEFAULTS, _OURS),
            "projection_dim": vision.hidden_size,
        },
    }


def clip_text_content(config: ClipTextConfig) -> dict[str, Any]:
    """CLIP text's config file."""
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        **written(config, _CLIP_TEXT_DEFAULTS, _OURS),
        "projection_dim": config.hidden_size,
    }


def _given(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What a file really says: null means that the default holds."""
    return {name: value for name, value in raw.items() if value is not None}


def _filled(raw: Mapping[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """What a file says over the defaults, each value of the kind of its default.

    Raises: CheckpointError for a value of another kind, and a size below 1.
    """
    values = {**defaults, **_given(raw)}
    for name, default in defaults.items():
        value = values[name]
        is_number = isinstance(default, float) and type(value) is int
        is_bounded = isinstance(default, int | float) and default > 0 and not name.endswith(("_id", "_index"))
        if (type(value) is not type(default) and not is_number) or (is_bounded and not is_size(name, value)):
            raise CheckpointError(f"config.json says {name} is {value!r}; expected a value like {default!r}.")
        values[name] = float(value) if is_number else value
    return values


def _expect_type(raw: Mapping[str, Any], expected: str) -> None:
    if not isinstance(raw, Mapping):
        raise CheckpointError(f"config.json has {raw!r} in place of an object that describes a {expected!r}.")
    found = raw.get("model_type", expected)
    if found != expected:
        raise CheckpointError(
            f"config.json describes a model of type {found!r}, expected {expected!r}; "
            "point to the folder of the right text encoder."
        )
