"""Shapes of HunyuanVideo-1.5's models, and the published presets; what it shares with the first is in ``config``.

Source: specification of 1.5, sections 2 to 9.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from framewake.config import ClipVisionConfig, DiTConfig, Framing, LlamaConfig, TilingConfig, VAEConfig
from framewake.errors import InputError


@dataclass(frozen=True)
class TileRule:
    """Which tiles of tokens see each other where attention is sparse.

    ``window`` are tiles around a query's own, ``kept`` is how many it keeps beside them, chosen by likeness and, for
    the share 1 - ``likeness``, by how little they are like all others.
    Units: ``tile`` in tokens along frames, height and width; ``window`` in tiles.
    Source: specification of 1.5, section 14.
    """

    tile: tuple[int, int, int]
    window: tuple[int, int, int]
    kept: int
    likeness: float

    @property
    def tokens(self) -> int:
        """Tokens of a tile."""
        return self.tile[0] * self.tile[1] * self.tile[2]

    @property
    def most_seen(self) -> int:
        """Tokens of all tiles that one sees at most."""
        return (self.window[0] * self.window[1] * self.window[2] + self.kept) * self.tokens

    def at(self, frames: int) -> TileRule:
        """The rule for so many latent frames: half as many tiles are kept in clips of up to five seconds.

        Raises: InputError for a single frame in tiles of a size that the original knows no flat ones for.
        """
        if frames > SHORT_FRAMES:
            return self
        if frames > 1:
            return replace(self, kept=self.kept // 2)
        if self.tokens not in FLAT_TILES:
            raise InputError(f"tiles of {self.tokens} tokens have no form for a single frame.")
        return replace(self, tile=FLAT_TILES[self.tokens], window=(1, 1, 1))


SHORT_FRAMES = 31
FLAT_TILES = {384: (1, 16, 24), 128: (1, 16, 8), 64: (1, 8, 8), 16: (1, 4, 4)}
TILES = TileRule(tile=(6, 8, 8), window=(3, 3, 3), kept=64, likeness=0.7)


@dataclass(frozen=True)
class DiT15Config(DiTConfig):
    """Shape of HunyuanVideo-1.5's transformer: double blocks alone, and further tokens in front of the text.

    ``condition`` is "latent_concat" for pictures and "none" for text alone; the channels for a picture are there in
    both. ``glyph_widths`` are those of byT5's states and of the two layers behind them. ``tiles``: attention is sparse.
    Source: specification of 1.5, sections 2.1 and 7.
    """

    glyph_widths: tuple[int, int, int]
    vision_width: int
    is_step_distilled: bool
    tiles: TileRule | None

    @property
    def has_next_timestep(self) -> bool:
        """Step-distilled weights were trained with it."""
        return self.is_step_distilled

    @property
    def stretches_time(self) -> bool:
        """No: clips of any length have the same positions."""
        return False

    @property
    def joins_picture(self) -> bool:
        """Always: without a picture, its channels are zero."""
        return True

    @property
    def mixes_picture(self) -> bool:
        """No: noise is noise."""
        return False

    @property
    def framing(self) -> Framing:
        """The bucket closest in shape."""
        return "closest"

    @property
    def most_seen(self) -> int | None:
        """Of sparse attention, the tiles that one sees."""
        return None if self.tiles is None else self.tiles.most_seen

    @property
    def noise_dtype(self) -> Literal["float16", "bfloat16"]:
        """As the original draws it (specification of 1.5, section 10.3)."""
        return "bfloat16"

    @property
    def dropped_frames(self) -> int:
        """None: no frame is given, all are made (specification of 1.5, section 10.4)."""
        return 0


@dataclass(frozen=True)
class QwenConfig(LlamaConfig):
    """Shape of Qwen2.5-VL's language model: the same decoder with biases."""

    @property
    def has_bias(self) -> bool:
        """Yes."""
        return True


@dataclass(frozen=True)
class T5Config:
    """Shape of a T5 encoder with gated layers."""

    hidden_size: int
    head_dim: int
    mlp_size: int
    layers: int
    heads: int
    vocab_size: int
    position_buckets: int
    position_distance: int
    norm_eps: float


@dataclass(frozen=True)
class UpsamplerConfig:
    """Shape of an upsampler of latents: plain blocks of one width, or levels of resnets, each of its own.

    ``blocks``: how many plain ones, or resnets of each level. ``adds_input``: what comes in is added to what goes out.
    """

    kind: Literal["plain", "levels"]
    channels: int
    widths: tuple[int, ...]
    blocks: int
    adds_input: bool


HUNYUAN15_DIT = DiT15Config(
    patch_size=(1, 1, 1),
    in_channels=65,
    out_channels=32,
    hidden_size=2048,
    heads=16,
    rope_dims=(16, 56, 56),
    rope_theta=256.0,
    mlp_ratio=4.0,
    double_blocks=54,
    single_blocks=0,
    refiner_blocks=2,
    text_width=3584,
    pooled_width=0,
    condition="latent_concat",
    has_guidance=False,
    glyph_widths=(1472, 2048, 2048),
    vision_width=1152,
    is_step_distilled=False,
    tiles=None,
)

HUNYUAN15_VAE = VAEConfig(
    in_channels=3,
    out_channels=3,
    latent_channels=32,
    block_out_channels=(128, 256, 512, 1024, 1024),
    layers_per_block=2,
    norm_groups=0,
    scaling_factor=1.03682,
    spatial_compression=16,
    temporal_compression=4,
    mid_block_attention=True,
)

QWEN25_VL_7B = QwenConfig(
    hidden_size=3584,
    mlp_size=18944,
    layers=28,
    heads=28,
    kv_heads=4,
    head_dim=128,
    vocab_size=152064,
    norm_eps=1e-6,
    rope_theta=1000000.0,
)

GLYPH_BYT5 = T5Config(
    hidden_size=1472,
    head_dim=64,
    mlp_size=3584,
    layers=12,
    heads=6,
    vocab_size=1510,
    position_buckets=32,
    position_distance=128,
    norm_eps=1e-6,
)

SIGLIP_SO400M = ClipVisionConfig(
    hidden_size=1152,
    mlp_size=4304,
    layers=27,
    heads=16,
    image_size=384,
    patch_size=14,
    activation="gelu_pytorch_tanh",
    norm_eps=1e-6,
)

HUNYUAN15_UPSAMPLER = UpsamplerConfig(kind="plain", channels=32, widths=(64,), blocks=6, adds_input=False)

# The plan of devices with more than 21 GiB; the original takes smaller tiles on others (specification of 1.5, 9.2).
HUNYUAN15_TILING = TilingConfig(
    sample_size=256,
    latent_size=16,
    sample_frames=1,
    latent_frames=1,
    overlap=0.125,
    is_spatial=True,
    is_temporal=False,
)


class Variant(NamedTuple):
    """What a published transformer is for; no tensor tells it. ``guidance`` is the classic one, 1 for none."""

    task: str
    resolution: str
    guidance: float
    flow_shift: float
    steps: int


_SHIFTS = {("480p", "t2v"): 5.0, ("480p", "i2v"): 5.0, ("720p", "t2v"): 9.0, ("720p", "i2v"): 7.0}
VARIANTS = {
    f"{resolution}_{task}{kind}": Variant(task, resolution, guidance, shift, 50)
    for (resolution, task), shift in _SHIFTS.items()
    for kind, guidance in (("", 6.0), ("_distilled", 1.0), ("_distilled_sparse", 1.0))
    if not (kind == "_distilled_sparse" and resolution == "480p")
} | {"480p_i2v_step_distilled": Variant("i2v", "480p", 1.0, 7.0, 12)}
