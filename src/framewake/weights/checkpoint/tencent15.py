"""The ``config.json`` files of HunyuanVideo-1.5's transformer and autoencoder as Tencent's classes read them.

Source: specification of 1.5, section 2.1.
"""

from __future__ import annotations

from typing import Any

from framewake.config import VAEConfig
from framewake.config15 import HUNYUAN15_DIT, DiT15Config
from framewake.weights.checkpoint.configs15 import (
    DIT_FIELDS,
    TENCENT_DIT_CLASS,
    TENCENT_VAE_CLASS,
    VAE_FIELDS,
    inner_content,
    tiles_content,
    written,
)

# The same in all published files.
_FACTS = {
    "mm_single_blocks_depth": 0,
    "mlp_act_type": "gelu_tanh",
    "concat_condition": True,
    "qkv_bias": True,
    "qk_norm": True,
    "qk_norm_type": "rms",
    "guidance_embed": False,
    "text_projection": "single_refiner",
    "text_states_dim_2": None,
    "text_pool_type": None,
    "use_attention_mask": True,
    "glyph_byT5_v2": True,
    "vision_projection": "linear",
    "use_cond_type_embedding": True,
    "is_reshape_temporal_channels": False,
}


def dit_content(config: DiT15Config) -> dict[str, Any]:
    """The transformer's; what its class has built in is said where it is another number."""
    fixed = {"num_refiner_layers": config.refiner_blocks, "text_embed_2_dim": config.glyph_widths[0]}
    usual = {"num_refiner_layers": HUNYUAN15_DIT.refiner_blocks, "text_embed_2_dim": HUNYUAN15_DIT.glyph_widths[0]}
    return {
        "_class_name": TENCENT_DIT_CLASS,
        **{name: value for name, value in written(config, DIT_FIELDS, place=-1).items() if name not in fixed},
        **_FACTS,
        "hidden_size": config.hidden_size,
        "in_channels": config.out_channels,
        "patch_size": [1, 1, 1],
        "use_meanflow": config.is_step_distilled,
        "ideal_task": "i2v" if config.needs_picture else "t2v",
        **{name: value for name, value in fixed.items() if value != usual[name]},
        **inner_content(config),
        **({"attn_mode": "flash", "attn_param": None} if config.tiles is None else tiles_content(config.tiles)),
    }


def vae_content(config: VAEConfig) -> dict[str, Any]:
    """The autoencoder's."""
    facts = {"sample_size": 256, "sample_tsize": 64, "shift_factor": None}
    facts |= {"downsample_match_channel": True, "upsample_match_channel": True}
    return {"_class_name": TENCENT_VAE_CLASS, **written(config, VAE_FIELDS, place=-1), **facts}
