"""diffusers' own loader judges LoRA files: those written here load there and do the same, and the other way round."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import ALPHA, TARGETS, keys_of, write
from toy_checkpoint import DIT, write_toy

from framewake import engine as engines
from framewake.golden import rule
from framewake.models.dit import DiT, TextStates
from framewake.nn.rope import rope_table
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.train.about import Used, metadata_of
from framewake.train.factors import chosen, start
from framewake.train.optimiser import OptimiserState
from framewake.train.settings import training_from
from framewake.train.writer import write_lora
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.convert import convert
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.view import LoraView

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")

TOLERANCE = 5e-5
# What PEFT adapts on request; the final modulation and the embedders are our own tests' business.
MODULES = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_v_proj", "to_add_out", "proj_mlp", "proj_out"]
MODULES += ["net.0.proj", "net.2", "norm1.linear", "norm.linear", "norm_out.linear", "x_embedder.proj"]


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("checkpoint"))


@pytest.fixture
def theirs(folder):
    pipeline = diffusers.HunyuanVideoImageToVideoPipeline.from_pretrained(folder, dtype=torch.float32)
    yield pipeline
    pipeline.unload_lora_weights()


def draw(name, shape):
    return torch.from_numpy(rule.input(name, shape, 9))


LATENTS, STATES = draw("latents", (1, 4, 2, 4, 6)), draw("states", (1, 5, 16))
POOLED, TIMESTEP, GUIDANCE = draw("pooled", (1, 16)), torch.tensor([700.0]), torch.tensor([6016.0])


def our_velocity(folder, path=None, scale=1.0):
    engine = engines.get("torch:cpu")
    dit = DiT(engine, DIT)
    weights = open_checkpoint(folder).store("dit", engine, "float32", shapes=dit.shapes())
    if path is not None:
        weights = LoraView(engine, weights, [open_lora(path, TARGETS)])
        weights.use([scale])
    rope = tuple(torch.from_numpy(x) for x in rope_table((2, 2, 3), DIT.rope_dims, DIT.rope_theta))
    text = TextStates(STATES, (5,), POOLED)
    return dit(weights, LATENTS, timestep=TIMESTEP, text=text, rope=rope, guidance=GUIDANCE)


def their_velocity(pipeline):
    return pipeline.transformer(
        hidden_states=LATENTS,
        timestep=TIMESTEP,
        encoder_hidden_states=STATES,
        encoder_attention_mask=torch.ones(1, 5, dtype=torch.long),
        pooled_projections=POOLED,
        guidance=GUIDANCE,
    )[0]


def check(found, expected, plain):
    """The largest difference over the largest magnitude; the LoRA itself must move far more than that."""
    size = float(expected.abs().max())
    assert float((plain - expected).abs().max()) > 0.05 * size
    assert float((found - expected).abs().max()) <= TOLERANCE * size


def loaded(pipeline, path, scale=1.0):
    pipeline.load_lora_weights(str(path.parent), weight_name=path.name, adapter_name="it")
    pipeline.set_adapters("it", scale)
    return their_velocity(pipeline)


def weakened(tensors):
    """Factors that leave the model in its range."""
    return {key: x if key.endswith(".alpha") else x * np.float32(0.5) for key, x in tensors.items()}


@pytest.mark.parametrize("alpha", [None, ALPHA])
def test_a_file_converted_to_their_format_does_the_same_there(folder, theirs, tmp_path, alpha):
    source, path = tmp_path / "a.safetensors", tmp_path / "diffusers.safetensors"
    write(
        source,
        {key: x * np.float32(0.5) if "lora_" in key else x for key, x in keys_of("official", alpha=alpha).items()},
    )
    convert(open_lora(source, TARGETS), path, "diffusers", TARGETS)
    expected = loaded(theirs, path, 0.7)
    for file in (source, path):
        check(our_velocity(folder, file, 0.7), expected, our_velocity(folder))


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_a_trained_file_does_the_same_there(folder, theirs, tmp_path, stored):
    settings = training_from({"rank": 4, "alpha": 2.0, "format": "diffusers", "stored": stored})
    factors = start(chosen(TARGETS.tensors, HUNYUAN.trained.modules), settings.rank, settings.seed)
    moved = {name: (x + 0.2 * rule.input(name, x.shape, 3)).astype(np.float32) for name, x in factors.items()}
    about = metadata_of(settings, 3, Used("toy", HUNYUAN.trained, "float32", 6.0, [(5, 64, 64)], batches=1, batch=1))
    path = tmp_path / "trained.safetensors"
    write_lora(path, OptimiserState(3, moved, moved, moved), settings, targets=TARGETS, about=about)
    check(our_velocity(folder, path), loaded(theirs, path), our_velocity(folder))
    assert open_lora(path, TARGETS).tensors.metadata["ss_steps"] == "3"


def test_original_names_are_read_alike(folder, theirs, tmp_path):
    """diffusers has a table of its own for these names, without alpha, and with the published width for linear1."""
    names = [n for n in TARGETS.shapes if n.startswith(("double_blocks", "single_blocks")) and "linear1" not in n]
    tensors = weakened(keys_of("comfyui", "lora_A", alpha=None, names=names))
    tensors = {key.replace("diffusion_model.", "transformer."): x for key, x in tensors.items()}
    path = write(tmp_path / "a.safetensors", tensors)
    check(our_velocity(folder, path), loaded(theirs, path), our_velocity(folder))


@pytest.mark.parametrize("is_root_scaled", [False, True])
def test_a_file_that_they_wrote(folder, theirs, tmp_path, is_root_scaled):
    from peft import LoraConfig
    from peft.utils import get_peft_model_state_dict

    torch.manual_seed(0)
    pattern = {"to_q": 2, "proj_mlp": 5}
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        rank_pattern=pattern,
        alpha_pattern={"to_q": 3},
        target_modules=MODULES,
        init_lora_weights=False,
        use_rslora=is_root_scaled,
    )
    theirs.transformer.add_adapter(config, adapter_name="default")
    expected = their_velocity(theirs)
    theirs.save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(theirs.transformer, adapter_name="default"),
        **diffusers.training_utils._collate_lora_metadata({"transformer": theirs.transformer}),
    )
    path = tmp_path / "pytorch_lora_weights.safetensors"
    lora = open_lora(path, TARGETS)
    assert {2, 4, 5} == {update.rank for update in lora.updates} and lora.format == "diffusers"
    assert all(update.alpha in (3, 6) for update in lora.updates)
    check(our_velocity(folder, path), expected, our_velocity(folder))
