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
from framewake.weights.reading.names import diffusers_dit

MODULE = "double_blocks.0.img_mod.linear"
NAME = f"{MODULE}.weight"
UNDERSCORED = MODULE.replace(".", "_")


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
        ({f"lora_unet_{UNDERSCORED}.hada_w1_a": np.zeros((192, 2), np.float32)}, "has only a part of"),
        ({f"lora_unet_{UNDERSCORED}.lokr_w1": np.zeros((2, 2), np.float32)}, "has only a part of"),
        (one() | {f"lora_unet_{UNDERSCORED}.dora_scale": np.zeros(2, np.float32)}, r"\[2\], needed are \[192\]"),
        ({f"diffusion_model.{MODULE}.diff": np.zeros((2, 2), np.float32)}, r"\[2, 2\], needed are \[192, 32\]"),
        (
            one() | {f"lora_unet_{UNDERSCORED}.lora_mid.weight": np.zeros((2, 2), np.float32)},
            "LoCon with a middle layer",
        ),
        (
            one() | {f"lora_unet_{UNDERSCORED}.oft_blocks": np.zeros(2, np.float32)},
            "1 of its 3 keys belongs to OFT.*rest",
        ),
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
    "Stable Diffusion or SDXL, of ComfyUI": "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q",
    "Stable Diffusion or SDXL, of diffusers": "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q",
    "Stable Diffusion 3": "diffusion_model.joint_blocks.0.x_block.attn.qkv",
    "Wan, of musubi": "lora_unet_blocks_0_cross_attn_k_img",
    "Wan, of diffusers": "transformer.blocks.0.attn1.to_q",
    "Wan": "diffusion_model.blocks.3.self_attn.q",
    "HunyuanVideo-1.5": "double_blocks.53.img_attn_q",
    "Qwen-Image": "transformer.transformer_blocks.1.img_mod.1",
    "LTX-Video or CogVideoX": "transformer.transformer_blocks.0.attn1.to_q",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_loras_for_other_models_are_named(tmp_path, name):
    refused(tmp_path, pair(FOREIGN[name]), f"looks like a LoRA for {re.escape(name.partition(',')[0])}: ")


def test_what_a_file_says_of_itself_counts(tmp_path):
    refused(
        tmp_path, pair("lora_unet_x"), "LoRA for SDXL", {"modelspec.architecture": "stable-diffusion-xl-v1-base/lora"}
    )


def test_a_model_is_no_lora(tmp_path):
    """As a LoRA, a transformer would replace the checkpoint's; an encoder's file has nothing in common with it."""
    for name in (NAME, "language_model.model.layers.0.mlp.up_proj.weight", "decoder.conv_in.bias"):
        refused(tmp_path, {name: np.zeros((192, 32), np.float32)}, "whole weights and no LoRA.*--part dit=")


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


FLUX = {
    "diffusers": ("transformer.transformer_blocks.{}.attn.to_q", "transformer.single_transformer_blocks.{}.attn.to_q"),
    "comfyui": ("diffusion_model.double_blocks.{}.img_attn.proj", "diffusion_model.single_blocks.{}.modulation.lin"),
    "kohya": ("lora_unet_double_blocks_{}_img_attn_proj", "lora_unet_single_blocks_{}_modulation_lin"),
}


@pytest.mark.parametrize("style", FLUX)
def test_every_block_of_flux_and_no_other(style):
    """Flux has the names and sizes of this model in every format, but 19 and 38 blocks instead of 20 and 40."""
    targets = Targets.of(HUNYUAN_DIT, DiT(None, HUNYUAN_DIT).shapes())

    def held(doubles, singles, said=None, more=None):
        keys = {}
        for name, blocks in zip(FLUX[style], (doubles, singles), strict=True):
            for number in blocks:
                rows = 9216 if "modulation" in name else 3072
                keys |= {f"{name.format(number)}.lora_A.weight": np.zeros((1, 3072), np.float32)}
                keys |= {f"{name.format(number)}.lora_B.weight": np.zeros((rows, 1), np.float32)}
        tensors = HeldTensors(keys | (more or {}))
        tensors.metadata = {} if said is None else {"modelspec.architecture": said}
        return tensors

    flux = held(range(19), range(38))
    with pytest.raises(CheckpointError, match=r"most likely a LoRA for Flux.*--lora-partial"):
        fit(Path("a"), flux, targets)
    assert len(fit(Path("a"), flux, targets, allows_partial=True).updates) == 57
    some = (range(3), range(7))
    with pytest.raises(CheckpointError, match="most likely a LoRA for Flux"):
        fit(Path("a"), held(*some, "flux-1-dev/lora"), targets)
    # What fits is ours, whatever else it might be: nothing says that it is not.
    ours = [held(range(20), range(40)), held([], range(40)), held(*some), held(*some, "hunyuan-video/lora")]
    ours.append(held(range(19), range(38), "hunyuan-video"))
    refiner = pair("diffusion_model.txt_in.individual_token_refiner.blocks.0.mlp.0", 12288, 3072)
    ours.append(held(range(19), range(38), more=refiner))
    assert [len(fit(Path("a"), tensors, targets).updates) for tensors in ours] == [60, 40, 10, 10, 57, 58]


def test_another_model_of_which_a_part_has_a_place():
    """Qwen-Image has 60 double blocks of this model's width, whose attention has its names in diffusers' format."""
    targets = Targets.of(HUNYUAN_DIT, DiT(None, HUNYUAN_DIT).shapes())
    keys = {}
    for number in range(60):
        keys |= pair(f"transformer.transformer_blocks.{number}.attn.to_q", 3072, 3072)
    with pytest.raises(CheckpointError, match="looks like a LoRA for Qwen-Image"):
        fit(Path("a"), HeldTensors(keys), targets)


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


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
CONTENTS = {b"<!DOCTYPE html><html>": "web page", POINTER: "Git LFS pointer", b"\x80\x02}q\0.": "bare pickle"}


@pytest.mark.parametrize("content", CONTENTS)
def test_what_is_no_lora_is_named(tmp_path, content):
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(CheckpointError, match=CONTENTS[content]):
            lora_file(tmp_path / name)


def test_paths_without_a_lora(tmp_path):
    with pytest.raises(CheckpointError, match="no such LoRA"):
        lora_file(tmp_path / "gone.safetensors")
    with pytest.raises(CheckpointError, match="holds no LoRA"):
        lora_file(tmp_path)
    with pytest.raises(CheckpointError, match=r"'https://example\.com/a\.safetensors': addresses are not fetched"):
        lora_file("https://example.com/a.safetensors")


def test_folders(tmp_path):
    """The usual file of PEFT or diffusers, the only one, or a hint at the folders below."""
    deep = tmp_path / "models--x" / "snapshots" / "0a1b"
    deep.mkdir(parents=True)
    write(deep / "style.safetensors", one())
    with pytest.raises(CheckpointError, match=r"Further down lie some: .*0a1b; name one"):
        lora_file(tmp_path / "models--x")
    assert lora_file(deep).path == deep / "style.safetensors"
    write(deep / "other.safetensors", one())
    with pytest.raises(CheckpointError, match=r"several files with weights: other\.safetensors, style\.safetensors"):
        lora_file(deep)
    write(deep / "adapter_model.safetensors", one())
    assert lora_file(deep).path.stem == "adapter_model"
    (deep / "adapter_config.json").write_text(json.dumps({"lora_alpha": 4, "init_lora_weights": "pissa_niter_16"}))
    with pytest.raises(CheckpointError, match="init_lora_weights 'pissa_niter_16'"):
        open_lora(deep, TARGETS)


def test_formats_have_names():
    assert set(FORMATS) == {"official", "kohya", "diffusers", "comfyui"} and ALPHA != 1
