"""One model here and in diffusers, with the same weights and the same inputs: the demonstration and a middle size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch

from framewake import Pipeline
from framewake import engine as engines
from framewake.config import DiTConfig, TilingConfig, VAEConfig
from framewake.golden import rule
from framewake.models.dit import DiT, TextStates
from framewake.models.tiling import tiled_decode, tiled_encode
from framewake.models.vae import CausalVAE
from framewake.nn.rope import rope_table
from framewake.weights.checkpoint import diffusers as layout
from framewake.weights.checkpoint.hunyuan import COMPONENTS
from framewake.weights.stores.store import Resident
from framewake.weights.writing.export import to_diffusers
from measuring.middle import LATENTS, MIDDLE_DIT, TEXTS, TIMESTEP

MIDDLE_VAE = VAEConfig(
    in_channels=3,
    out_channels=3,
    latent_channels=16,
    block_out_channels=(32, 64, 128, 128),
    layers_per_block=2,
    norm_groups=8,
    scaling_factor=0.476986,
    spatial_compression=8,
    temporal_compression=4,
    mid_block_attention=True,
)
CLIPS = {"demo": (9, 16, 16), "middle": (3, 40, 40)}  # latent sizes of the autoencoder's clips


class DitPair(NamedTuple):
    """One step here, by engine name, and one in diffusers."""

    config: DiTConfig
    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    tokens: int
    weight_bytes: int


class VaePair(NamedTuple):
    """The whole autoencoder in tiles here and in diffusers."""

    ours: Callable[[], np.ndarray]
    theirs: Callable[[], torch.Tensor]


def dit_weights(size: str) -> tuple[DiTConfig, dict[str, np.ndarray], Any]:
    """Configuration, weights as numpy in float32, and diffusers' model with the same ones."""
    if size == "demo":
        parts = Pipeline.load("demo", engine="torch:cpu").parts
        weights = {name: x.numpy() for name, x in parts.get("dit", "float32").weights.part("").items()}
        folder = parts.checkpoint.folder / "transformer"
        theirs = diffusers.HunyuanVideoTransformer3DModel.from_pretrained(folder, dtype=torch.float32)
        return parts.checkpoint.dit, weights, theirs.eval()
    weights = rule.weights(DiT(engines.get("torch:cpu"), MIDDLE_DIT).shapes(), 3)
    content = {name: value for name, value in layout.dit_content(MIDDLE_DIT).items() if not name.startswith("_")}
    theirs = diffusers.HunyuanVideoTransformer3DModel(**content).eval()
    named = to_diffusers(COMPONENTS["dit"], MIDDLE_DIT, weights)
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in named.items()}
    theirs.load_state_dict(tensors, strict=True)
    return MIDDLE_DIT, weights, theirs


def dit_pair(size: str, dtype: Any, *, engine: str = "torch:cpu", grid: tuple[int, int, int] | None = None) -> DitPair:
    """One step of the transformer on the same numbers."""
    config, weights, theirs = dit_weights(size)
    engine = engines.get(engine)
    frames, height, width = grid = grid or LATENTS[size]
    padded, valid = TEXTS[size]
    latents = rule.input("latents", (1, config.in_channels, *grid), 1)
    states = rule.input("states", (1, padded, config.text_width), 1)
    pooled = rule.input("pooled", (1, config.pooled_width), 1)
    table = rope_table((frames, height // 2, width // 2), config.rope_dims, config.rope_theta)

    ours = DiT(engine, config)
    store = Resident({name: engine.asarray(x, dtype) for name, x in weights.items()})
    inputs = {
        "timestep": engine.full((1,), TIMESTEP),
        "text": TextStates(engine.asarray(states[:, :valid]), (valid,), engine.asarray(pooled)),
        "rope": tuple(engine.asarray(x) for x in table),
        "guidance": engine.full((1,), 6000.0),
    }
    own_latents = engine.asarray(latents)

    kind = getattr(torch, dtype)
    theirs = theirs.to(kind)
    their_inputs = {
        "hidden_states": torch.from_numpy(latents).to(kind),
        "timestep": torch.full((1,), TIMESTEP),
        "encoder_hidden_states": torch.from_numpy(states).to(kind),
        "encoder_attention_mask": (torch.arange(padded) < valid)[None].to(kind),
        "pooled_projections": torch.from_numpy(pooled).to(kind),
        "guidance": torch.full((1,), 6000.0, dtype=kind),
        "return_dict": False,
    }

    def step_here() -> Any:
        with torch.no_grad():
            out = ours(store, own_latents, **inputs)
            engine.synchronize()
            return out

    def step_there() -> Any:
        with torch.no_grad():
            return theirs(**their_inputs)[0]

    size_each = 4 if dtype == "float32" else 2
    count = sum(x.size for x in weights.values())
    return DitPair(config, step_here, step_there, frames * height * width // 4, count * size_each)


def vae_models(size: str) -> tuple[VAEConfig, TilingConfig, dict[str, np.ndarray], Any]:
    """Configuration, tiling, weights as numpy in float32, and diffusers' model with the same ones and tiles."""
    parts = Pipeline.load("demo", engine="torch:cpu").parts
    tiling = parts.checkpoint.settings.tiling
    if size == "demo":
        config = parts.checkpoint.vae
        weights = {name: x.numpy() for name, x in parts.get("vae", "float32").weights.part("").items()}
        theirs = diffusers.AutoencoderKLHunyuanVideo.from_pretrained(
            parts.checkpoint.folder / "vae", dtype=torch.float32
        )
    else:
        config = MIDDLE_VAE
        weights = rule.weights(CausalVAE(engines.get("torch:cpu"), config).shapes(), 5)
        content = {name: value for name, value in layout.vae_content(config).items() if not name.startswith("_")}
        theirs = diffusers.AutoencoderKLHunyuanVideo(**content)
        theirs.load_state_dict({name: torch.from_numpy(np.array(x)) for name, x in weights.items()}, strict=True)
    stride = int(tiling.sample_size * (1 - tiling.overlap))
    frames = int(tiling.sample_frames * (1 - tiling.overlap))
    theirs.enable_tiling(tiling.sample_size, tiling.sample_size, tiling.sample_frames, stride, stride, frames)
    return config, tiling, weights, theirs.eval()


def vae_pair(size: str, dtype: Any, *, is_decode: bool, engine: str = "torch:cpu") -> VaePair:
    """Decoding or encoding a clip of that size in the same tiles."""
    config, tiling, weights, theirs = vae_models(size)
    engine, kind = engines.get(engine), getattr(torch, dtype)
    frames, height, width = CLIPS[size]
    shape = (1, config.latent_channels, frames, height, width)
    if not is_decode:
        shape = (1, 3, 4 * (frames - 1) + 1, 8 * height, 8 * width)
    values = rule.input("clip", shape, 1)
    ours = CausalVAE(engine, config)
    held = {name: engine.asarray(x, dtype) for name, x in weights.items()}
    theirs = theirs.to(kind)
    given = torch.from_numpy(values).to(kind)

    def here() -> np.ndarray:
        with torch.no_grad():
            if is_decode:
                return tiled_decode(ours, held, values, tiling)
            return tiled_encode(ours, held, values, tiling)[0]

    def there() -> torch.Tensor:
        with torch.no_grad():
            return theirs.decode(given).sample if is_decode else theirs.encode(given).latent_dist.mode()

    return VaePair(here, there)


def largest_difference(ours: Any, theirs: Any, engine: str = "torch:cpu") -> float:
    """The largest difference of two results, over the largest magnitude of the second."""
    found = ours if isinstance(ours, np.ndarray) else engines.get(engine).numpy(ours)
    expected = theirs if isinstance(theirs, np.ndarray) else theirs.float().numpy()
    return float(np.abs(found - expected).max() / np.abs(expected).max())
