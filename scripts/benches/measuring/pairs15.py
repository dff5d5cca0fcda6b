"""HunyuanVideo-1.5's models here and in diffusers, random and of middle size, with the same weights and inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import diffusers
import numpy as np
import torch

from framewake import engine as engines
from framewake.config15 import HUNYUAN15_DIT, HUNYUAN15_TILING, HUNYUAN15_VAE
from framewake.golden import rule
from framewake.models.dit import TextPart, TextStates
from framewake.models.dit15 import GLYPH, VISION
from framewake.models.tiling import tiled_decode, tiled_encode
from framewake.nn.rope import rope_table
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.weights.checkpoint.hunyuan15 import COMPONENTS
from framewake.weights.stores.store import Resident
from framewake.weights.writing.export import to_diffusers
from measuring.middle import TIMESTEP
from measuring.pairs import DitPair, VaePair

NAME = "middle-1.5"
DIT = dataclasses.replace(
    HUNYUAN15_DIT,
    hidden_size=768,
    heads=6,
    double_blocks=8,
    text_width=512,
    glyph_widths=(256, *HUNYUAN15_DIT.glyph_widths[1:]),
    vision_width=256,
)
VAE = dataclasses.replace(HUNYUAN15_VAE, latent_channels=16, block_out_channels=(32, 64, 128, 256, 256))
GRID = (9, 24, 24)  # 5,184 image tokens
# Tokens of the picture, and of prompt and quoted text as diffusers' pipeline pads them; so many of the two are valid.
SEEN, PADDED, VALID = 729, (1000, 256), (80, 8)
CLIP = (3, 20, 20)  # of latents: 9 frames of 320 pixels, which are four tiles


def _models(name: str, config: Any, kind: Any) -> tuple[dict[str, np.ndarray], Any]:
    """Weights under our names, and diffusers' model with the same ones."""
    weights = rule.weights(HUNYUAN15.models({name: config}, None)[name].shapes(), 3)
    content = {key: value for key, value in COMPONENTS[name].write(config).items() if not key.startswith("_")}
    theirs = kind(**content).eval()
    named = to_diffusers(COMPONENTS[name], config, weights)
    theirs.load_state_dict({key: torch.from_numpy(np.array(x)) for key, x in named.items()}, strict=True)
    return weights, theirs


def dit_pair(dtype: Any, *, engine: str = "torch:cpu", grid: tuple[int, int, int] | None = None) -> DitPair:
    """One step of the transformer on the same numbers."""
    made, grid, kind = engines.get(engine), grid or GRID, getattr(torch, dtype)
    weights, theirs = _models("dit", DIT, diffusers.HunyuanVideo15Transformer3DModel)
    ours, theirs = HUNYUAN15.transformer(made, DIT), theirs.to(kind)
    store = Resident({name: made.asarray(x, dtype) for name, x in weights.items()})
    widths = {"states": (PADDED[0], DIT.text_width), "glyphs": (PADDED[1], DIT.glyph_widths[0])}
    widths |= {"seen": (SEEN, DIT.vision_width)}
    given = {name: rule.input(name, (1, *shape), 1) for name, shape in widths.items()}
    latents = rule.input("latents", (1, DIT.in_channels, *grid), 1)
    further = {
        VISION: TextPart(made.asarray(given["seen"]), (SEEN,)),
        GLYPH: TextPart(made.asarray(given["glyphs"][:, : VALID[1]]), (VALID[1],)),
    }
    inputs = {
        "timestep": made.full((1,), TIMESTEP),
        "text": TextStates(made.asarray(given["states"][:, : VALID[0]]), (VALID[0],), None, further),
        "rope": tuple(made.asarray(x) for x in rope_table(grid, DIT.rope_dims, DIT.rope_theta)),
    }
    masks = [(torch.arange(padded) < valid)[None].to(kind) for padded, valid in zip(PADDED, VALID, strict=True)]
    their_inputs = {
        "hidden_states": torch.from_numpy(latents).to(kind),
        "timestep": torch.full((1,), TIMESTEP, dtype=kind),  # as its pipeline has it
        "encoder_hidden_states": torch.from_numpy(given["states"]).to(kind),
        "encoder_attention_mask": masks[0],
        "encoder_hidden_states_2": torch.from_numpy(given["glyphs"]).to(kind),
        "encoder_attention_mask_2": masks[1],
        "image_embeds": torch.from_numpy(given["seen"]).to(kind),
        "return_dict": False,
    }
    own_latents = made.asarray(latents)

    def here() -> Any:
        with torch.no_grad():
            out = ours(store, own_latents, **inputs)
            made.synchronize()
            return out

    def there() -> Any:
        with torch.no_grad():
            return theirs(**their_inputs)[0]

    count = sum(x.size for x in weights.values())
    return DitPair(DIT, here, there, grid[0] * grid[1] * grid[2], count * (4 if dtype == "float32" else 2))


def vae_pair(dtype: Any, *, is_decode: bool, engine: str = "torch:cpu") -> VaePair:
    """Decoding or encoding a clip in the same tiles."""
    made, kind = engines.get(engine), getattr(torch, dtype)
    weights, theirs = _models("vae", VAE, diffusers.AutoencoderKLHunyuanVideo15)
    side = HUNYUAN15_TILING.sample_size
    theirs.enable_tiling(side, side, side // 16, side // 16, HUNYUAN15_TILING.overlap)
    ours, theirs = HUNYUAN15.autoencoder(made, VAE), theirs.to(kind)
    held = {name: made.asarray(x, dtype) for name, x in weights.items()}
    shape = (1, VAE.latent_channels, *CLIP)
    if not is_decode:
        shape = (1, 3, 4 * (CLIP[0] - 1) + 1, 16 * CLIP[1], 16 * CLIP[2])
    values = rule.input("clip", shape, 1)
    given = torch.from_numpy(values).to(kind)
    code: Callable[..., Any] = tiled_decode if is_decode else tiled_encode

    def here() -> np.ndarray:
        with torch.no_grad():
            out = code(ours, held, values, HUNYUAN15_TILING)
            return out if is_decode else out[0]

    def there() -> torch.Tensor:
        with torch.no_grad():
            return theirs.decode(given).sample if is_decode else theirs.encode(given).latent_dist.mode()

    return VaePair(here, there)
