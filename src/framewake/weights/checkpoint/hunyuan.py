"""The components of HunyuanVideo's checkpoints, for pictures and for text: a row each.

Source: specification, sections 3.3, 4.1, 4.2, 7.1, 7.2 and 8.1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from framewake.config import ClipTextConfig, DiTConfig, LlavaConfig, VAEConfig
from framewake.weights.checkpoint import configs, diffusers, inferred
from framewake.weights.checkpoint.component import Component, Hints, Tower, table
from framewake.weights.reading import names
from framewake.weights.reading.mapped import Shapes

DIFFUSERS_MARK = "x_embedder.proj.weight"  # in a transformer with diffusers' names


def _dit_rules(held: Iterable[str], config: DiTConfig | None) -> list[names.NameRule]:
    held = tuple(held)
    return names.comfy_dit(held) if config is None or DIFFUSERS_MARK not in held else names.diffusers_dit(config)


def _infer_dit(shapes: Shapes, hints: Hints) -> DiTConfig:
    """Text-to-video and picture-to-video have the same tensors; what a folder says of its own holds for a file too."""
    like: DiTConfig | None = hints.like
    if like is not None and DIFFUSERS_MARK in shapes:
        return like
    condition = hints.condition if like is None or like.joins_picture else like.condition
    return inferred.dit_config(shapes, condition, like=like)


DIT: Component[DiTConfig] = Component(
    name="dit",
    word="transformer",
    role="transformer",
    flag="dit",
    folder="transformer",
    library="diffusers",
    kind=diffusers.DIT_CLASS,
    tencent="{model}/transformers/mp_rank_00_model_states.pt",
    read=diffusers.dit_config,
    infer=_infer_dit,
    write=diffusers.dit_content,
    marks=("img_in.proj.weight", DIFFUSERS_MARK),
    is_told=True,
    rules=_dit_rules,
    diffusers=names.diffusers_dit,
    diffusers_sizes=inferred.dit_sizes,
    told=(
        *("in_channels", "out_channels", "hidden_size", "double_blocks", "single_blocks", "refiner_blocks"),
        *("text_width", "pooled_width", "patch_size", "mlp_ratio", "has_guidance"),
    ),
    meets=lambda config: {
        "text": ("the transformer's text width", config.text_width),
        "pooled": ("the transformer's pooled width", config.pooled_width),
        "latents": ("the transformer's latents", config.out_channels),
    },
    prefixes=("", "model.diffusion_model.", "diffusion_model.", "model.model.", "transformer.", "model."),
    gguf=("hyvid",),
    narrow="BF16",
    torch_key="module",
    scales_flag="dit-scales",
)


def _read_vae(content: Mapping[str, Any]) -> VAEConfig:
    is_original = content.get("_class_name") == diffusers.ORIGINAL_VAE
    return (diffusers.original_vae_config if is_original else diffusers.vae_config)(content)


VAE: Component[VAEConfig] = Component(
    name="vae",
    word="autoencoder",
    role="autoencoder",
    flag="vae",
    folder="vae",
    library="diffusers",
    kind=diffusers.VAE_CLASS,
    tencent="{model}/vae/pytorch_model.pt",
    read=_read_vae,
    infer=lambda shapes, hints: inferred.vae_config(shapes),
    write=diffusers.vae_content,
    write_tencent=diffusers.original_vae_content,
    marks=("decoder.conv_in.conv.weight",),
    told=("in_channels", "out_channels", "latent_channels", "block_out_channels", "layers_per_block"),
    meets=lambda config: {"latents": ("the autoencoder's", config.latent_channels)},
    prefixes=("vae.", "first_stage_model.", ""),  # a file may hold other parts as well
)


def _read_llava(content: Mapping[str, Any]) -> LlavaConfig:
    """LLaVA, or the language model of it that is all of the text-to-video release's text encoder."""
    if content.get("model_type") == "llama":
        return inferred.text_only(configs.llama_config(content))
    return configs.llava_config(content)


LLAVA: Component[LlavaConfig] = Component(
    name="llava",
    word="LLaVA text encoder",
    role="large text encoder",
    flag="llava",
    folder="text_encoder",
    library="transformers",
    kind="LlavaForConditionalGeneration",
    tencent="{encoder}/model.safetensors",
    read=_read_llava,
    infer=lambda shapes, hints: (inferred.tower_config if hints.is_tower else inferred.llava_config)(shapes),
    write=configs.llava_content,
    marks=("embed_tokens.weight", "token_embd.weight"),
    rules=lambda held, config: names.llava(held),
    told=("text.hidden_size", "text.mlp_size", "text.layers", "text.vocab_size"),
    meets=lambda config: {"text": ("LLaVA's width", config.text.hidden_size)},
    gguf=("llama", "clip"),
    unused=(
        r"language_model\.lm_head\.weight",
        r"language_model\.model\.norm\.weight",
        r"language_model\.model\.layers\.\d+\..*",
        r"language_model\.model\..*rotary_emb\.inv_freq",
        r"vision_tower\.vision_model\.post_layernorm\.(weight|bias)",
        r"vision_tower\.vision_model\.encoder\.layers\.\d+\..*",
        r"vision_tower\.vision_model\.embeddings\.position_ids",
    ),
    stack=("language_model.model.layers", "text.layers"),
    narrow="BF16",
    # Not LlamaTokenizerFast: transformers 5 would rebuild it as a Llama 2 tokenizer, with other ids.
    tokenizer=("tokenizer", "PreTrainedTokenizerFast"),
    tower=Tower(
        word="LLaVA vision tower",
        flag="llava-vision",
        marks=("embeddings.patch_embedding.weight", "v.patch_embd.weight"),
        starts=("vision_tower.", "multi_modal_projector."),
        rest="language_model.",
        is_in=lambda config: config.image_token_id >= 0,
        side_px=lambda config: config.vision.image_size,
        advice="Add it with --part llava-vision=FILE, or take a LLaVA encoder that has both with --part llava=FILE.",
    ),
)

CLIP_TEXT: Component[ClipTextConfig] = Component(
    name="clip_text",
    word="CLIP text encoder",
    role="small text encoder",
    flag="clip",
    folder="text_encoder_2",
    library="transformers",
    kind="CLIPTextModel",
    tencent="text_encoder_2/model.safetensors",
    read=configs.clip_text_config,
    infer=lambda shapes, hints: inferred.clip_text_config(shapes),
    write=configs.clip_text_content,
    marks=("embeddings.token_embedding.weight",),
    rules=lambda held, config: names.clip_text(held),
    told=("hidden_size", "mlp_size", "layers", "vocab_size", "max_positions"),
    meets=lambda config: {"pooled": ("CLIP's width", config.hidden_size)},
    unused=(  # the folder of a whole CLIP model has its other half as well
        r"text_model\.embeddings\.position_ids",
        r"vision_model\..*",
        r"(text_projection|visual_projection)\.weight",
        r"logit_scale",
    ),
    tokenizer=("tokenizer_2", "CLIPTokenizer"),
)

COMPONENTS = table(DIT, VAE, LLAVA, CLIP_TEXT)
