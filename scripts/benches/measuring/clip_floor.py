"""The floor of a clip of the demonstration: its operations over the matrix rate, or its weights over the bandwidth."""

from __future__ import annotations

import math

import torch

from framewake import engine as engines
from framewake.models.dit import DiT
from framewake.models.llava import Llava
from framewake.pipeline.forecast import cost
from framewake.pipeline.forecast.autoencoder import decode_operations, decode_tiles, encode_operations
from framewake.pipeline.jobs import find_checkpoint
from framewake.weights.load import open_checkpoint
from measuring.floors import Ceilings, ceilings


def clip_work(steps: int, frames: int) -> tuple[float, float]:
    """Operations of the clip that the benchmark makes, and bytes of weights that they read, in float32."""
    checkpoint = open_checkpoint(find_checkpoint("demo"))
    side = checkpoint.settings.resolutions["720p"]
    ratio = checkpoint.vae.spatial_compression
    latents = (1 + (frames - 1) // checkpoint.vae.temporal_compression, side // ratio, side // ratio)
    tokens = math.prod(latents) // math.prod(checkpoint.dit.patch_size)
    text = checkpoint.settings.text_tokens
    scene = cost.Scene(1, tokens, 0, "float32", is_composed=False)  # text is short and its length the prompt's
    engine = engines.get("torch:cpu")
    reader, transformer = (sum(map(math.prod, model.shapes().values())) for model in models(engine, checkpoint))
    operations = steps * cost.step_operations(checkpoint.dit, scene)
    operations += sum(
        decode_operations(checkpoint.vae, tile)
        for tile in decode_tiles(checkpoint.vae, checkpoint.settings.tiling, latents)
    )
    operations += encode_operations(checkpoint.vae, (1, side, side))
    operations += cost.text_operations(checkpoint.llava, reader, text)
    return operations, 4.0 * (steps * transformer + reader)


def models(engine: engines.Engine, checkpoint) -> tuple[Llava, DiT]:
    """The two models that weigh: the large text encoder and the transformer."""
    return Llava(engine, checkpoint.llava), DiT(engine, checkpoint.dit)


def clip_floor(steps: int, frames: int) -> tuple[float, Ceilings]:
    """Seconds below which no program makes this clip on this machine, and what was measured for it."""
    limits = ceilings(torch.float32)
    return limits.floor(*clip_work(steps, frames)), limits
