"""Model shapes from the shapes of tensors, for files that come without a ``config.json``.

What no shape tells (the number of heads, norm groups, constants) is that of the published models, and where
the published rule cannot hold, the file is refused.
Source: specification, sections 4.1, 4.2, 4.8, 7.1 and 13.35.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable
from typing import Any

from framewake.config import (
    CLIP_L,
    HUNYUAN_DIT,
    HUNYUAN_VAE,
    LLAVA_LLAMA3_8B,
    ClipTextConfig,
    ClipVisionConfig,
    Condition,
    DiTConfig,
    LlamaConfig,
    LlavaConfig,
    VAEConfig,
)
from framewake.errors import CheckpointError
from framewake.weights.reading.mapped import Shapes

CLIP_HEAD = 64  # channels of a head in every CLIP model


def dit_config(shapes: Shapes, condition: Condition, *, like: DiTConfig | None = None) -> DiTConfig:
    """The transformer's configuration from its published names.

    ``condition`` decides between picture-to-video and text-to-video, whose tensors are the same; the first
    release (33 channels) is recognised by its shape. ``like`` gives the rotary channels where no rule does.
    Raises: CheckpointError when the tensors are those of another model.
    """
    if "x_embedder.proj.weight" in shapes:
        raise CheckpointError(
            "a transformer in diffusers' names comes with a config.json, which is not there: put it beside the file."
        )
    hidden, in_channels, *patch = shape_of(shapes, "img_in.proj.weight", 5)
    head = shape_of(shapes, "double_blocks.0.img_attn_q_norm.weight", 1)[0]
    out_channels = shape_of(shapes, "final_layer.linear.weight", 2)[0] // max(math.prod(patch), 1)
    if in_channels == 2 * out_channels + 1:
        condition = "latent_concat"
    elif in_channels != out_channels:
        raise CheckpointError(
            f"the transformer takes {in_channels} channels and gives {out_channels}; HunyuanVideo's take "
            f"{out_channels}, or {2 * out_channels + 1} in the first release."
        )
    is_like = like is not None and like.head_dim == head
    return DiTConfig(
        patch_size=(patch[0], patch[1], patch[2]),
        in_channels=in_channels,
        out_channels=out_channels,
        hidden_size=hidden,
        heads=hidden // max(head, 1),
        rope_dims=like.rope_dims if like is not None and is_like else _rope_dims(head),
        rope_theta=HUNYUAN_DIT.rope_theta,
        mlp_ratio=shape_of(shapes, "double_blocks.0.img_mlp.fc1.weight", 2)[0] / max(hidden, 1),
        double_blocks=layers(shapes, "double_blocks"),
        single_blocks=layers(shapes, "single_blocks"),
        refiner_blocks=layers(shapes, "txt_in.individual_token_refiner.blocks"),
        text_width=shape_of(shapes, "txt_in.input_embedder.weight", 2)[1],
        pooled_width=shape_of(shapes, "vector_in.in_layer.weight", 2)[1],
        condition=condition,
        has_guidance="guidance_in.mlp.0.weight" in shapes,
    )


def vae_config(shapes: Shapes) -> VAEConfig:
    """The autoencoder's configuration from its published names."""
    levels = layers(shapes, "encoder.down_blocks")
    channels = [shape_of(shapes, f"encoder.down_blocks.{i}.resnets.0.conv1.conv.weight", 5)[0] for i in range(levels)]
    return dataclasses.replace(
        HUNYUAN_VAE,
        in_channels=shape_of(shapes, "encoder.conv_in.conv.weight", 5)[1],
        out_channels=shape_of(shapes, "decoder.conv_out.conv.weight", 5)[0],
        latent_channels=shape_of(shapes, "post_quant_conv.weight", 5)[0],
        block_out_channels=tuple(channels),
        layers_per_block=layers(shapes, "encoder.down_blocks.0.resnets"),
        mid_block_attention="encoder.mid_block.attentions.0.to_q.weight" in shapes,
    )


def llava_config(shapes: Shapes) -> LlavaConfig:
    """LLaVA's configuration from its published names; a file without a vision tower gives one that is never used."""
    text = _llama_config(shapes)
    if not has_vision(shapes):
        return text_only(text)
    return dataclasses.replace(LLAVA_LLAMA3_8B, text=text, vision=_vision_config(shapes))


def tower_config(shapes: Shapes) -> LlavaConfig:
    """The configuration of a vision tower and its projector, whose language model is elsewhere."""
    width = shape_of(shapes, "multi_modal_projector.linear_2.weight", 2)[0]
    text = dataclasses.replace(LLAVA_LLAMA3_8B.text, hidden_size=width)
    return dataclasses.replace(LLAVA_LLAMA3_8B, text=text, vision=_vision_config(shapes))


def dit_sizes(theirs: Shapes) -> dict[str, Any]:
    """Numbers of a transformer's configuration that its tensors tell under diffusers' names; nothing for another."""
    if "x_embedder.proj.weight" not in theirs:
        return {}
    return {
        "double_blocks": layers(theirs, "transformer_blocks"),
        "single_blocks": layers(theirs, "single_transformer_blocks"),
        "hidden_size": theirs["x_embedder.proj.weight"][0],
    }


def text_only(text: LlamaConfig) -> LlavaConfig:
    """A language model alone: no id stands for a picture."""
    return dataclasses.replace(LLAVA_LLAMA3_8B, text=text, image_token_id=-1)


def has_vision(names: Iterable[str]) -> bool:
    """Whether a text encoder brings a vision tower."""
    return any(name.startswith("vision_tower.") for name in names)


def clip_text_config(shapes: Shapes) -> ClipTextConfig:
    """CLIP text's configuration from its published names."""
    vocab, hidden = shape_of(shapes, "text_model.embeddings.token_embedding.weight", 2)
    return dataclasses.replace(
        CLIP_L,
        hidden_size=hidden,
        mlp_size=shape_of(shapes, "text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        layers=layers(shapes, "text_model.encoder.layers"),
        heads=head_count(hidden, CLIP_HEAD, "CLIP"),
        vocab_size=vocab,
        max_positions=shape_of(shapes, "text_model.embeddings.position_embedding.weight", 2)[0],
    )


def layers(shapes: Iterable[str], name: str) -> int:
    """How many numbered things there are below a name."""
    numbers = {int(found.group(1)) for key in shapes if (found := re.match(rf"{re.escape(name)}\.(\d{{1,6}})\.", key))}
    return max(numbers, default=-1) + 1


def _llama_config(shapes: Shapes) -> LlamaConfig:
    model, like = "language_model.model", LLAVA_LLAMA3_8B.text
    vocab, hidden = shape_of(shapes, f"{model}.embed_tokens.weight", 2)
    queries = shape_of(shapes, f"{model}.layers.0.self_attn.q_proj.weight", 2)[0]
    keys = shape_of(shapes, f"{model}.layers.0.self_attn.k_proj.weight", 2)[0]
    return dataclasses.replace(
        like,
        hidden_size=hidden,
        mlp_size=shape_of(shapes, f"{model}.layers.0.mlp.gate_proj.weight", 2)[0],
        layers=layers(shapes, f"{model}.layers"),
        heads=head_count(queries, like.head_dim, "the language model"),
        kv_heads=head_count(keys, like.head_dim, "the language model"),
        vocab_size=vocab,
    )


def _vision_config(shapes: Shapes) -> ClipVisionConfig:
    model = "vision_tower.vision_model"
    hidden, _, patch, _ = shape_of(shapes, f"{model}.embeddings.patch_embedding.weight", 4)
    positions = shape_of(shapes, f"{model}.embeddings.position_embedding.weight", 2)[0]
    return dataclasses.replace(
        LLAVA_LLAMA3_8B.vision,
        hidden_size=hidden,
        mlp_size=shape_of(shapes, f"{model}.encoder.layers.0.mlp.fc1.weight", 2)[0],
        # The tower's last layer is not read, so that some files leave it out.
        layers=layers(shapes, f"{model}.encoder.layers"),
        heads=head_count(hidden, CLIP_HEAD, "the vision tower"),
        image_size=math.isqrt(max(positions - 1, 0)) * patch,
        patch_size=patch,
    )


def shape_of(shapes: Shapes, name: str, dimensions: int) -> tuple[int, ...]:
    """A tensor's shape.

    Raises: CheckpointError where there is none of so many dimensions.
    """
    found = shapes.get(name)
    if found is None or len(found) != dimensions:
        what = "no" if found is None else f"a {len(found)}-dimensional"
        held = ", ".join([*list(shapes)[:3], "..."]) if shapes else "no tensors at all"
        raise CheckpointError(
            f"the file has {what} {name!r} (it has {held}) and there is no config.json beside it: this is "
            "another model, or a format that is not read."
        )
    return found


def head_count(width: int, head: int, what: str) -> int:
    """How many heads of a width there are.

    Raises: CheckpointError where that is no whole number.
    """
    if width % head:
        raise CheckpointError(f"{what} is {width} wide, no multiple of its heads' {head}; add its config.json.")
    return width // head


def _rope_dims(head: int) -> tuple[int, int, int]:
    """An eighth of a head's channels for time, the rest for height and width: (16, 56, 56) of 128."""
    if head % 32:
        raise CheckpointError(f"no rule gives the rotary channels of heads of {head}; a config.json must say them.")
    return (head // 8, 7 * head // 16, 7 * head // 16)
