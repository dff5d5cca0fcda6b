"""What is not a LoRA for this transformer is refused by name, never half applied."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from lora_files import ALPHA, TARGETS, diffusers_keys, keys_of, write

from framewake.config import HUNYUAN_DIT
from framewake.errors import CheckpointError
from framewake.golden.modules import HeldTensors
from framewake.models.dit import DiT
from framewake.weights.lora.file import fit, lora_file, open_lora
from framewake.weights.lora.foreign import recognised
from framewake.weights.lora.keys import FORMATS
from framewake.weights.lora.report import report
from framewake.weights.lora.targets import Targets
from framewake.weights.names import diffusers_dit

MODULE = "double_blocks.0.img_mod.linear"
NAME = f"{MODULE}.weight"


def one(style="kohya", **changes):
    return keys_of(style, names=[NAME], alpha=None, **changes)


def pair(module, rows=192, columns=32):
    """A pair of kohya's format for a module."""
    down, up = np.zeros((2, columns), np.float32), np.zeros((rows, 2), np.float32)
    return {f"{module}.lora_down.weight": down, f"{module}.lora_up.weight": up}


def refused(tmp_path, tensors, words, metadata=None, **options):
    path = write(tmp_path / "a.safetensors", tensors, metadata)
    with pytest.raises(CheckpointError, match=words) as caught:
        open_lora(path, TARGETS, **options)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({}, "holds no tensors"),
        (
            pair("lora_unet_double_blocks_0_img_mod_linaer"),
            "none of its 2 keys.*Did you mean 'double_blocks_0_",
        ),
        (one() | pair("lora_unet_double_blocks_9_img_mod_linear"), "2 of its 4 keys.*--lora-partial"),
        (one() | {"extra": np.zeros(1, np.float32)}, "1 of its 3 keys.*'extra'"),
        ({"lora_unet_x.hada_w1_a": np.zeros((2, 2), np.float32)}, "holds LoHa"),
        ({"a.lokr_w1": np.zeros((2, 2), np.float32)}, "holds LoKr"),
        (one() | {f"lora_unet_{MODULE.replace('.', '_')}.dora_scale": np.zeros(2, np.float32)}, "holds DoRA"),
        ({f"diffusion_model.{MODULE}.diff": np.zeros((2, 2), np.float32)}, "full difference"),
        ({key: x for key, x in one().items() if "up" in key}, "only a part of 'double_blocks_0_img_mod_linear'"),
        (pair("lora_unet_double_blocks_0_img_mod_linear", rows=191), r"factors \[191, 2\].*needed are \[192, rank\]"),
        (pair("lora_unet_double_blocks_0_img_mod_linear", columns=64), "a model of another size"),
        (pair("lora_unet_double_blocks_0_img_mod"), "none of its 2 keys"),
        (one() | one("comfyui"), "double_blocks.0.img_mod.linear.weight twice"),
    ],
)
def test_files_that_do_not_fit(tmp_path, tensors, words):
    refused(tmp_path, tensors, words)


FOREIGN = {
    "Stable Diffusion or SDXL": "lora_unet_down_blocks_1_attentions_0_proj_in",
    "Wan": "diffusion_model.blocks.3.self_attn.q",
    "Flux": "lora_unet_double_blocks_0_img_mod_lin",
    "HunyuanVideo-1.5": "double_blocks.53.img_attn_q",
    "Qwen-Image": "transformer.transformer_blocks.1.img_mod.1",
    "LTX-Video or CogVideoX": "transformer.transformer_blocks.0.attn1.to_q",
    "a text encoder": "lora_te1_text_model_encoder_layers_0_mlp_fc1",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_loras_for_other_models_are_named(tmp_path, name):
    refused(tmp_path, pair(FOREIGN[name]), f"looks like a LoRA for {re.escape(name)}: ")


def test_flux_in_other_spellings(tmp_path):
    for key in ("diffusion_model.double_blocks.0.img_attn.qkv", "lora_unet_single_blocks_0_modulation_lin"):
        refused(tmp_path, pair(key), "LoRA for Flux")


def test_what_a_file_says_of_itself_counts(tmp_path):
    refused(
        tmp_path, pair("lora_unet_x"), "LoRA for SDXL", {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    )


def test_width_tells_hunyuan_1_5():
    keys = pair("transformer.transformer_blocks.53.attn.to_q", 2048, 2048)
    assert recognised(keys, {}, [2048]) == "HunyuanVideo-1.5"


def test_our_own_loras_are_not_taken_for_others():
    targets = Targets.of(HUNYUAN_DIT, DiT(None, HUNYUAN_DIT).shapes())
    ours = [f"{name.removesuffix('.weight')}.lora_A.weight" for name in targets.shapes]
    theirs = [
        f"transformer.{name.removesuffix('.weight')}.lora_A.weight"
        for entry in diffusers_dit(HUNYUAN_DIT)
        for name in entry.theirs
        if entry.ours in targets.shapes
    ]
    dotless = [f"lora_unet_{key.removesuffix('.lora_A.weight').replace('.', '_')}.lora_down.weight" for key in ours]
    assert len(theirs) > len(ours) > 300
    for key in [*ours, *theirs, *dotless]:
        assert recognised([key], {}, [3072]) is None, key


def test_every_block_of_flux_and_no_other(tmp_path):
    """Flux has the names and sizes of this model in diffusers' format, but 19 and 38 blocks instead of 20 and 40."""
    targets = Targets.of(HUNYUAN_DIT, DiT(None, HUNYUAN_DIT).shapes())

    def held(doubles, singles):
        names = [f"transformer_blocks.{i}.attn.to_q" for i in range(doubles)]
        names += [f"single_transformer_blocks.{i}.attn.to_q" for i in range(singles)]
        keys = {}
        for name in names:
            keys |= {f"transformer.{name}.lora_A.weight": np.zeros((1, 3072), np.float32)}
            keys |= {f"transformer.{name}.lora_B.weight": np.zeros((3072, 1), np.float32)}
        return HeldTensors(keys)

    with pytest.raises(CheckpointError, match=r"most likely a LoRA for Flux.*--lora-partial"):
        fit(Path("a"), held(19, 38), targets)
    assert len(fit(Path("a"), held(19, 38), targets, allows_partial=True).updates) == 57
    assert len(fit(Path("a"), held(20, 40), targets).updates) == 60
    assert len(fit(Path("a"), held(0, 40), targets).updates) == 40


def test_partial_files_on_request(tmp_path):
    tensors = one() | pair("lora_unet_double_blocks_9_img_mod_linear") | {"extra": np.zeros(1, np.float32)}
    lora = open_lora(write(tmp_path / "a.safetensors", tensors), TARGETS, allows_partial=True)
    assert [update.place.weight for update in lora.updates] == [NAME]
    assert sorted(lora.unmatched) == sorted(key for key in tensors if "9" in key or key == "extra")
    refused(tmp_path, pair("lora_unet_nothing"), "none of its 2 keys", allows_partial=True)


def test_an_underscored_name_with_two_meanings_is_refused(tmp_path):
    targets = Targets({"a_b.c.weight": (4, 4), "a.b_c.weight": (4, 4)})
    with pytest.raises(CheckpointError, match=r"'a_b_c' may mean a\.b_c or a_b\.c"):
        fit(Path("a"), HeldTensors(pair("lora_unet_a_b_c", 4, 4)), targets)
    assert fit(Path("a"), HeldTensors(pair("a_b.c", 4, 4)), targets).updates[0].place.weight == "a_b.c.weight"


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"lora_adapter_metadata": "{"}, "is not JSON"),
        ({"lora_adapter_metadata": "[1]"}, "not an object"),
        ({"lora_adapter_metadata": json.dumps({"transformer.lora_alpha": "8"})}, "lora_alpha is '8'"),
        ({"lora_alpha": "much"}, "lora_alpha is no number"),
    ],
)
def test_strange_configurations(tmp_path, metadata, words):
    refused(tmp_path, diffusers_keys(alpha=None), words, metadata)


@pytest.mark.parametrize("alpha", [np.float32(np.nan), np.zeros(2, np.float32)])
def test_strange_alphas(tmp_path, alpha):
    key = "lora_unet_double_blocks_0_img_mod_linear.alpha"
    refused(tmp_path, one() | {key: np.asarray(alpha)}, "a finite number is expected")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damaged_factors_are_found_when_they_are_measured(tmp_path, value):
    tensors = one()
    tensors[next(iter(tensors))][0, 0] = value
    lora = open_lora(write(tmp_path / "a.safetensors", tensors), TARGETS)
    with pytest.raises(CheckpointError, match="img_mod_linear hold NaN or infinity"):
        report(lora, lambda name: 1.0)


def test_a_lora_of_zeros_is_said_to_change_nothing(tmp_path):
    lora = open_lora(write(tmp_path / "a.safetensors", pair("lora_unet_double_blocks_0_img_mod_linear")), TARGETS)
    assert "it changes nothing" in report(lora, lambda name: 1.0).sentence(1.0)


def test_only_safetensors_are_read(tmp_path):
    for name in ("a.pt", "a.ckpt", "a.bin"):
        (tmp_path / name).write_bytes(b"x")
        with pytest.raises(CheckpointError, match=r"can run code.*only \.safetensors"):
            lora_file(tmp_path / name)
    with pytest.raises(CheckpointError, match="no such LoRA"):
        lora_file(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match=r"holds 0 \.safetensors"):
        lora_file(tmp_path)


def test_formats_have_names():
    assert set(FORMATS) == {"official", "kohya", "diffusers", "comfyui"} and ALPHA != 1
