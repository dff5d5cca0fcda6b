"""The work of a clip of the demonstration, for its floor: operations, and bytes of weights that they read."""

from __future__ import annotations

import math
from typing import Any

from framewake.models.dit import DiT
from framewake.models.llava import Llava
from framewake.pipeline.checkpoint import find_checkpoint
from framewake.pipeline.condition import TextReader
from framewake.pipeline.forecast import cost
from framewake.pipeline.forecast.autoencoder import decode_operations, decode_tiles, encode_operations
from framewake.weights.checkpoint.load import open_checkpoint

PROMPT = "the red circle moves right"


def clip_work(steps: int, frames: int) -> tuple[float, float]:
    """Operations of the clip that the benchmarks make, and bytes of weights that they read, in float32."""
    checkpoint = open_checkpoint(find_checkpoint("demo"))
    side = checkpoint.settings.resolutions["720p"]
    ratio = checkpoint.vae.spatial_compression
    latents = (1 + (frames - 1) // checkpoint.vae.temporal_compression, side // ratio, side // ratio)
    tokens = math.prod(latents) // math.prod(checkpoint.dit.patch_size)
    text = TextReader(checkpoint).lengths(PROMPT)
    scene = cost.Scene(1, tokens, text.kept, "float32", is_composed=False)
    none: Any = None  # a model states its shapes without an engine
    models = Llava(none, checkpoint.configs["llava"]), DiT(none, checkpoint.dit)
    reader, transformer = (sum(map(math.prod, model.shapes().values())) for model in models)
    operations = steps * cost.step_operations(checkpoint.dit, scene)
    operations += sum(
        decode_operations(checkpoint.vae, tile)
        for tile in decode_tiles(checkpoint.vae, checkpoint.settings.tiling, latents)
    )
    operations += encode_operations(checkpoint.vae, (1, side, side))
    operations += cost.text_operations(checkpoint.configs["llava"], reader, text.read)
    return operations, 4.0 * (steps * transformer + reader)
