"""A checkpoint folder, opened, checked and refused."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil

import numpy as np
import pytest
from toy_checkpoint import DIT, SETTINGS, VAE, write_toy

from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.models.vae import CausalVAE
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.weights.checkpoint.hunyuan import COMPONENTS
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.checkpoint.settings import Domain, Settings, read_settings, write_settings
from framewake.weights.reading.files import open_tensors
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import clip_text, llava
from framewake.weights.writing.export import write_component
from framewake.weights.writing.files import write_tensors


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def folder(toy, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(toy, tmp_path / "copy")


def shapes(checkpoint, component):
    return HUNYUAN.shapes(checkpoint)[component]


@pytest.mark.parametrize("component", COMPONENTS)
def test_weights_come_back_as_they_were_written(engine, toy, component):
    checkpoint = open_checkpoint(toy)
    wanted = shapes(checkpoint, component)
    tensors = checkpoint.store(component, engine, "float32", shapes=wanted).part("")
    assert {name: tuple(x.shape) for name, x in tensors.items()} == wanted
    for name, shape in wanted.items():
        assert np.array_equal(engine.numpy(tensors[name]), rule.weight(name, shape, 7))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_stored_type_is_chosen_by_the_caller(engine, toy, dtype):
    checkpoint = open_checkpoint(toy)
    tensors = checkpoint.store("vae", engine, dtype, shapes=shapes(checkpoint, "vae")).part("")
    assert {engine.dtype(x) for x in tensors.values()} == {dtype}


def test_configurations_and_settings(toy):
    checkpoint = open_checkpoint(toy)
    assert checkpoint.dit == DIT
    assert checkpoint.vae == VAE
    assert checkpoint.settings == SETTINGS
    assert checkpoint.image_processor.size_px == checkpoint.configs["llava"].vision.image_size
    assert all((folder / "tokenizer.json").is_file() for folder in checkpoint.tokenizers.values())


def test_half_precision_storage(tmp_path):
    weights = rule.weights(CausalVAE(None, VAE).shapes(), 1)
    write_component(tmp_path, COMPONENTS["vae"], VAE, weights)
    file = open_tensors(tmp_path / "vae")
    assert {file.dtype(name) for name in file.names()} == {"F16"}
    largest = max(float(np.abs(file.read(name) - x).max()) for name, x in weights.items())
    assert 0 < largest < 2e-3


def test_values_that_half_precision_cannot_hold(tmp_path):
    weights = rule.weights(CausalVAE(None, VAE).shapes(), 1)
    weights["quant_conv.bias"][0] = 1e6
    with pytest.raises(CheckpointError, match=r"quant_conv\.bias"):
        write_component(tmp_path, COMPONENTS["vae"], VAE, weights)


def damage(folder, component, change):
    """Rewrite a component's tensors after a change; the header is all that may be read."""
    path = next((folder / component).glob("*.safetensors"))
    file = open_tensors(path)
    tensors = {name: file.read(name) for name in file.names()}
    change(tensors)
    write_tensors(path, tensors)


def test_all_differences_in_one_report_grouped_by_block(engine, folder):
    def change(tensors):
        del tensors["transformer_blocks.0.attn.to_k.weight"]
        del tensors["transformer_blocks.0.attn.norm_q.weight"]
        tensors["proj_out.bias"] = tensors["proj_out.bias"][:3]
        tensors["single_transformer_blocks.7.extra"] = np.zeros(2, np.float32)

    damage(folder, "transformer", change)
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.store("dit", engine, "float32", shapes=shapes(checkpoint, "dit"))
    lines = str(caught.value).splitlines()
    block = next(line for line in lines if line.startswith("  double_blocks.0:"))
    assert "missing img_attn_q_norm.weight" in block
    assert "missing img_attn_qkv.weight (transformer_blocks.0.attn.to_k.weight)" in block
    assert any(line.startswith("  final_layer: linear.bias is [3] instead of [16]") for line in lines)
    assert any("single_transformer_blocks.7: unexpected extra" in line for line in lines)


def test_pieces_that_cannot_be_joined(engine, folder):
    damage(
        folder, "transformer", lambda t: t.update({k: v[:5] for k, v in t.items() if k.endswith("0.attn.to_q.bias")})
    )
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError, match="pieces of"):
        checkpoint.store("dit", engine, "float32", shapes=shapes(checkpoint, "dit"))


def test_many_differences_stay_readable(engine, folder):
    damage(folder, "vae", lambda tensors: tensors.clear())
    checkpoint = open_checkpoint(folder)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.store("vae", engine, "float32", shapes=shapes(checkpoint, "vae"))
    assert len(str(caught.value).splitlines()) < 15


def test_tensors_that_nothing_reads_may_be_there_or_not(engine, folder):
    def change(tensors):
        tensors["language_model.lm_head.weight"] = np.zeros((4, 16), np.float32)
        tensors["vision_tower.vision_model.embeddings.position_ids"] = np.zeros((1, 17), np.int64)

    damage(folder, "text_encoder", change)
    checkpoint = open_checkpoint(folder)
    assert checkpoint.store("llava", engine, "float32", shapes=shapes(checkpoint, "llava")).part("")
    damage(folder, "text_encoder", lambda tensors: tensors.update({"language_model.other": np.zeros(1, np.float32)}))
    checkpoint = open_checkpoint(folder)  # one that is open keeps the file that it has checked
    with pytest.raises(CheckpointError, match=r"language_model\.other|unexpected"):
        checkpoint.store("llava", engine, "float32", shapes=shapes(checkpoint, "llava"))


NEWER = {
    "language_model.model.": "model.language_model.",
    "vision_tower.vision_model.": "model.vision_tower.",
    "multi_modal_projector.": "model.multi_modal_projector.",
}


@pytest.mark.parametrize("keeps_vision_model", [True, False])
def test_newer_names_of_llava(engine, folder, keeps_vision_model):
    def change(tensors):
        for name in list(tensors):
            old = next(start for start in NEWER if name.startswith(start))
            new = NEWER[old] + ("vision_model." if keeps_vision_model and "vision" in old else "")
            tensors[new + name.removeprefix(old)] = tensors.pop(name)

    damage(folder, "text_encoder", change)
    checkpoint = open_checkpoint(folder)
    wanted = shapes(checkpoint, "llava")
    assert set(checkpoint.store("llava", engine, "float32", shapes=wanted).part("")) == set(wanted)


def test_names_of_both_styles_for_one_tensor_are_refused(folder):
    name = "multi_modal_projector.linear_1.bias"
    damage(folder, "text_encoder", lambda tensors: tensors.update({"model." + name: tensors[name]}))
    with pytest.raises(CheckpointError, match="twice"):
        MappedTensors(open_tensors(folder / "text_encoder"), llava(open_tensors(folder / "text_encoder").names()))


def test_newest_names_of_clip_text():
    names = ["embeddings.token_embedding.weight", "text_model.final_layer_norm.bias", "text_projection.weight"]
    assert [rule.ours for rule in clip_text(names)] == [
        "text_model.embeddings.token_embedding.weight",
        "text_model.final_layer_norm.bias",
        "text_projection.weight",
    ]


def set_field(path, name, value):
    content = json.loads(path.read_text())
    content[name] = value
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "name", "value", "message"),
    [
        ("transformer/config.json", "_class_name", "FluxTransformer2DModel", "another model"),
        ("transformer/config.json", "num_layers", "1", "num_layers"),
        ("transformer/config.json", "num_attention_heads", 0, "num_attention_heads is 0; sizes begin at 1"),
        ("vae/config.json", "block_out_channels", [], r"block_out_channels is \(\); sizes begin at 1"),
        ("transformer/config.json", "guidance_embeds", None, "guidance_embeds"),
        ("transformer/config.json", "rope_axes_dim", [4, 6, 8], "rope_axes_dim"),
        ("transformer/config.json", "image_condition_type", "magic", "magic"),
        ("transformer/config.json", "text_embed_dim", 99, "mixes"),
        ("vae/config.json", "latent_channels", 5, "mixes"),
        ("vae/config.json", "block_out_channels", [8, "8"], "block_out_channels"),
        ("image_processor/preprocessor_config.json", "crop_size", 30, "vision tower"),
        ("image_processor/preprocessor_config.json", "image_mean", [0.5], "image_mean"),
        ("framewake.json", "frame", 5, "Did you mean 'frames'"),
        ("framewake.json", "frames", "5", "frames"),
        ("framewake.json", "is_demo", 1, "is_demo"),
        ("framewake.json", "resolutions", {"720p": "128"}, "resolutions"),
        ("framewake.json", "tiling", {"overlap": "0.25"}, "overlap"),
        ("framewake.json", "domain", "cats", "a value like {'description': ''"),
        ("framewake.json", "domain", {"word": [["cat"]]}, "Did you mean 'words'"),
        ("framewake.json", "domain", {"description": "cats", "words": ["cat"]}, "lists of words"),
        ("framewake.json", "domain", {"description": "cats", "words": [[]]}, "lists of words"),
        ("framewake.json", "domain", {"description": "cats", "words": [["Cat"]]}, "letters a to z"),
        ("framewake.json", "domain", {"description": "cats", "most_edges": 16}, "most_edges is 16.0"),
        ("framewake.json", "domain", {"description": "cats", "most_edges": math.nan}, "most_edges is nan"),
        ("framewake.json", "domain", {"words": [["cat"]]}, "no description"),
    ],
)
def test_bad_config(folder, file, name, value, message):
    set_field(folder / file, name, value)
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(folder)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    "missing", ["model_index.json", "transformer", "vae/config.json", "tokenizer", "image_processor"]
)
def test_incomplete_folder(folder, missing):
    path = folder / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(CheckpointError, match=missing.split("/")[0]):
        open_checkpoint(folder)


def test_not_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match="Check the path"):
        open_checkpoint(tmp_path / "nothing")


def test_first_release_is_recognised_by_its_channels(folder):
    set_field(folder / "transformer" / "config.json", "image_condition_type", None)
    assert open_checkpoint(folder).dit.condition == "none"
    set_field(folder / "transformer" / "config.json", "in_channels", 2 * DIT.out_channels + 1)
    assert open_checkpoint(folder).dit.condition == "latent_concat"


def test_settings_there_and_back(tmp_path):
    settings = dataclasses.replace(SETTINGS, tiling=dataclasses.replace(SETTINGS.tiling, sample_size=64, latent_size=8))
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path) == settings and "domain" not in (tmp_path / "framewake.json").read_text()
    settings = dataclasses.replace(settings, domain=Domain("cats that run", (("cat", "cats"), ("runs", "run")), 0.5))
    write_settings(tmp_path, settings)
    assert read_settings(tmp_path) == settings


def test_without_settings_the_published_ones_hold(tmp_path):
    settings = read_settings(tmp_path)
    assert settings == Settings()
    assert settings.resolutions == {"720p": 960, "540p": 720, "360p": 480}
