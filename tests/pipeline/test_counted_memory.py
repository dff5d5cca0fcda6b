"""Bytes alive at the published size, counted on torch's device without memory, against the formulas of the forecast."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from counted_bytes import counted

from framewake import engine
from framewake.config import HUNYUAN_DIT, HUNYUAN_TILING, HUNYUAN_VAE, LLAVA_LLAMA3_8B
from framewake.config15 import HUNYUAN15_TILING, HUNYUAN15_UPSAMPLER, HUNYUAN15_VAE, UpsamplerConfig
from framewake.models import vae_slabs
from framewake.models.dit import DiT, TextStates
from framewake.models.llava import Llava
from framewake.models.manner import Manner
from framewake.models.upsampler import enlarged, upsampled, upsampler_of
from framewake.models.vae import CausalVAE
from framewake.models.vae15 import CellVAE
from framewake.pipeline.forecast import cost
from framewake.sampling.noise import veiled
from framewake.weights.stores.store import Resident

torch = pytest.importorskip("torch")

CLIP = (129, 720, 1280)
LIMIT = 8 * 10**9


@pytest.fixture
def shapeless():
    """An engine whose tensors have shapes and no numbers; its attention is one fused kernel."""
    from cuda_here import CudaHere

    class Shapeless(CudaHere):
        def _attend(self, q, k, v, scale, mask):
            return torch.empty_like(q)

    return Shapeless("meta")


@pytest.mark.parametrize(("batch", "is_eight_bit"), [(1, False), (2, False), (1, True)])  # to eight bits all is rows
@pytest.mark.parametrize("chunk", [None, 16384, 4096])
def test_a_step_at_720p(shapeless, batch, chunk, is_eight_bit):
    shapeless = type(shapeless)("meta", is_eight_bit=is_eight_bit)
    model = DiT(shapeless, dataclasses.replace(HUNYUAN_DIT, double_blocks=2, single_blocks=2))
    kept = {name: torch.empty(shape, dtype=torch.bfloat16, device="meta") for name, shape in model.shapes().items()}
    tokens, text = 33 * 45 * 80, 400
    lengths = (text, text - 50)[:batch]  # with two prompts, attention is done for one after the other

    def step():
        states = shapeless.zeros((batch, text, HUNYUAN_DIT.text_width))
        given = TextStates(states, lengths, shapeless.zeros((batch, HUNYUAN_DIT.pooled_width)))
        rope = (shapeless.zeros((tokens, HUNYUAN_DIT.head_dim)), shapeless.zeros((tokens, HUNYUAN_DIT.head_dim)))
        latents, time = shapeless.zeros((batch, 16, 33, 90, 160)), shapeless.zeros((batch,))
        manner = Manner(chunk_tokens=chunk)
        model(Resident(kept), latents, timestep=time, text=given, rope=rope, guidance=time, manner=manner)

    found = counted(step, kept.values())
    expected = cost.step_bytes(HUNYUAN_DIT, cost.Scene(batch, tokens, text, "bfloat16", False), chunk=chunk)
    held = cost.weights(DiT(shapeless, HUNYUAN_DIT).shapes(), ("double_blocks", "single_blocks"), "bfloat16")
    assert 1 <= expected / found <= 1.1, (expected, found)
    assert found + held.streamed <= LIMIT or chunk is None or batch > 1


@pytest.mark.parametrize(("batch", "chunk"), [(1, None), (2, None), (1, 128), (2, 128)])
def test_a_step_on_a_cpu_is_never_forecast_too_low(batch, chunk):
    here = engine.get("torch:cpu")
    config = dataclasses.replace(HUNYUAN_DIT, double_blocks=1, single_blocks=1, hidden_size=128, heads=1)
    model = DiT(here, config)
    kept = {name: here.zeros(shape) for name, shape in model.shapes().items()}
    frames, first, text = 4, 16 * 16, 64

    def step():
        given = TextStates(
            here.zeros((batch, text, config.text_width)),
            (text, text - 50)[:batch],
            here.zeros((batch, config.pooled_width)),
        )
        rope, time = (here.zeros((frames * first, config.head_dim)),) * 2, here.zeros((batch,))
        latents, manner = here.zeros((batch, 16, frames, 32, 32)), Manner(chunk_tokens=chunk)
        model(Resident(kept), latents, timestep=time, text=given, rope=rope, guidance=time, manner=manner)

    scene = cost.Scene(batch, frames * first, text, "float32", False, first=first, is_host=True)
    assert counted(step, kept.values()) <= cost.step_bytes(config, scene, chunk=chunk)


@pytest.mark.parametrize("batch", [1, 2])
def test_the_longest_prompt_with_its_picture(shapeless, batch):
    full, length = LLAVA_LLAMA3_8B, 103 + 256  # template and prompt, of which one id is the picture's
    vision, text = dataclasses.replace(full.vision, layers=3), dataclasses.replace(full.text, layers=4)
    model = Llava(shapeless, dataclasses.replace(full, vision=vision, text=text))
    kept = {name: torch.empty(shape, dtype=torch.float16, device="meta") for name, shape in model.shapes().items()}
    ids = np.full((batch, length), 7)
    ids[:, 5] = full.image_token_id
    pixels = shapeless.zeros((batch, 3, 336, 336), "float16")
    found = counted(lambda: model(Resident(kept), ids, np.ones_like(ids), pixels), kept.values())
    scene = cost.Scene(batch, 0, 0, "bfloat16", False, read=length - 1 + model.image_tokens)
    expected = cost.text_bytes(full, scene, "float16", is_composed=False)
    assert abs(expected / found - 1) <= 0.1, (expected, found)


@pytest.mark.parametrize("numbers", [None, 1 << 26, 1 << 20])
def test_a_tile_of_129_frames(shapeless, numbers):
    vae = CausalVAE(shapeless, HUNYUAN_VAE)
    kept = {name: torch.empty(shape, dtype=torch.float16, device="meta") for name, shape in vae.shapes().items()}

    def decode():
        latents = shapeless.zeros((1, 16, 17, 32, 32))
        if numbers is None:
            vae.decode(kept, latents)
        else:
            vae_slabs.decode(vae, kept, latents, numbers=numbers)

    found = counted(decode, kept.values())
    held = cost.weights(vae.shapes(), (), "float16").whole
    if numbers is None:
        assert 1 <= cost.tile_bytes(HUNYUAN_VAE, HUNYUAN_TILING, CLIP, "float16") / found <= 1.1
        assert found + held > LIMIT, "whole tiles are for larger devices"
        return
    expected = cost.slab_bytes(HUNYUAN_VAE, HUNYUAN_TILING, CLIP, "float16", slab_numbers=numbers, is_host=False)
    assert found <= expected <= 1.1 * found, (expected, found)
    assert expected + held <= LIMIT


@pytest.mark.parametrize("is_in_slabs", [False, True])
@pytest.mark.parametrize(("dtype", "frames"), [("float16", 129), ("float16", 33), ("float32", 33)])
@pytest.mark.parametrize("make", [CausalVAE, CellVAE])
def test_encoding_a_clip_for_training(shapeless, make, dtype, frames, is_in_slabs):
    config, tiling = (HUNYUAN_VAE, HUNYUAN_TILING) if make is CausalVAE else (HUNYUAN15_VAE, HUNYUAN15_TILING)
    vae = make(shapeless, config)
    kept = {name: torch.empty(x, dtype=getattr(torch, dtype), device="meta") for name, x in vae.shapes().items()}

    def encode():
        pixels = shapeless.zeros((1, 3, frames, 256, 256))
        if is_in_slabs:
            vae.moments_slabs(kept, pixels, cost.ENCODED_NUMBERS)
        else:
            vae.moments(kept, pixels)

    found, facts = counted(encode, kept.values()), {"is_in_slabs": is_in_slabs, "is_host": False}
    expected = cost.encode_bytes(config, tiling, (frames, 352, 640), dtype, **facts)
    assert found <= expected <= 1.1 * found, (expected, found)


@pytest.mark.parametrize(
    ("config", "latent", "smaller"),
    [
        (HUNYUAN15_UPSAMPLER, (32, 31, 45, 80), (30, 53)),
        (HUNYUAN15_UPSAMPLER, (32, 1, 45, 80), (30, 53)),
        (UpsamplerConfig("levels", 32, (256, 512), 3, adds_input=False), (32, 61, 67, 119), (45, 80)),
    ],
)
def test_enlarging_latents(shapeless, config, latent, smaller):
    model = upsampler_of(shapeless, config)
    kept = {name: torch.empty(shape, device="meta") for name, shape in model.shapes().items()}

    def enlarge():
        wide = enlarged(shapeless, shapeless.zeros((1, *latent[:2], *smaller)), *latent[2:])
        sharp = upsampled(model, kept, wide)
        veiled(sharp, shapeless.zeros(wide.shape))

    found, expected = counted(enlarge, kept.values()), cost.upsampler_bytes(config, latent)
    assert found <= expected <= 1.3 * found, (expected, found)


@pytest.mark.parametrize("numbers", [None, 1 << 20, 1 << 26])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_tile_where_cells_are_normed(shapeless, dtype, numbers):
    vae, size = CellVAE(shapeless, HUNYUAN15_VAE), (121, 256, 256)
    kept = {name: torch.empty(x, dtype=getattr(torch, dtype), device="meta") for name, x in vae.shapes().items()}

    def decode():
        latents = shapeless.zeros((1, 32, 31, 16, 16))
        vae.decode(kept, latents) if numbers is None else vae.decode_slabs(kept, latents, numbers)

    found, facts = counted(decode, kept.values()), {"slab_numbers": numbers, "is_host": False}
    expected = (
        cost.tile_bytes(HUNYUAN15_VAE, None, size, dtype)
        if numbers is None
        else cost.slab_bytes(HUNYUAN15_VAE, None, size, dtype, **facts)
    )
    assert found <= expected <= 1.6 * found, (expected, found)
