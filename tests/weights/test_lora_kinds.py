"""Names, endings and prefixes of every trainer mean the same weights; what belongs elsewhere is counted and told."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from lora_files import ALPHA, BASE, TARGETS, adapted, diffusers_keys, expected, factors, keys_of, rank_of, write
from toy_checkpoint import DIT

from framewake.errors import CheckpointError
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.keys import EXAMPLES, take_apart
from framewake.weights.lora.report import report
from framewake.weights.lora.view import Merger
from framewake.weights.reading.names import comfy_dit, diffusers_dit

COMFY = {
    "img_in.proj": "img_in.proj",
    "time_in.mlp.0": "time_in.in_layer",
    "guidance_in.mlp.2": "guidance_in.out_layer",
    "vector_in.in_layer": "vector_in.in_layer",
    "txt_in.input_embedder": "txt_in.input_embedder",
    "txt_in.t_embedder.mlp.2": "txt_in.t_embedder.out_layer",
    "txt_in.c_embedder.linear_1": "txt_in.c_embedder.in_layer",
    "txt_in.individual_token_refiner.blocks.0.self_attn_qkv": "txt_in.individual_token_refiner.blocks.0.self_attn.qkv",
    "txt_in.individual_token_refiner.blocks.0.mlp.fc1": "txt_in.individual_token_refiner.blocks.0.mlp.0",
    "double_blocks.0.img_attn_qkv": "double_blocks.0.img_attn.qkv",
    "double_blocks.0.txt_attn_proj": "double_blocks.0.txt_attn.proj",
    "double_blocks.0.img_mod.linear": "double_blocks.0.img_mod.lin",
    "double_blocks.0.img_mlp.fc1": "double_blocks.0.img_mlp.0",
    "double_blocks.0.txt_mlp.fc2": "double_blocks.0.txt_mlp.2",
    "single_blocks.0.linear1": "single_blocks.0.linear1",
    "single_blocks.0.modulation.linear": "single_blocks.0.modulation.lin",
    "final_layer.linear": "final_layer.linear",
}
ENDINGS = {
    "lora_down": (".lora_down.weight", ".lora_up.weight"),
    "lora_A": (".lora_A.weight", ".lora_B.weight"),
    "lora.down": (".lora.down.weight", ".lora.up.weight"),
    "_lora.down": ("_lora.down.weight", "_lora.up.weight"),
    "lora_linear_layer": (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    "without weight": (".lora_A", ".lora_B"),
    "an adapter's name": (".lora_A.my-style_0.weight", ".lora_B.my-style_0.weight"),
}
PREFIXES = ("diffusion_model.", "model.diffusion_model.", "transformer.", "base_model.model.transformer.", "")
WRAPPED = (
    "transformer._orig_mod.{}",
    "module.{}",
    "_orig_mod.module.diffusion_model.{}",
    "base_model.model._fsdp_wrapped_module.{}.base_layer",
    "net.{}",
    "state_dict.generator.{}",
    "pipe.Student.model._orig_mod.{}",
)


def made(names, spelling, ending="lora_down", prefix="diffusion_model."):
    """Pairs of our weights under other names, with alpha."""
    tensors = {}
    for name in names:
        up, down = factors(f"{name}.weight")
        key = prefix.format(spelling(name)) if "{}" in prefix else prefix + spelling(name)
        one, other = ENDINGS[ending]
        tensors |= {key + one: down, key + other: up, f"{key}.alpha": np.asarray(ALPHA, np.float32)}
    return tensors


def opened(tmp_path, tensors, metadata=None, **options):
    return open_lora(write(tmp_path / "a.safetensors", tensors, metadata), TARGETS, **options)


def merged(engine, lora, scale=1.0):
    merger = Merger(engine, [lora])
    base = {name: engine.asarray(x, "float32") for name, x in BASE.items()}
    return {name: engine.numpy(merger.merged(name, x, [scale])) for name, x in base.items()}


def check(engine, lora, names):
    found = merged(engine, lora)
    for name, base in BASE.items():
        if name.removesuffix(".weight") in names:
            want = expected(name)
            assert np.abs(found[name] - want).max() <= 2e-6 * np.abs(want).max(), name
        else:
            assert np.array_equal(found[name], base), name


@pytest.mark.parametrize("ending", ENDINGS)
def test_modules_under_comfyuis_names(engine, tmp_path, ending):
    lora = opened(tmp_path, made(COMFY, COMFY.get, ending))
    assert lora.format == "comfyui" and not lora.unmatched
    check(engine, lora, COMFY)


@pytest.mark.parametrize("prefix", [*PREFIXES, *WRAPPED])
def test_prefixes_and_wrappers(engine, tmp_path, prefix):
    check(engine, opened(tmp_path, made(COMFY, COMFY.get, prefix=prefix)), COMFY)


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_unet__orig_mod_", "lycoris_", ""])
def test_comfyuis_names_with_underscores(engine, tmp_path, prefix):
    names = [name for name in COMFY if "blocks" in name] if not prefix else COMFY
    lora = opened(tmp_path, made(names, lambda name: COMFY[name].replace(".", "_"), prefix=prefix))
    assert lora.format == "kohya"
    check(engine, lora, names)


def test_every_name_of_a_checkpoint_of_comfyui_is_one_of_a_lora():
    names = [place for place, found in TARGETS._places.items() if found.dialect == "ours"]
    rules = {rule.theirs[0]: rule.ours for rule in comfy_dit(f"{COMFY.get(n, n)}.weight" for n in names)}
    for theirs, ours in rules.items():
        place = TARGETS.find(theirs.removesuffix(".weight"), is_underscored=False)
        assert place is not None and (place.weight == ours or ours not in TARGETS.tensors)


def test_pieces_of_onetrainers_form(engine, tmp_path):
    """Query, key, value and MLP are counted; MLPs begin with fc0; embedders have diffusers' numbers."""
    tensors, seen = {}, set()
    for rule in diffusers_dit(DIT):
        if rule.ours not in adapted():
            continue
        up, down = factors(rule.ours)
        module = rule.ours.removesuffix(".weight").replace("mlp.fc1", "mlp.fc0")
        module = module.replace("t_embedder.mlp.0", "t_embedder.linear_1")
        rows = np.split(up, np.cumsum(rule.rows)[:-1]) if rule.rows else [up]
        for number, part in enumerate(rows):
            key = f"transformer.{module}.{number}" if rule.rows else f"transformer.{module}"
            tensors |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": np.ascontiguousarray(part)}
            tensors[f"{key}.alpha"] = np.asarray(ALPHA, np.float32)
        seen.add(rule.ours.removesuffix(".weight"))
    assert "transformer.single_blocks.0.linear1.3.lora_up.weight" in tensors
    lora = opened(tmp_path, tensors)
    assert not lora.unmatched and "omi" in lora.format
    check(engine, lora, seen)


def split_pairs(count, spelling):
    """The pieces of the fused layers as kohya's scripts split them: numbered pairs, and one alpha for all."""
    tensors, seen = {}, []
    for rule in diffusers_dit(DIT):
        if not rule.rows or not rule.ours.endswith(".weight"):
            continue
        up, down = factors(rule.ours)
        key = spelling(rule.ours.removesuffix(".weight"))
        for number, rows in enumerate(np.split(up, np.cumsum(rule.rows)[:-1])[:count]):
            tensors[f"{key}.lora_down.{number}.weight"] = down
            tensors[f"{key}.lora_up.{number}.weight"] = np.ascontiguousarray(rows)
        tensors[f"{key}.alpha"] = np.asarray(ALPHA, np.float32)
        seen.append(rule.ours.removesuffix(".weight"))
    return tensors, seen


@pytest.mark.parametrize("spelling", [lambda m: "lora_unet_" + m.replace(".", "_"), "diffusion_model.{}".format])
def test_numbered_pairs_are_pieces_and_no_adapters(engine, tmp_path, spelling):
    tensors, seen = split_pairs(9, spelling)
    lora = opened(tmp_path, tensors)
    assert len(lora.updates) > 3 * len(seen)
    check(engine, lora, seen)


def test_a_controlnet_is_not_taken_for_the_transformer(tmp_path):
    for prefix in ("controlnet.", "pipe.controlnet.", "control_model.", "lora_controlnet_"):
        with pytest.raises(CheckpointError, match="none of its 3 keys fits"):
            opened(tmp_path, made(["double_blocks.0.img_attn_qkv"], lambda name: name, prefix=prefix))


def test_several_adapters_are_named_and_one_can_be_chosen(engine, tmp_path):
    names = ["double_blocks.0.img_attn_qkv"]
    first = made(names, lambda name: name, "an adapter's name")
    second = {key.replace("my-style_0", "other"): x * 2 for key, x in first.items() if "lora" in key}
    with pytest.raises(CheckpointError, match=r"2 adapters: my-style_0, other.*--adapter my-style_0"):
        opened(tmp_path, first | second)
    check(engine, opened(tmp_path, first | second, adapter="my-style_0"), names)
    with pytest.raises(CheckpointError, match=r"no adapter 'othr'; it has my-style_0, other\. Did you mean 'other'"):
        opened(tmp_path, first | second, adapter="othr")


BESIDE = {
    "lora_te1_text_model_encoder_layers_0_mlp_fc1": "text encoders",
    "lora_te_text_model_encoder_layers_0_mlp_fc1": "text encoders",
    "text_encoder_2.text_model.encoder.layers.0.mlp.fc1": "text encoders",
    "text_encoders.llava.transformer.model.layers.0.mlp": "text encoders",
    "clip_l.text_model.encoder.layers.0.mlp.fc1": "text encoders",
    "llama.model.layers.0.mlp.up_proj": "text encoders",
    "vae.encoder.conv_in": "the autoencoder",
}


@pytest.mark.parametrize("module", BESIDE)
def test_keys_for_other_parts_are_counted(engine, tmp_path, module):
    names = ["double_blocks.0.img_attn_qkv"]
    more = {f"{module}.lora_{x}.weight": np.zeros((2, 2), np.float32) for x in ("down", "up")}
    tensors = made(names, lambda name: name) | more
    words = rf"2 of its 5 keys are for .*{BESIDE[module]}.*--lora-partial applies the rest, 1 module\."
    with pytest.raises(CheckpointError, match=words):
        opened(tmp_path, tensors)
    lora = opened(tmp_path, tensors, allows_partial=True)
    check(engine, lora, names)
    assert re.search(rf"2 keys left out \(2 for .*{BESIDE[module]}\)", report(lora).sentence())
    with pytest.raises(CheckpointError, match="all of its 2 keys are for"):
        opened(tmp_path, more, allows_partial=True)


def test_modules_of_another_size_are_left_out_on_request(engine, tmp_path):
    """The input layer of another variant of the model has more channels."""
    names = ["double_blocks.0.img_attn_qkv"]
    wide = {"diffusion_model.img_in.proj.lora_down.weight": np.zeros((2, 33, 1, 2, 2), np.float32)}
    wide["diffusion_model.img_in.proj.lora_up.weight"] = np.zeros((32, 2, 1, 1, 1), np.float32)
    tensors = made(names, lambda name: name) | made(["final_layer.linear"], lambda name: name) | wide
    with pytest.raises(CheckpointError, match=r"img_in.proj has the factors .*another size.*--lora-partial"):
        opened(tmp_path, tensors)
    check(engine, opened(tmp_path, tensors, allows_partial=True), [*names, "final_layer.linear"])


NAME = "single_blocks.0.linear2.weight"


@pytest.mark.parametrize(
    ("style", "metadata", "alpha"),
    [
        ("comfyui", {"lora_alpha": "2"}, 2.0),
        ("comfyui", {"network_alpha": "2.5"}, 2.5),
        ("kohya", {"ss_network_alpha": "2.0", "ss_network_dim": "4"}, 2.0),
        ("kohya", {"ss_network_alpha": "None"}, None),
        # Converters to dotted names multiply alpha into the factors and keep what kohya said.
        ("comfyui", {"ss_network_alpha": "2.0"}, None),
    ],
)
def test_alpha_of_a_whole_file(engine, tmp_path, style, metadata, alpha):
    lora = opened(tmp_path, keys_of(style, alpha=None, names=[NAME]), metadata)
    assert np.abs(merged(engine, lora)[NAME] - expected(NAME, alpha=alpha)).max() < 2e-6


@pytest.mark.parametrize(
    ("pattern", "alpha"),
    [
        ("proj_out", 6.0),
        ("^single_transformer_blocks.0.proj_out$", 6.0),
        (r".*blocks\.\d+\.proj_out", 6.0),
        ("out", 2.0),
    ],
)
def test_patterns_of_peft_choose_modules(tmp_path, pattern, alpha):
    config = {"lora_alpha": 2, "alpha_pattern": {pattern: 6}}
    write(tmp_path / "adapter_model.safetensors", diffusers_keys(alpha=None, names=[NAME]))
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    [update] = open_lora(tmp_path, TARGETS).updates
    assert update.factor() == alpha / rank_of(NAME)


@pytest.mark.parametrize("pattern", ["(a+)+$", ".*.*.*.*.*x", "a{9}"])
def test_patterns_that_could_take_for_ever_are_refused(tmp_path, pattern):
    write(tmp_path / "adapter_model.safetensors", diffusers_keys(alpha=None, names=[NAME]))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": 2, "alpha_pattern": {pattern: 6}}))
    with pytest.raises(CheckpointError, match="chooses modules by"):
        open_lora(tmp_path, TARGETS)


def test_the_endings_that_the_page_of_formats_shows_are_of_their_parts():
    for part, endings in EXAMPLES.items():
        for ending in endings:
            key = take_apart(f"transformer.double_blocks.0.img_attn_qkv{ending}")
            assert (key.module, key.part) == ("double_blocks.0.img_attn_qkv", part), ending
