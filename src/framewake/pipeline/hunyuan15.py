"""HunyuanVideo-1.5 as a family: which class computes which component."""

from __future__ import annotations

from framewake.config import ClipVisionConfig
from framewake.config15 import QwenConfig, T5Config
from framewake.models.dit15 import DiT15
from framewake.models.qwen import Qwen
from framewake.models.siglip import Siglip
from framewake.models.t5 import T5Encoder
from framewake.models.upsampler import upsampler_of
from framewake.models.vae15 import CellVAE
from framewake.pipeline.condition15 import Reader15
from framewake.pipeline.family import Family, LoraTraining, TextEncoder
from framewake.pipeline.forecast import cost
from framewake.text.glyph import LIMIT
from framewake.weights.checkpoint.component import LARGER_DIT, UPSAMPLER
from framewake.weights.checkpoint.hunyuan15 import BYT5, COMPONENTS, QWEN, SIGLIP


def _qwen_bytes(config: QwenConfig, scene: cost.Scene, dtype: str, is_composed: bool) -> int:
    return cost.language_bytes(config, scene, dtype, is_composed)


def _byt5_bytes(config: T5Config, scene: cost.Scene, dtype: str, is_composed: bool) -> int:
    states = (6 * config.hidden_size + 3 * config.mlp_size) * LIMIT * cost.BYTES[dtype]
    return states + 3 * config.heads * LIMIT**2 * cost.BYTES["float32"]


def _siglip_bytes(config: ClipVisionConfig, scene: cost.Scene, dtype: str, is_composed: bool) -> int:
    states = (6 * config.hidden_size + 3 * config.mlp_size) * config.patches * cost.BYTES[dtype]
    return states + (cost.scores_bytes(config.heads, config.patches, dtype) if is_composed else 0)


def _qwen_operations(config: QwenConfig, parameters: int, tokens: int) -> float:
    return 2.0 * max(parameters - config.vocab_size * config.hidden_size, 0) * tokens


HUNYUAN15 = Family(
    components=COMPONENTS,
    transformer=DiT15,
    autoencoder=CellVAE,
    encoders=(
        TextEncoder(QWEN, Qwen, _qwen_bytes, _qwen_operations, layers=lambda config: config.layers),
        TextEncoder(
            BYT5,
            T5Encoder,
            _byt5_bytes,
            operations=lambda config, parameters, tokens: 2.0 * parameters * LIMIT,
            layers=lambda config: config.layers,
        ),
        TextEncoder(
            SIGLIP,
            Siglip,
            _siglip_bytes,
            operations=lambda config, parameters, tokens: 2.0 * parameters * config.patches,
            layers=lambda config: config.layers,
        ),
    ),
    reader=Reader15,
    enlarging={UPSAMPLER: upsampler_of, LARGER_DIT: DiT15},
    trained=LoraTraining(
        # As Tencent's trainer, but for the timestep's embedder: 2 of its 780 modules.
        modules=("double_blocks.*", "txt_in.*", "byt5_in.*", "vision_in.*", "final_layer.*"),
        flow_shift=3.0,
        picture_drop=None,
        version="hunyuan_video_1_5",
        architecture="hunyuan-video-1.5/lora",
        network="networks.lora_hv_1_5",
    ),
)
