"""HunyuanVideo as a family, which class computes which component, and all families."""

from __future__ import annotations

from framewake.models.clip_text import ClipText
from framewake.models.dit import DiT
from framewake.models.llava import Llava
from framewake.models.vae import CausalVAE
from framewake.pipeline.condition import TextReader
from framewake.pipeline.family import Family, LoraTraining, TextEncoder
from framewake.pipeline.forecast import cost
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.weights.checkpoint.hunyuan import CLIP_TEXT, COMPONENTS, LLAVA
from framewake.weights.checkpoint.load import Checkpoint

# Endings of the modules that the published LoRAs adapt (specification, sections 9 and 10.4).
ADAPTED = (
    "linear",
    "linear1",
    "linear2",
    "fc1",
    "fc2",
    "img_attn_qkv",
    "img_attn_proj",
    "txt_attn_qkv",
    "txt_attn_proj",
)

HUNYUAN = Family(
    components=COMPONENTS,
    transformer=DiT,
    autoencoder=CausalVAE,
    encoders=(
        TextEncoder(
            LLAVA,
            Llava,
            work_bytes=cost.text_bytes,
            operations=cost.text_operations,
            layers=lambda config: config.text.layers + config.vision.layers,
        ),
        TextEncoder(
            CLIP_TEXT,
            ClipText,
            work_bytes=cost.pooled_bytes,
            operations=lambda config, parameters, tokens: 0.0,  # a thousandth of the other's
            layers=lambda config: config.layers,
        ),
    ),
    reader=TextReader,
    trained=LoraTraining(
        modules=tuple(f"*.{ending}" for ending in ADAPTED),
        flow_shift=7.0,
        picture_drop=0.1,
        version="hunyuan_video",
        architecture="hunyuan-video/lora",
        network="networks.lora",
    ),
)
FAMILIES = (HUNYUAN, HUNYUAN15)


def family_of(checkpoint: Checkpoint) -> Family:
    """The family whose components a checkpoint has."""
    return next(family for family in FAMILIES if family.components is checkpoint.layout.components)
