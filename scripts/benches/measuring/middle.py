"""A transformer of middle size, and what a step of it works on."""

from __future__ import annotations

from framewake.config import DiTConfig

# Attention and linears weigh as in the published model: its head width and ratio of single to double blocks.
MIDDLE_DIT = DiTConfig(
    patch_size=(1, 2, 2),
    in_channels=16,
    out_channels=16,
    hidden_size=768,
    heads=6,
    rope_dims=(16, 56, 56),
    rope_theta=256.0,
    mlp_ratio=4.0,
    double_blocks=4,
    single_blocks=8,
    refiner_blocks=2,
    text_width=512,
    pooled_width=256,
    condition="token_replace",
    has_guidance=True,
)
LATENTS = {"demo": (9, 16, 16), "middle": (9, 48, 48)}  # frames, height, width: 576 and 5184 image tokens
# Padded states as diffusers' pipeline hands them over, and how many of them are valid (picture and a short prompt).
TEXTS = {"demo": (260, 15), "middle": (400, 184)}
TIMESTEP = 873.0
