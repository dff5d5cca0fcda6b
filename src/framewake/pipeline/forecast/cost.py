"""Bytes and operations from shapes alone.

The factors of activations were counted in the model text (how many tensors of one size are alive at the widest
place) and checked against measured peaks: ``scripts/bench memory``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

from framewake.config import DiTConfig, LlavaConfig, TilingConfig, VAEConfig
from framewake.engine.traits import Traits

Shapes = Mapping[str, tuple[int, ...]]

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Tensors of (tokens, width) that are alive at the widest place of a block: behind the concatenation in a single
# block; when chunked, where the values are joined (the embedded image is still there), or beside a chunk's MLP.
WHOLE = 24
CHUNKED = 6
BESIDE_CHUNK = 5
EXCHANGED = 5  # what is sent and what arrives, among several devices
WHERE_JOINED, IN_CHUNK = 2, 10  # of (chunk, width)
# Tensors of (one tile at full size, widest channels there) in the last stage of the decoder: all at once, and a few
# frames at a time, where the input is used up while the output is made; and of those few frames, in float32.
TILE = 5
SLABS = 1.15
IN_SLAB = {"host": 7, "device": 3}  # a CPU's library of convolutions keeps copies
COMPOSED_SCORES = 1 << 26  # scores alive at a time where attention is put together from products
COMPOSED_COPIES = 3


class Weights(NamedTuple):
    """Bytes of a part: all of it, what stays when its blocks are streamed, and its largest block."""

    whole: int
    kept: int
    block: int

    @property
    def streamed(self) -> int:
        """Bytes on the device while streaming: one block in use, the next arriving."""
        return self.kept + 2 * self.block

    def shared(self, devices: int) -> int:
        """Bytes on each of some devices that share the blocks out: one in use, one put together, the next arriving."""
        return self.kept + -(-(self.whole - self.kept) // devices) + 3 * self.block


def weights(shapes: Shapes, streams: tuple[str, ...], dtype: str) -> Weights:
    """Bytes of a model's weights in a type."""
    blocks: dict[str, int] = {}
    whole = kept = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * BYTES[dtype]
        whole += size
        stream = next((s for s in streams if name.startswith(s + ".")), None)
        if stream is None:
            kept += size
        else:
            block = name[: name.index(".", len(stream) + 1)]
            blocks[block] = blocks.get(block, 0) + size
    return Weights(whole, kept, max(blocks.values(), default=0))


class Scene(NamedTuple):
    """What one step of the transformer works on: samples at once, tokens of image and text, type, attention path.

    ``kept`` tensors of all image tokens stay from step to step. The large text encoder works on ``read`` tokens, of
    which ``text`` are left: a template is around the prompt, and the picture is not thinned out yet. Each of several
    ``devices`` has an even share of the image tokens, all text, and attends to everything with a share of the heads.
    """

    batch: int
    tokens: int
    text: int
    dtype: str
    is_composed: bool
    kept: int = 0
    read: int = 0
    devices: int = 1

    @property
    def share(self) -> int:
        """Image tokens on a device."""
        return -(-self.tokens // self.devices)

    @property
    def joined(self) -> int:
        """Image and text tokens on a device."""
        return self.share + self.text

    @property
    def attended(self) -> int:
        """Image and text tokens of all devices."""
        return self.tokens + self.text


def step_bytes(config: DiTConfig, scene: Scene, *, chunk: int | None = None) -> int:
    """Memory that a denoising step needs beside the weights."""
    row = config.hidden_size * scene.batch
    size = BYTES[scene.dtype]
    if chunk is None:
        wide = WHOLE * scene.joined * row * size
    else:
        some = min(chunk, scene.joined)
        inside = BESIDE_CHUNK * scene.joined + IN_CHUNK * some
        wide = max(CHUNKED * scene.joined + WHERE_JOINED * some, inside) * row * size
    tables = (2 if chunk is None else 4) * scene.joined * config.head_dim * 4
    wide += (EXCHANGED * scene.joined * row * size) if scene.devices > 1 else 0
    heads = scene.batch * -(-config.heads // scene.devices)
    scores = scores_bytes(heads, scene.attended, scene.dtype) if scene.is_composed else 0
    latents = scene.batch * scene.tokens * config.in_channels * math.prod(config.patch_size) * BYTES["float32"]
    return wide + tables + scores + latents + scene.kept * scene.share * row * size


def scores_bytes(heads: int, tokens: int, dtype: str) -> int:
    """Memory for the scores of attention that is put together from products; a fused kernel keeps none."""
    return COMPOSED_COPIES * min(heads * tokens**2, max(COMPOSED_SCORES, heads * tokens)) * BYTES[dtype]


def step_operations(config: DiTConfig, scene: Scene) -> float:
    """Multiplications and additions of one step: 2 for each weight and token, 4 for each pair of tokens and channel."""
    width, mlp = config.hidden_size, config.mlp_size
    single = config.single_blocks * scene.joined * (width * (3 * width + mlp) + width * (width + mlp))
    double = config.double_blocks * scene.joined * (4 * width * width + 2 * width * mlp)
    return scene.batch * 2.0 * (single + double) + pair_operations(config, scene)


def pair_operations(config: DiTConfig, scene: Scene) -> float:
    """Those of attention, on each device."""
    blocks = config.single_blocks + config.double_blocks
    return scene.batch * 4.0 * blocks * scene.attended**2 * config.hidden_size / scene.devices


def tile_bytes(config: VAEConfig, tiling: TilingConfig | None, size: tuple[int, int, int], dtype: str) -> int:
    """Memory that decoding needs for the tile it is at. ``size`` is frames, height and width of the clip in pixels."""
    frames, numbers = _widest(config, tiling, size)
    return TILE * frames * numbers * BYTES[dtype]


def slab_bytes(
    config: VAEConfig,
    tiling: TilingConfig | None,
    size: tuple[int, int, int],
    dtype: str,
    *,
    slab_numbers: int,
    is_host: bool,
) -> int:
    """Memory that the same tile needs a few frames at a time: slabs of so many numbers, or of one frame."""
    frames, numbers = _widest(config, tiling, size)
    # A convolution sees two frames more than it gives.
    inside = min(max(slab_numbers, numbers) + 2 * numbers, frames * numbers)
    return (
        int(SLABS * frames * numbers * BYTES[dtype])
        + IN_SLAB["host" if is_host else "device"] * inside * BYTES["float32"]
    )


def _widest(config: VAEConfig, tiling: TilingConfig | None, size: tuple[int, int, int]) -> tuple[int, int]:
    """Frames of the largest tile, and the numbers of one frame where the decoder is widest at full size."""
    frames, height, width = size
    if tiling is not None and tiling.is_temporal:
        frames = min(frames, tiling.sample_frames + 1)
    if tiling is not None and tiling.is_spatial:
        height, width = min(height, tiling.sample_size), min(width, tiling.sample_size)
    return frames, height * width * config.block_out_channels[min(1, len(config.block_out_channels) - 1)]


def decode_bytes(tile: int, traits: Traits) -> int:
    """Memory for decoding a tile of some bytes with what the engine itself takes for it."""
    copies = min(int(traits.convolution_tensors / TILE * tile), traits.convolution_most)
    return max(tile, traits.convolution_floor) + copies + traits.convolution_start


def host_bytes(size: tuple[int, int, int]) -> int:
    """Memory on the host for a clip: decoded numbers in float32, and frames in uint8 twice."""
    return math.prod(size) * 3 * (4 + 2)


def text_bytes(config: LlavaConfig, scene: Scene, dtype: str, is_composed: bool) -> int:
    """Memory that the large text encoder needs beside its weights; ``dtype`` and ``is_composed`` are its own."""
    text = config.text
    states = (6 * text.hidden_size + 3 * text.mlp_size) * scene.batch * scene.read * BYTES[dtype]
    return states + (scores_bytes(scene.batch * text.heads, scene.read, dtype) if is_composed else 0)


def text_operations(config: LlavaConfig, parameters: int, tokens: int) -> float:
    """Multiplications and additions of encoding one prompt."""
    table = config.text.vocab_size * config.text.hidden_size
    return 2.0 * max(parameters - table, 0) * tokens
