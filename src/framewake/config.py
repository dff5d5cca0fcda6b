"""Shapes of the models as frozen values, and the published presets.

Nothing here has a default: a model's shape is always stated in full, by a checkpoint's
config file or by a preset below.  Variants are made with ``dataclasses.replace``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Framing = Literal["inside", "closest"]  # which bucket a picture gets: never more elongated than it, or the closest
Condition = Literal["token_replace", "latent_concat", "none"]
CONDITIONS: tuple[Condition, ...] = get_args(Condition)
DROPPED_FRAMES = 4  # where the picture is joined: the first latent frame is the picture once more


@dataclass(frozen=True)
class DiTConfig:
    """Shape of the diffusion transformer.

    Units: widths in channels; ``rope_dims`` are the head channels given to time, height and
    width and add up to ``head_dim``.
    Source: specification, sections 4.1 and 4.2.
    """

    patch_size: tuple[int, int, int]
    in_channels: int  # 2 * out_channels + 1 where the picture is joined
    out_channels: int
    hidden_size: int
    heads: int
    rope_dims: tuple[int, int, int]
    rope_theta: float
    mlp_ratio: float
    double_blocks: int
    single_blocks: int
    refiner_blocks: int
    text_width: int
    pooled_width: int
    condition: Condition  # as published; what follows from it is said by the properties
    has_guidance: bool

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.heads

    @property
    def mlp_size(self) -> int:
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def needs_picture(self) -> bool:
        """Whether a picture is animated; a text-to-video model takes none."""
        return self.condition != "none"

    @property
    def replaces_first_frame(self) -> bool:
        """Whether the first latent frame is the picture's, at timestep 0 (specification 4.4)."""
        return self.condition == "token_replace"

    @property
    def joins_picture(self) -> bool:
        """Whether the picture's latent and its mask are further input channels (specification 4.8)."""
        return self.condition == "latent_concat"

    @property
    def image_interleave(self) -> int:
        """Every how many LLaVA image tokens one is kept (specification 3.4)."""
        return {"token_replace": 4, "latent_concat": 2, "none": 1}[self.condition]

    @property
    def has_next_timestep(self) -> bool:
        """Whether it is told the timestep that a step leads to."""
        return False

    @property
    def mixes_picture(self) -> bool:
        """Whether the noise of a stable clip has a trace of the picture."""
        return True

    @property
    def framing(self) -> Framing:
        """How pictures become buckets."""
        return "inside"

    @property
    def noise_dtype(self) -> Literal["float16", "bfloat16"]:
        """What noise is rounded to in half-precision runs."""
        return "float16"

    @property
    def stretches_time(self) -> bool:
        """Whether positions of long clips are changed so that they do not repeat themselves (RIFLEx)."""
        return True

    @property
    def most_seen(self) -> int | None:
        """How many image tokens one sees at most, where that is not all; which ones, what they hold decides."""
        return None

    @property
    def dropped_frames(self) -> int:
        """How many frames at the start of a decoded clip do not belong to it."""
        return DROPPED_FRAMES if self.joins_picture else 0


@dataclass(frozen=True)
class VAEConfig:
    """Shape of a causal 3D autoencoder (specification, section 7.1).

    ``norm_groups`` is 0 where each cell is normed alone.
    """

    in_channels: int
    out_channels: int
    latent_channels: int
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    norm_groups: int
    scaling_factor: float
    spatial_compression: int
    temporal_compression: int
    mid_block_attention: bool

    @property
    def norms_cells(self) -> bool:
        """Whether each cell is normed alone, so that nothing looks ahead."""
        return self.norm_groups == 0


@dataclass(frozen=True)
class TilingConfig:
    """Tile sizes of the autoencoder; equality of the result depends on all of them.

    Units: ``sample_*`` in pixels and frames, ``latent_*`` in latent cells and latent frames.
    Source: specification, section 7.6.
    """

    sample_size: int
    latent_size: int
    sample_frames: int
    latent_frames: int
    overlap: float
    is_spatial: bool
    is_temporal: bool


@dataclass(frozen=True)
class LlamaConfig:
    """Shape of the language model inside LLaVA."""

    hidden_size: int
    mlp_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    rope_theta: float

    @property
    def has_bias(self) -> bool:
        """Whether queries, keys and values have one."""
        return False


@dataclass(frozen=True)
class ClipVisionConfig:
    """Shape of a vision tower: CLIP's inside LLaVA, or SigLIP."""

    hidden_size: int
    mlp_size: int
    layers: int
    heads: int
    image_size: int
    patch_size: int
    activation: str
    norm_eps: float

    @property
    def patches(self) -> int:
        """Image tokens without the class token (576 for the published tower)."""
        return (self.image_size // self.patch_size) ** 2


@dataclass(frozen=True)
class LlavaConfig:
    """LLaVA: vision tower, projector, language model, and the ids that join them."""

    text: LlamaConfig
    vision: ClipVisionConfig
    projector_activation: str
    image_token_id: int
    pad_token_id: int
    vision_feature_layer: int
    drops_class_token: bool


@dataclass(frozen=True)
class ClipTextConfig:
    """Shape of the CLIP text encoder that gives the pooled vector."""

    hidden_size: int
    mlp_size: int
    layers: int
    heads: int
    vocab_size: int
    max_positions: int
    activation: str
    norm_eps: float
    eos_token_id: int


HUNYUAN_DIT = DiTConfig(
    patch_size=(1, 2, 2),
    in_channels=16,
    out_channels=16,
    hidden_size=3072,
    heads=24,
    rope_dims=(16, 56, 56),
    rope_theta=256.0,
    mlp_ratio=4.0,
    double_blocks=20,
    single_blocks=40,
    refiner_blocks=2,
    text_width=4096,
    pooled_width=768,
    condition="token_replace",
    has_guidance=True,
)

HUNYUAN_VAE = VAEConfig(
    in_channels=3,
    out_channels=3,
    latent_channels=16,
    block_out_channels=(128, 256, 512, 512),
    layers_per_block=2,
    norm_groups=32,
    scaling_factor=0.476986,
    spatial_compression=8,
    temporal_compression=4,
    mid_block_attention=True,
)

HUNYUAN_TILING = TilingConfig(
    sample_size=256,
    latent_size=32,
    sample_frames=64,
    latent_frames=16,
    overlap=0.25,
    is_spatial=True,
    is_temporal=True,
)

LLAVA_LLAMA3_8B = LlavaConfig(
    text=LlamaConfig(
        hidden_size=4096,
        mlp_size=14336,
        layers=32,
        heads=32,
        kv_heads=8,
        head_dim=128,
        vocab_size=128320,
        norm_eps=1e-5,
        rope_theta=500000.0,
    ),
    vision=ClipVisionConfig(
        hidden_size=1024,
        mlp_size=4096,
        layers=24,
        heads=16,
        image_size=336,
        patch_size=14,
        activation="quick_gelu",
        norm_eps=1e-5,
    ),
    projector_activation="gelu",
    image_token_id=128257,
    pad_token_id=128258,
    vision_feature_layer=-2,
    drops_class_token=True,
)

# How CLIP saw pictures in its training: mean and deviation of red, green and blue.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

CLIP_L = ClipTextConfig(
    hidden_size=768,
    mlp_size=3072,
    layers=12,
    heads=12,
    vocab_size=49408,
    max_positions=77,
    activation="quick_gelu",
    norm_eps=1e-5,
    eos_token_id=2,
)
