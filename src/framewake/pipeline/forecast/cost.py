"""Bytes and operations from shapes alone.

The factors of activations were counted in the model text (how many tensors of one size are alive at the widest
place) and checked against measured peaks: ``scripts/bench memory``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from framewake.config import ClipTextConfig, DiTConfig, LlamaConfig, LlavaConfig, TilingConfig, VAEConfig
from framewake.config15 import UpsamplerConfig
from framewake.engine.contract import BY_TENSOR
from framewake.engine.traits import Traits
from framewake.models.arrangement import Arrangement
from framewake.models.dit_blocks import cut
from framewake.weights.lora.view import PART
from framewake.weights.stores.by_tensor import ROWS, is_on_demand

Shapes = Mapping[str, tuple[int, ...]]

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}

# Tensors of (tokens, width) that are alive at the widest place of a block. All tokens at once: where keys are turned,
# in float32. In chunks: where the values of all chunks are joined, or beside the MLP of the last chunk. The embedded
# image is there throughout. Attention done in parts (samples, or queries) holds them and what they are joined to.
WHOLE = {"host": 24, "device": 19}  # a CPU's library of products packs what it multiplies
CHUNKED = 6
IN_TILES = 7  # queries, keys and values again by tiles, and what they attended to by heads, joined, and back in order
EXCHANGED = 5  # what is sent and what arrives, among several devices
BESIDE_CHUNK = 4
IN_CHUNK = 11  # of (chunk, width)
IN_PARTS = 1
TABLES = 4  # cosines and sines, of the image and of all tokens
LATENTS = 6  # in float32: of this step, its input in the transformer's type, and what comes of it
MERGING = 4  # of a weight with a LoRA, in float32: itself, a product, it scaled, and their sum
# Tensors of (one tile at full size, widest channels there) in the last stage of the decoder: all at once, and a few
# frames at a time, where the input is used up while the output is made. A slab is in float32 twice where it is normed,
# beside the one before it with the two frames it saw; a CPU's library of convolutions keeps copies.
TILE = 5
BESIDE_TILE = 2  # frames: the enlargement makes one that is left out, and small things
SLABS = {"host": 1.15, "device": 1.03}
HOST_SLAB, DEVICE_SLAB = 7, 2
# The same for the encoder, whose first level is the widest. A few frames at a time, that level is never there as a
# whole, and the second one, twice as wide at a quarter of the size, is twice.
ENCODED = {"float16": 6.08, "bfloat16": 6.08, "float32": 5.11}
SHRUNK = {"host": 1.15, "device": 1.065}
BESIDE_SHRUNK = {"host": 28, "device": 8}  # bytes for each number of a frame, or of a slab that is larger
ENCODED_NUMBERS = 1 << 23  # of a slab: the least that one frame of a tile has
CELL_TILE = {"float16": 7.1, "bfloat16": 7.1, "float32": 5.1}  # as TILE, where cells are normed, in float32
# Of the frames at work, in float32 (two of them twice as wide), and of frames as wide as at full size: two for each of
# 6 convolutions there, as many below, and copies.
CELL_SLAB = {"host": (7, 26), "float32": (3.7, 14), "float16": (3.5, 0.6), "bfloat16": (3.5, 0.6)}
ENLARGED, UPSAMPLED = 3, 12  # of a clip's latents while they are enlarged, and of the frame that is at work
CELL_ENCODED = {"float16": 8.1, "bfloat16": 8.1, "float32": 6.2}
CELL_SHRUNK = {"host": 12, "device": 2}  # of the frames at work, in their type; and in float32:
CELL_SHRUNK_WIDE = {"float16": 2.9, "bfloat16": 2.9, "float32": 3.7}
CELL_SHRUNK_PAST = 24
SEEN = 2  # frames that a convolution sees before those it gives; also the fewest that an enlargement gives
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
        """Bytes on each of some devices that share the blocks out and keep their parts of them."""
        return self.kept + -(-(self.whole - self.kept) // devices) + self._exchanged(devices)

    def shared_and_streamed(self, devices: int) -> int:
        """The same where those parts are read when they are needed: one is exchanged, the next arriving."""
        return self.kept + 2 * -(-self.block // devices) + self._exchanged(devices)

    def _exchanged(self, devices: int) -> int:
        """One block in use, one put together; of the next one, what leaves for the others and what arrives."""
        return 2 * self.block + 2 * (self.block - self.block // devices)


def weights(shapes: Shapes, streams: tuple[str, ...], dtype: str) -> Weights:
    """Bytes of a model's weights in a type."""
    blocks: dict[str, int] = {}
    whole = kept = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * BYTES[dtype]
        whole += size
        stream = next((s for s in streams if name.startswith(s + ".")), None)
        if tuple(streams) == BY_TENSOR and is_on_demand(shape):
            blocks[name] = min(size, ROWS * BYTES[dtype])
        elif stream is None:
            kept += size
        else:
            block = name[: name.index(".", len(stream) + 1)]
            blocks[block] = blocks.get(block, 0) + size
    return Weights(whole, kept, max(blocks.values(), default=0))


def merging_bytes(shapes: Shapes, touched: Mapping[str, bool], streams: tuple[str, ...], dtype: str) -> int:
    """Memory for weights with LoRAs, where none are kept: those of the largest block and of what is no block.

    ``touched``: names of weights, and whether their rows are merged by themselves.
    """
    if not touched:
        return 0
    merged = weights({name: shapes[name] for name in touched}, streams, dtype)
    return (
        merged.kept
        + merged.block
        + max(merging(shapes[name], dtype, is_by_row=by_row) for name, by_row in touched.items())
    )


def merging(shape: tuple[int, ...], dtype: str, *, is_by_row: bool = True) -> int:
    """Memory beside a weight that becomes another one: float32 for what is merged at once, and its pieces."""
    size = math.prod(shape)
    if not is_by_row or size <= PART:
        return MERGING * size * BYTES["float32"]
    return MERGING * PART * BYTES["float32"] + size * BYTES[dtype]


class Scene(NamedTuple):
    """What one step of the transformer works on: samples at once, tokens of image and text, type, attention path.

    ``first`` image tokens are a group of their own. ``kept`` tensors of all image tokens stay from step to step. The
    large text encoder works on ``read`` tokens, of which ``text`` are left: a template is around the prompt, and the
    picture is not thinned out yet. Each of several ``devices`` has an even share of the image tokens, all text, and
    attends to everything with a share of the heads.
    """

    batch: int
    tokens: int
    text: int
    dtype: str
    is_composed: bool
    kept: int = 0
    read: int = 0
    devices: int = 1
    first: int = 0
    is_host: bool = False

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
        wide = WHOLE["host" if scene.is_host else "device"] * scene.joined
    else:
        first = min(scene.first, scene.share)
        largest = max(each.stop - each.start for each in cut((first, scene.joined - first), chunk))
        joins = CHUNKED + (IN_PARTS if scene.batch > 1 or scene.is_composed else 0)
        wide = max(joins * scene.joined + largest, BESIDE_CHUNK * scene.joined + IN_CHUNK * largest)
    wide += 0 if config.most_seen is None else IN_TILES * scene.joined
    wide += EXCHANGED * scene.joined if scene.devices > 1 else 0
    tables = TABLES * scene.joined * config.head_dim * 4
    latents = LATENTS * scene.batch * scene.tokens * config.out_channels * math.prod(config.patch_size) * 4
    heads = scene.batch * -(-config.heads // scene.devices)
    scores = scores_bytes(heads, scene.attended, scene.dtype) if scene.is_composed else 0
    return (wide + scene.kept * scene.share) * row * size + tables + latents + scores


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
    seen = scene.tokens if config.most_seen is None else min(config.most_seen, scene.tokens)
    pairs = scene.tokens * (seen + scene.text) + scene.text * scene.attended
    return scene.batch * 4.0 * blocks * pairs * config.hidden_size / scene.devices


def sent_bytes(config: DiTConfig, scene: Scene, arrangement: Arrangement) -> float:
    """Bytes from a device to the others in one step: heads to its neighbours and back, keys and values to all.

    At the end, what the last layer makes of its tokens goes to all. Exact where tokens and heads divide.
    """
    neighbours, blocks = arrangement.neighbours, config.double_blocks + config.single_blocks
    queries_and_back = (2 * scene.share + scene.text) * (neighbours - 1)
    head = config.hidden_size / neighbours * (queries_and_back + 2 * scene.share * (scene.devices - 1))
    last = scene.share * config.out_channels * math.prod(config.patch_size) * (arrangement.size - 1)
    return scene.batch * (blocks * head + last) * BYTES[scene.dtype]


def tile_bytes(config: VAEConfig, tiling: TilingConfig | None, size: tuple[int, int, int], dtype: str) -> int:
    """Memory that decoding needs for the tile it is at. ``size`` is frames, height and width of the clip in pixels."""
    frames, numbers = _widest(config, tiling, size)
    each = CELL_TILE[dtype] if config.norms_cells else TILE
    return int((each * frames + BESIDE_TILE) * numbers * BYTES[dtype])


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
    if config.norms_cells:
        return cell_bytes(config, (frames, numbers), dtype, slab_numbers=slab_numbers, is_host=is_host)
    clip = int(SLABS["host" if is_host else "device"] * frames * numbers * BYTES[dtype])
    if is_host:
        inside = min(max(slab_numbers, numbers) + SEEN * numbers, frames * numbers)
        return clip + HOST_SLAB * inside * BYTES["float32"]
    inside = min(max(slab_numbers // numbers, SEEN), frames)
    return clip + numbers * (DEVICE_SLAB * inside * BYTES["float32"] + (inside + SEEN) * BYTES[dtype])


def encode_bytes(
    config: VAEConfig, tiling: TilingConfig, size: tuple[int, int, int], dtype: str, *, is_in_slabs: bool, is_host: bool
) -> int:
    """Memory for encoding a clip's largest tile, which has all its frames, and its first frame in one piece.

    ``size`` is frames, height and width in pixels.
    """
    frames, height, width = size
    channels, taken = config.block_out_channels[0], (CELL_ENCODED if config.norms_cells else ENCODED)[dtype]
    tile = min(height, tiling.sample_size) * min(width, tiling.sample_size) * channels
    whole = int(taken * BYTES[dtype] * max(frames * tile, height * width * channels))
    if not is_in_slabs or frames == 1:
        return whole
    first = int(taken * BYTES[dtype] * height * width * channels)
    if config.norms_cells:
        each = max(1, ENCODED_NUMBERS // (config.temporal_compression * tile)) * config.temporal_compression
        own = CELL_SHRUNK["host" if is_host else "device"]
        work = each * (own * BYTES[dtype] + CELL_SHRUNK_WIDE[dtype] * BYTES["float32"])
        clip = frames * tile // channels * config.in_channels * (BYTES[dtype] + BYTES["float32"])
        return max(clip + int((work + CELL_SHRUNK_PAST * BYTES[dtype]) * tile), first)
    place = "host" if is_host else "device"
    slabs = int(SHRUNK[place] * frames * tile * BYTES[dtype]) + BESIDE_SHRUNK[place] * max(tile, ENCODED_NUMBERS)
    return max(slabs, first)


def cell_bytes(config: VAEConfig, widest: tuple[int, int], dtype: str, *, slab_numbers: int, is_host: bool) -> int:
    """The same where nothing looks ahead: a clip's pixels, some frames at work, and what each layer carries on.

    Every convolution keeps two frames. On a device, a copy of its largest weight comes on top, in another order.
    """
    frames, numbers = widest
    each = max(1, slab_numbers // (numbers * config.temporal_compression)) * config.temporal_compression
    cells = numbers // config.block_out_channels[0]
    clip = frames * cells * config.out_channels * 2 * BYTES[dtype]
    each_takes, carried = CELL_SLAB["host" if is_host else dtype]
    inside = each_takes * min(each, frames) + carried
    copied = 0 if is_host else 27 * 8 * config.block_out_channels[-1] ** 2 * BYTES[dtype]
    return clip + int(inside * numbers * BYTES["float32"]) + copied


def upsampler_bytes(config: UpsamplerConfig, latent: Sequence[int]) -> int:
    """Memory for an upsampler of latents (C, F, H, W): a frame with its edges at work, and what each layer carries on.

    A convolution keeps two frames.
    """
    channels, frames, height, width = latent
    each = {"plain": 3, "levels": 2}[config.kind] * config.blocks  # convolutions of a width
    carried = SEEN * (each * sum(config.widths) + config.widths[-1] + channels)
    cells = (height + 2) * (width + 2) * (carried + UPSAMPLED * max(config.widths))
    return (cells + ENLARGED * channels * frames * height * width) * BYTES["float32"]


def _widest(config: VAEConfig, tiling: TilingConfig | None, size: tuple[int, int, int]) -> tuple[int, int]:
    """Frames of the largest tile, and the numbers of one frame where the decoder is widest at full size."""
    frames, height, width = size
    if tiling is not None and tiling.is_temporal:
        frames = min(frames, tiling.sample_frames + 1)
    if tiling is not None and tiling.is_spatial:
        height, width = min(height, tiling.sample_size), min(width, tiling.sample_size)
    widest = 0 if config.norms_cells else min(1, len(config.block_out_channels) - 1)
    return frames, height * width * config.block_out_channels[widest]


def decode_bytes(tile: int, traits: Traits) -> int:
    """Memory for decoding a tile of some bytes with what the engine itself takes for it."""
    copies = min(int(traits.convolution_tensors / TILE * tile), traits.convolution_most)
    return max(tile, traits.convolution_floor) + copies + traits.convolution_start


def host_bytes(size: tuple[int, int, int]) -> int:
    """Memory on the host for a clip: decoded numbers in float32, and frames in uint8 twice."""
    return math.prod(size) * 3 * (4 + 2)


def text_bytes(config: LlavaConfig, scene: Scene, dtype: str, is_composed: bool) -> int:
    """Memory that the large text encoder needs beside its weights; ``dtype`` and ``is_composed`` are its own."""
    return language_bytes(config.text, scene, dtype, is_composed)


def language_bytes(text: LlamaConfig, scene: Scene, dtype: str, is_composed: bool) -> int:
    """The same for a language model."""
    states = (6 * text.hidden_size + 3 * text.mlp_size) * scene.batch * scene.read * BYTES[dtype]
    return states + (scores_bytes(scene.batch * text.heads, scene.read, dtype) if is_composed else 0)


def pooled_bytes(config: ClipTextConfig, scene: Scene, dtype: str, is_composed: bool) -> int:
    """The same for the small text encoder, which reads as many tokens for every prompt."""
    tokens = config.max_positions
    states = (6 * config.hidden_size + 3 * config.mlp_size) * scene.batch * tokens * BYTES[dtype]
    return states + (scores_bytes(scene.batch * config.heads, tokens, dtype) if is_composed else 0)


def text_operations(config: LlavaConfig, parameters: int, tokens: int) -> float:
    """Multiplications and additions of encoding one prompt."""
    table = config.text.vocab_size * config.text.hidden_size
    return 2.0 * max(parameters - table, 0) * tokens
