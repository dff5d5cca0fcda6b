"""Shapes of the demonstration checkpoint's models and how their training starts."""

from __future__ import annotations

import math

import numpy as np

from framewake.config import ClipTextConfig, ClipVisionConfig, DiTConfig, LlamaConfig, LlavaConfig, VAEConfig

RESOLUTION_BASES = {"720p": 128, "540p": 96, "360p": 64}  # side in pixels of each class's square bucket

VAE = VAEConfig(
    in_channels=3,
    out_channels=3,
    latent_channels=16,
    block_out_channels=(16, 32, 64, 96),
    layers_per_block=2,
    norm_groups=4,
    scaling_factor=1.0,  # replaced by the measured one when the encoder is frozen
    spatial_compression=8,
    temporal_compression=4,
    mid_block_attention=True,
)

DIT = DiTConfig(
    patch_size=(1, 2, 2),
    in_channels=16,
    out_channels=16,
    hidden_size=192,
    heads=6,
    rope_dims=(8, 12, 12),
    rope_theta=256.0,
    mlp_ratio=4.0,
    double_blocks=2,
    single_blocks=6,
    refiner_blocks=2,
    text_width=128,
    pooled_width=64,
    condition="token_replace",
    has_guidance=True,
)


def llava(vocab_size: int, image_token_id: int, pad_token_id: int) -> LlavaConfig:
    """The tiny LLaVA: two language layers run, the last two exist because the published layout skips two."""
    return LlavaConfig(
        text=LlamaConfig(
            hidden_size=128,
            mlp_size=256,
            layers=4,
            heads=4,
            kv_heads=2,
            head_dim=32,
            vocab_size=vocab_size,
            norm_eps=1e-5,
            rope_theta=500000.0,
        ),
        vision=ClipVisionConfig(
            hidden_size=64,
            mlp_size=128,
            layers=2,
            heads=2,
            image_size=64,
            patch_size=16,
            activation="quick_gelu",
            norm_eps=1e-5,
        ),
        projector_activation="gelu",
        image_token_id=image_token_id,
        pad_token_id=pad_token_id,
        vision_feature_layer=-2,
        drops_class_token=True,
    )


def clip_text(vocab_size: int) -> ClipTextConfig:
    """The tiny CLIP text encoder."""
    return ClipTextConfig(
        hidden_size=64,
        mlp_size=128,
        layers=2,
        heads=2,
        vocab_size=vocab_size,
        max_positions=77,
        activation="quick_gelu",
        norm_eps=1e-5,
        eos_token_id=2,
    )


def start_vae(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """First weights of the autoencoder: N(0, 2 / fan_in), the last convolution of each resnet x 0.1."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) >= 2:
            gain = 0.1 if ".conv2." in name else 1.0
            weights[name] = rng.standard_normal(shape) * (gain * math.sqrt(2 / math.prod(shape[1:])))
        else:
            weights[name] = np.zeros(shape) if name.endswith("bias") else np.ones(shape)
    return {name: value.astype(np.float32) for name, value in weights.items()}


def start_transformer(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    """First weights of the DiT and the text encoders: N(0, 1 / fan_in), gates and the output at zero."""
    rng = np.random.default_rng(seed)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) >= 2:
            is_zero = "mod.linear" in name or "modulation" in name or name == "final_layer.linear.weight"
            std = (
                0.02
                if "embed" in name and "patch" not in name and "embedder" not in name
                else math.prod(shape[1:]) ** -0.5
            )
            value = np.zeros(shape) if is_zero else rng.standard_normal(shape) * std
        elif "embedding" in name:
            value = rng.standard_normal(shape) * 0.02
        else:
            value = np.ones(shape) if name.endswith("weight") else np.zeros(shape)
        weights[name] = value.astype(np.float32)
    return weights
