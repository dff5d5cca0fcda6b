"""The components of HunyuanVideo-1.5's checkpoints: a row each, and which variant a checkpoint is.

Source: specification of 1.5, sections 2 to 5.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from framewake.config import ClipVisionConfig, Condition, VAEConfig
from framewake.config15 import HUNYUAN15_TILING, TILES, VARIANTS, DiT15Config, QwenConfig, T5Config
from framewake.errors import CheckpointError, InputError
from framewake.shapes import RESOLUTIONS_15
from framewake.weights.checkpoint import configs15, tencent15
from framewake.weights.checkpoint.component import LARGER_DIT, Component, Facts, Hints, Whereabouts, table
from framewake.weights.checkpoint.settings import Settings
from framewake.weights.checkpoint.upsampler15 import ENLARGEMENTS, UPSAMPLER, check_enlarging
from framewake.weights.reading import names, names15
from framewake.weights.reading.files import read_json
from framewake.weights.reading.mapped import Shapes
from framewake.weights.reading.storage import Tensors

NAME = "HunyuanVideo-1.5"
HALF = (0.5, 0.5, 0.5)
PIPELINES = ("HunyuanVideo15ImageToVideoPipeline", "HunyuanVideo15Pipeline")
DIFFUSERS_MARK = "cond_type_embed.weight"  # in a transformer with diffusers' names
_FOLDERS = {640: "480p", 960: "720p"}


def _dit_rules(held: Iterable[str], config: DiT15Config | None) -> list[names.NameRule]:
    held = tuple(held)
    if config is not None and DIFFUSERS_MARK in held:
        return names15.diffusers_dit(config)
    return names15.tencent_dit(held, 0 if config is None else config.hidden_size)


def _infer_dit(shapes: Shapes, hints: Hints) -> DiT15Config:
    """What a folder says of its own transformer holds for a file too, where its names tell nothing."""
    if DIFFUSERS_MARK in shapes:
        if hints.like is None:
            raise CheckpointError("a transformer in diffusers' names comes with a config.json, which is not there.")
        found: DiT15Config = hints.like
        return found
    return configs15.infer_dit(shapes, hints.like)


def _enlarges(file: Tensors) -> bool:
    """Whether a transformer sees a smaller clip and its mask beside what the others see."""
    ends = (".img_in.proj.weight", ".x_embedder.proj.weight"), (".final_layer.linear.weight", ".proj_out.weight")
    sizes = [file.shape(name) for end in ends for name in file.names() if f".{name}".endswith(end)]
    return len(sizes) == 2 and len(sizes[0]) == 5 and sizes[0][1] == 3 * sizes[1][0] + 2


DIT: Component[DiT15Config] = Component(
    name="dit",
    word="transformer",
    role="transformer",
    flag="dit",
    folder="transformer",
    library="diffusers",
    kind=configs15.DIT_CLASS,
    tencent="{model}/diffusion_pytorch_model.safetensors",
    read=configs15.dit_config,
    infer=_infer_dit,
    write=configs15.dit_content,
    write_tencent=tencent15.dit_content,
    marks=("cond_type_embedding.weight", DIFFUSERS_MARK),
    is_told=True,
    rules=_dit_rules,
    diffusers=names15.diffusers_dit,
    published=names15.published_dit,
    told=(
        *("in_channels", "out_channels", "hidden_size", "double_blocks", "refiner_blocks", "text_width"),
        *("mlp_ratio", "glyph_widths", "vision_width", "is_step_distilled"),
    ),
    meets=lambda config: {
        "text": ("the transformer's text width", config.text_width),
        "glyphs": ("the transformer's width of quoted text", config.glyph_widths[0]),
        "vision": ("the transformer's width of pictures", config.vision_width),
        "latents": ("the transformer's latents", config.out_channels),
    },
    prefixes=("", "model.diffusion_model.", "diffusion_model.", "model.model.", "transformer.", "model."),
    narrow="BF16",
    torch_key="module",
    scales_flag="dit-scales",
    is_own=lambda file: not _enlarges(file),
)

LARGER: Component[DiT15Config] = dataclasses.replace(
    DIT,
    name=LARGER_DIT,
    word="super-resolution transformer",
    role="super-resolution transformer",
    flag="sr-dit",
    folder="sr_transformer",
    kind="",
    tencent="transformer/{larger}/diffusion_pytorch_model.safetensors",
    read=configs15.larger_dit_config,
    meets=lambda config: {
        "text": ("the super-resolution transformer's text width", config.text_width),
        "glyphs": ("its width of quoted text", config.glyph_widths[0]),
        "vision": ("its width of pictures", config.vision_width),
        "latents": ("its latents", config.out_channels),
    },
    scales_flag="sr-dit-scales",
    is_own=_enlarges,
    is_measured=True,
)

VAE: Component[VAEConfig] = Component(
    name="vae",
    word="autoencoder",
    role="autoencoder",
    flag="vae",
    folder="vae",
    library="diffusers",
    kind=configs15.VAE_CLASS,
    tencent="vae/diffusion_pytorch_model.safetensors",
    read=configs15.vae_config,
    infer=lambda shapes, hints: configs15.infer_vae(shapes),
    write=configs15.vae_content,
    write_tencent=tencent15.vae_content,
    marks=("decoder.mid.block_1.norm1.gamma", "decoder.mid_block.resnets.0.norm1.gamma"),
    rules=lambda held, config: names15.vae(held),
    diffusers=names15.diffusers_vae,
    told=("in_channels", "out_channels", "latent_channels", "block_out_channels", "layers_per_block"),
    meets=lambda config: {"latents": ("the autoencoder's", config.latent_channels)},
    prefixes=("vae.", "first_stage_model.", ""),
)

QWEN: Component[QwenConfig] = Component(
    name="qwen",
    word="Qwen text encoder",
    role="large text encoder",
    flag="qwen",
    folder="text_encoder",
    library="transformers",
    kind="Qwen2_5_VLTextModel",
    tencent="text_encoder/llm/model.safetensors",
    read=configs15.qwen_config,
    infer=lambda shapes, hints: configs15.infer_qwen(shapes),
    write=configs15.qwen_content,
    marks=("model.layers.0.self_attn.q_proj.bias",),  # a vision tower has such layers below another name
    rules=lambda held, config: names15.qwen(held),
    told=("hidden_size", "mlp_size", "layers", "vocab_size"),
    meets=lambda config: {"text": ("the language model's width", config.hidden_size)},
    unused=(r"lm_head\.weight", r"model\.norm\.weight", r"model\.layers\.\d+\..*", r"visual\..*"),
    stack=("model.layers", "layers"),
    narrow="BF16",
    tokenizer=("tokenizer", "Qwen2TokenizerFast"),
)

BYT5: Component[T5Config] = Component(
    name="byt5",
    word="byT5 text encoder",
    role="encoder of quoted text",
    flag="byt5",
    folder="text_encoder_2",
    library="transformers",
    kind="T5EncoderModel",
    tencent="text_encoder/Glyph-SDXL-v2/checkpoints/byt5_model.pt",
    read=configs15.t5_config,
    infer=lambda shapes, hints: configs15.infer_t5(shapes),
    write=configs15.t5_content,
    marks=tuple(f"{start}block.0.layer.0.SelfAttention.relative_attention_bias.weight" for start in ("", "encoder.")),
    is_told=True,
    rules=lambda held, config: names15.t5(held),
    diffusers=names15.diffusers_t5,
    published=names15.published_t5,
    told=("hidden_size", "head_dim", "mlp_size", "layers", "heads", "vocab_size", "position_buckets"),
    meets=lambda config: {"glyphs": ("byT5's width", config.hidden_size)},
    prefixes=("", "module.text_tower.encoder.", "text_tower.encoder."),
    unused=("shared.weight",),
    torch_key="state_dict",
)

SIGLIP: Component[ClipVisionConfig] = Component(
    name="siglip",
    word="SigLIP vision tower",
    role="vision encoder",
    flag="siglip",
    folder="image_encoder",
    library="transformers",
    kind="SiglipVisionModel",
    tencent="vision_encoder/siglip/image_encoder/model.safetensors",
    read=configs15.siglip_config,
    infer=lambda shapes, hints: configs15.infer_siglip(shapes),
    write=configs15.siglip_content,
    marks=("vision_model.embeddings.patch_embedding.bias",),
    told=("hidden_size", "mlp_size", "layers", "image_size", "patch_size"),
    meets=lambda config: {"vision": ("SigLIP's width", config.hidden_size)},
    unused=(r"vision_model\.head\..*", r"text_model\..*", r"logit_(scale|bias)"),
    picture_px=lambda config: config.image_size,
)


def model_folder(dit: DiT15Config, settings: Settings) -> str:
    """The folder of a transformer in Tencent's tree, which is called after its variant.

    Raises: InputError for a transformer that is none of the published ones.
    """
    for name in _fitting(dit):
        variant = VARIANTS[name]
        if variant.resolution in settings.resolutions and variant.guidance == settings.guidance_scale:
            return f"transformer/{name}"
    raise InputError(
        f"{settings.name} is like no published variant, after which Tencent's layout calls its folder: choose "
        "diffusers or framewake."
    )


def described(settings: Settings, layout: str) -> dict[str, Any]:
    """The size of clips, as the transformer's ``config.json`` says it."""
    name = next(iter(settings.resolutions))
    return {"ideal_resolution": name} if layout == "tencent" else {"target_size": settings.resolutions[name]}


def settings_of(configs: dict[str, Any], places: Whereabouts) -> Settings:
    """What a published variant does where a request says nothing.

    Raises: CheckpointError where nothing tells which variant it is, and for another one than it is called.
    """
    index = places.root / "model_index.json"
    kind = read_json(index).get("_class_name") if index.is_file() else None
    if kind == PIPELINES[1]:  # a published transformer for text alone says that it is for pictures
        configs["dit"] = dataclasses.replace(configs["dit"], condition="none")
    name = places.variant or _variant(configs["dit"], places)
    variant, is_sparse, dit = VARIANTS[name], name.endswith("_sparse"), configs["dit"]
    if places.is_single or not places.config.is_file():  # no tensor tells
        condition: Condition = "latent_concat" if variant.task == "i2v" else "none"
        tiles = (dit.tiles or TILES) if is_sparse else None
        dit = configs["dit"] = dataclasses.replace(dit, condition=condition, tiles=tiles)
    if name not in _fitting(dit):
        raise CheckpointError(
            f"{places.transformer} is called {name}, and its {'tensors are' if places.is_single else 'config.json is'} "
            "another variant's."
        )
    return Settings(
        name=f"{NAME} {name}",
        resolutions={variant.resolution: RESOLUTIONS_15[variant.resolution]},
        frames=121,
        steps=variant.steps,
        flow_shift=variant.flow_shift,
        guidance_scale=variant.guidance,
        text_tokens=1000,
        negative_prompt="",
        tiling=HUNYUAN15_TILING,
        enlargement=ENLARGEMENTS[variant.resolution],
    )


def _variant(dit: DiT15Config, places: Whereabouts) -> str:
    """The name of a checkpoint's variant: of its transformer's file or folder, or as diffusers' files say it."""
    found = named_variant(places.transformer, is_step_distilled=dit.is_step_distilled)
    if found is None and not places.is_single:
        found = _described_variant(dit, places)
    if found is None:
        raise CheckpointError(
            f"{places.transformer} does not say which variant it is, and its tensors are the same in all: call it or "
            f"its folder after one, or add --part variant=NAME: {', '.join(VARIANTS)}."
        )
    return found


def _fitting(dit: DiT15Config) -> list[str]:
    """The variants that a configuration may be of."""
    return [
        name
        for name, variant in VARIANTS.items()
        if (variant.task == "i2v", "_step_" in name, name.endswith("_sparse"))
        == (dit.needs_picture, dit.is_step_distilled, dit.tiles is not None)
    ]


def is_called_variant(name: str) -> bool:
    """Whether a folder is called like a transformer's that makes clips; one that enlarges them comes beside it."""
    return re.match(r"(480p|720p)_[it]2v", name) is not None


def named_variant(path: Path, *, is_step_distilled: bool) -> str | None:
    """The variant after which a file or one of the two folders around it is called."""
    for name in (path.name, path.parent.name, path.parent.parent.name):
        match = re.search(r"(480p|720p)_([it]2v)(?:_(cfg|step))?(_distilled)?(_sparse)?", name)
        if match is None:
            continue
        kind = "_step" if match[3] == "step" else ""
        found = f"{match[1]}_{match[2]}{kind}{match[4] or ''}{match[5] or ''}"
        if found in VARIANTS and ("step" in found) == is_step_distilled:
            return found
    return None


def _described_variant(dit: DiT15Config, places: Whereabouts) -> str | None:
    """What diffusers' files say: size and task beside the transformer, guidance in a file of its own."""
    content = read_json(places.config) if places.config.is_file() else {}
    resolution = _FOLDERS.get(content.get("target_size", 0), content.get("ideal_resolution"))
    guider = places.root / "guider" / "guider_config.json"
    if resolution not in _FOLDERS.values():
        return None
    kind = "_step_distilled"
    if not dit.is_step_distilled:
        if not guider.is_file():
            return None
        kind = "_distilled" if read_json(guider).get("guidance_scale") == 1 else ""
        kind += "_sparse" if dit.tiles is not None else ""
    found = f"{resolution}_{'i2v' if dit.needs_picture else 't2v'}{kind}"
    return found if found in VARIANTS else None


COMPONENTS = table(
    DIT,
    VAE,
    QWEN,
    BYT5,
    SIGLIP,
    UPSAMPLER,
    LARGER,
    facts=Facts(
        name=NAME,
        tree="variants",
        model=model_folder,
        processor="vision_encoder/siglip/feature_extractor",
        described=described,
        pipelines=PIPELINES,
        image_processor=("feature_extractor", "SiglipImageProcessor"),
        colours=(HALF, HALF),
        settings=settings_of,
        optional=(SIGLIP.name, UPSAMPLER.name, LARGER.name),
        variants=tuple(VARIANTS),
        has_guider=True,
        advice="Add it with --part siglip=FILE.",
        check_enlarging=check_enlarging,
    ),
)
