"""The transformer against the diffusers class, with the same random weights.

Known departure of theirs: the refiner's MLP is always four times as wide, whatever ``mlp_ratio`` says, so only
that ratio can be compared.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from framewake import engine as engines
from framewake.golden import rule
from framewake.models.dit import DiT, TextStates
from framewake.nn.rope import rope_table
from framewake.weights.checkpoint import diffusers as layout
from framewake.weights.checkpoint.hunyuan import COMPONENTS
from framewake.weights.stores.store import Resident
from framewake.weights.writing.export import to_diffusers

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

from toy_checkpoint import DIT  # noqa: E402

BASE = dataclasses.replace(DIT, double_blocks=2, single_blocks=2, refiner_blocks=2, mlp_ratio=4.0)
CONFIGS = {
    "token_replace": BASE,
    "token_replace without guidance": dataclasses.replace(BASE, has_guidance=False),
    "latent_concat": dataclasses.replace(BASE, condition="latent_concat", in_channels=9, has_guidance=False),
    "none": dataclasses.replace(BASE, condition="none"),
}
GRID, TEXT = (3, 4, 6), 7


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def engine():
    return engines.get("torch:cpu")


def pair(engine, config, seed=3):
    """Our model with weights, and theirs with the same ones."""
    ours = DiT(engine, config)
    weights = rule.weights(ours.shapes(), seed)
    content = {name: value for name, value in layout.dit_content(config).items() if not name.startswith("_")}
    theirs = diffusers.HunyuanVideoTransformer3DModel(**content).eval()
    named = to_diffusers(COMPONENTS["dit"], config, weights)
    tensors = {name: torch.from_numpy(np.array(x)) for name, x in named.items()}
    theirs.load_state_dict(tensors, strict=True)
    return ours, Resident({name: engine.asarray(x) for name, x in weights.items()}), theirs


@pytest.mark.parametrize("lengths", [(7,), (4,), (7, 3)], ids=["full", "padded", "batch"])
@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_same_velocity(engine, config, lengths):
    ours, weights, theirs = pair(engine, config)
    batch = len(lengths)
    latents = torch.from_numpy(rule.input("latents", (batch, config.in_channels, *GRID), 1))
    states = torch.from_numpy(rule.input("states", (batch, TEXT, config.text_width), 1))
    pooled = torch.from_numpy(rule.input("pooled", (batch, config.pooled_width), 1))
    timestep = torch.tensor([873.5, 120.25][:batch])
    guidance = torch.tensor([6016.0, 1000.0][:batch]) if config.has_guidance else None
    cos, sin = rope_table((GRID[0], GRID[1] // 2, GRID[2] // 2), config.rope_dims, config.rope_theta)
    found = ours(
        weights,
        latents,
        timestep=timestep,
        text=TextStates(states, lengths, pooled),
        rope=(torch.from_numpy(cos), torch.from_numpy(sin)),
        guidance=guidance,
    )
    expected = theirs(
        hidden_states=latents,
        timestep=timestep,
        encoder_hidden_states=states,
        encoder_attention_mask=(torch.arange(TEXT) < torch.tensor(lengths)[:, None]).long(),
        pooled_projections=pooled,
        guidance=guidance,
        return_dict=False,
    )[0]
    assert float(expected.abs().max()) > 0.1
    assert float((found - expected).abs().max()) <= 3e-5 * float(expected.abs().max())
