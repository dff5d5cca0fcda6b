"""Config files of text encoders, as they are published and as they go wrong."""

from __future__ import annotations

import pytest

from framewake.config import CLIP_L, LLAVA_LLAMA3_8B
from framewake.errors import CheckpointError
from framewake.weights.checkpoint import configs

# What the published file says; everything else is left to defaults.
LLAVA = {
    "architectures": ["LlavaForConditionalGeneration"],
    "ignore_index": -100,
    "image_token_index": 128257,
    "model_type": "llava",
    "pad_token_id": 128258,
    "projector_hidden_act": "gelu",
    "text_config": {
        "intermediate_size": 14336,
        "max_position_embeddings": 8192,
        "model_type": "llama",
        "num_key_value_heads": 8,
        "rms_norm_eps": 1e-05,
        "rope_theta": 500000.0,
        "vocab_size": 128320,
    },
    "vision_config": {
        "hidden_size": 1024,
        "image_size": 336,
        "intermediate_size": 4096,
        "model_type": "clip_vision_model",
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "patch_size": 14,
        "projection_dim": 768,
    },
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
}
CLIP_TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}


def with_text(**changes):
    return LLAVA | {"text_config": LLAVA["text_config"] | changes}


def test_the_published_llava():
    assert configs.llava_config(LLAVA) == LLAVA_LLAMA3_8B


def test_new_spelling_of_rotary_positions():
    text = {k: v for k, v in LLAVA["text_config"].items() if k != "rope_theta"}
    text["rope_parameters"] = {"rope_theta": 500000.0, "rope_type": "default"}
    assert configs.llava_config(LLAVA | {"text_config": text}) == LLAVA_LLAMA3_8B


def test_a_file_without_a_vision_part_means_the_large_tower():
    content = {name: value for name, value in LLAVA.items() if name != "vision_config"}
    assert configs.llava_config(content) == LLAVA_LLAMA3_8B


@pytest.mark.parametrize("wrap", [False, True])
def test_the_published_clip(wrap):
    content = CLIP_TEXT | {"eos_token_id": 2, "model_type": "clip_text_model"}
    assert configs.clip_text_config({"model_type": "clip", "text_config": content} if wrap else content) == CLIP_L


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model_type": "llama"}, "of type 'llama', expected 'llava'"),
        (LLAVA | {"vision_feature_select_strategy": "half"}, "'half'; expected 'default' or 'full'"),
        (LLAVA | {"vision_feature_layer": [-2, -3]}, r"is \[-2, -3\]; expected a value like -2"),
        (LLAVA | {"multimodal_projector_bias": False}, "only a projector with biases"),
        (with_text(rope_scaling={"rope_type": "llama3", "factor": 8.0}), "'llama3'"),
        (with_text(rope_scaling={"type": "linear", "factor": 2.0}), "'linear'"),
        (with_text(vocab_size="many"), "vocab_size is 'many'; expected a value like 32000"),
        (with_text(attention_bias=True), "biases in its layers"),
        (with_text(hidden_act="gelu"), "expected 'silu'"),
        (with_text(model_type="mistral"), "of type 'mistral', expected 'llama'"),
        (with_text(num_attention_heads=0), "num_attention_heads is 0"),
        (with_text(num_key_value_heads=[1]), r"num_key_value_heads is \[1\]"),
        (LLAVA | {"text_config": [3]}, r"\[3\] in place of an object"),
        (LLAVA | {"vision_config": 0}, "0 in place of an object"),
        (LLAVA | {"vision_config": {"patch_size": 0}}, "patch_size is 0"),
    ],
)
def test_another_model_is_refused(content, message):
    with pytest.raises(CheckpointError, match=message):
        configs.llava_config(content)
