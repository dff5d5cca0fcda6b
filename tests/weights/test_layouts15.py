"""Checkpoints of HunyuanVideo-1.5: recognised from their files, in every published layout, and read strictly."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy15 import SETTINGS, SIGLIP, SPARSE, toy15_parts, write_qwen_tokenizer, write_toy15

from framewake.config15 import HUNYUAN15_DIT, HUNYUAN15_VAE, TILES, VARIANTS, QwenConfig
from framewake.errors import CheckpointError, InputError
from framewake.pipeline.hunyuan import family_of
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.weights.checkpoint import configs15, hunyuan15
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import SinglePart, open_checkpoint
from framewake.weights.checkpoint.verify import verify
from framewake.weights.reading import names15
from framewake.weights.reading.files import TensorFile
from framewake.weights.writing.convert import convert
from framewake.weights.writing.files import write_tensors

DATA = Path(__file__).parent.parent / "data"
VARIANT = "480p_i2v_distilled"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy15(tmp_path_factory.mktemp("toy15") / "whole")


def split(tensors):
    """A transformer's tensors as Tencent publishes them: queries, keys and values apart."""
    found = {}
    for name, values in tensors.items():
        if "_attn_qkv." in name and name.startswith("double"):
            found |= {
                name.replace("_qkv", f"_{letter}"): piece
                for letter, piece in zip("qkv", np.split(values, 3), strict=True)
            }
        else:
            found[name] = values
    return found


def sparse_content(tiles):
    """What the original's class writes of its sparse attention."""
    return {
        "attn_mode": "flex-block-attn",
        "attn_param": {
            "win_size": [list(tiles.window)], "win_type": "fixed", "win_ratio": 10, "tile_size": list(tiles.tile),
            "ssta_topk": tiles.kept, "ssta_threshold": 0.0, "ssta_lambda": tiles.likeness,
            "ssta_sampling_type": "importance", "ssta_adaptive_pool": None, "attn_sparse_type": "ssta",
            "attn_pad_type": "zero", "attn_use_text_mask": 1, "attn_mask_share_within_head": 0,
        },
    }  # fmt: skip


def write_tree(root, variant=VARIANT, **changes):
    """Tencent's tree with a toy in it."""
    parts = toy15_parts(**changes)
    config, tensors = parts["dit"]
    place = root / "transformer" / variant
    place.mkdir(parents=True)
    content = {
        "heads_num": 2, "mm_double_blocks_depth": 2, "hidden_size": 32, "out_channels": 4, "rope_dim_list": [4, 6, 6],
        "text_states_dim": 16, "vision_states_dim": 16, "ideal_task": "i2v" if config.needs_picture else "t2v",
        "text_embed_2_dim": 16, "glyph_inner_widths": [12, 14], "use_meanflow": config.is_step_distilled,
        "attn_mode": "flash",
    }  # fmt: skip
    content |= {} if config.tiles is None else sparse_content(config.tiles)
    (place / "config.json").write_text(json.dumps(content))
    write_tensors(place / "diffusion_pytorch_model.safetensors", split(tensors))
    for name, where in (
        ("vae", "vae"),
        ("qwen", "text_encoder/llm"),
        ("siglip", "vision_encoder/siglip/image_encoder"),
    ):
        if name in parts:
            row = hunyuan15.COMPONENTS[name]
            (root / where).mkdir(parents=True)
            (root / where / "config.json").write_text(json.dumps(row.write(parts[name][0])))
            write_tensors(root / where / row.file, parts[name][1])
    write_qwen_tokenizer(root / "text_encoder" / "llm")
    glyphs = root / "text_encoder" / "Glyph-SDXL-v2" / "checkpoints"
    glyphs.mkdir(parents=True)
    torch = pytest.importorskip("torch")
    state = {f"module.text_tower.encoder.{name}": torch.from_numpy(x) for name, x in parts["byt5"][1].items()}
    torch.save({"state_dict": state}, glyphs / "byt5_model.pt")
    return root


def checked(checkpoint):
    """The checkpoint, after every part was compared with its model."""
    problems = [f.problem for f in verify(checkpoint, HUNYUAN15.shapes(checkpoint), is_full=True) if f.problem]
    assert problems == []
    return checkpoint


def same(one, two):
    shapes = HUNYUAN15.shapes(one)
    for name in shapes:
        first, second = one.check(name, shapes[name]), two.check(name, shapes[name])
        assert all(np.array_equal(first.read(tensor), second.read(tensor)) for tensor in shapes[name]), name


def test_the_family_is_told_by_the_files(folder, tmp_path):
    checkpoint = checked(open_checkpoint(folder))
    assert family_of(checkpoint) is HUNYUAN15 and checkpoint.settings.guidance_scale == 6.0
    tree = checked(open_checkpoint(write_tree(tmp_path / "tree")))
    assert family_of(tree) is HUNYUAN15 and tree.configs == checkpoint.configs
    same(checkpoint, tree)
    file = tmp_path / "tree" / "transformer" / VARIANT / "diffusion_pytorch_model.safetensors"
    assert open_checkpoint(file).configs == checkpoint.configs


def test_a_variant_decides_what_nothing_else_tells(tmp_path):
    settings = open_checkpoint(write_tree(tmp_path / "one")).settings
    assert (settings.guidance_scale, settings.flow_shift, settings.steps) == (1.0, 5.0, 50)
    assert settings.resolutions == {"480p": 640} and settings.name == f"HunyuanVideo-1.5 {VARIANT}"
    plain = open_checkpoint(write_tree(tmp_path / "two", "720p_t2v", is_i2v=False))
    assert (plain.settings.guidance_scale, plain.settings.flow_shift, plain.has_vision) == (6.0, 9.0, False)
    sparse = open_checkpoint(write_tree(tmp_path / "four", "720p_i2v_distilled_sparse", tiles=SPARSE))
    assert sparse.dit.tiles == SPARSE and (sparse.settings.guidance_scale, sparse.settings.flow_shift) == (1.0, 7.0)
    step = open_checkpoint(write_tree(tmp_path / "three", "480p_i2v_step_distilled", is_step_distilled=True))
    assert (step.settings.guidance_scale, step.settings.flow_shift, step.settings.steps) == (1.0, 7.0, 12)


@pytest.mark.parametrize(
    ("variant", "changes", "words"),
    [
        ("480p_t2v", {}, "is called 480p_t2v, and its config.json is another variant's"),
        ("720p_i2v_distilled_sparse", {}, "is called 720p_i2v_distilled_sparse, and its config.json is another"),
        ("720p_i2v_distilled", {"tiles": SPARSE}, "is called 720p_i2v_distilled, and its config.json is another"),
        ("480p_i2v", {"is_step_distilled": True}, "does not say which variant it is"),
    ],
)
def test_a_folder_called_otherwise_than_it_is(tmp_path, variant, changes, words):
    with pytest.raises(CheckpointError, match=words):
        open_checkpoint(write_tree(tmp_path / "tree", variant, **changes))


def test_a_tree_with_several_transformers_asks_for_one(tmp_path):
    root = write_tree(tmp_path / "tree")
    shutil.copytree(root / "transformer" / VARIANT, root / "transformer" / "480p_i2v")
    with pytest.raises(CheckpointError, match=r"has several transformers \(480p_i2v, 480p_i2v_distilled\): name one"):
        open_checkpoint(root)
    assert open_checkpoint(root / "transformer" / "480p_i2v").settings.guidance_scale == 6.0


def test_single_files_as_comfyui_stores_them(folder, tmp_path):
    parts, whole = toy15_parts(), write_tree(tmp_path / "tree")
    name = tmp_path / "hunyuanvideo1.5_480p_i2v_cfg_distilled_fp16.safetensors"
    write_tensors(name, {f"model.diffusion_model.{key}": x for key, x in parts["dit"][1].items()})
    files = {"dit": name}
    renamed = {"qwen": lambda key: key.replace("model.", "model.language_model."), "byt5": lambda key: f"encoder.{key}"}
    for part in ("vae", "qwen", "byt5", "siglip"):
        files[part] = tmp_path / part / f"{part}.safetensors"
        files[part].parent.mkdir()
        (files[part].parent / "config.json").write_text(json.dumps(hunyuan15.COMPONENTS[part].write(parts[part][0])))
        write_tensors(files[part], {renamed.get(part, str)(key): x for key, x in parts[part][1].items()})
    given = [f"{part}={path}" for part, path in files.items() if part != "siglip"]
    opened = open_checkpoint(whole, parse_files(given))
    same(checked(opened), open_checkpoint(folder))
    assert opened.settings.guidance_scale == 1.0
    for part, path in files.items():
        assert SinglePart(path).row.name == part
    other = name.rename(tmp_path / "nothing.safetensors")
    with pytest.raises(CheckpointError, match="does not say which variant it is, and its tensors are the same in all"):
        open_checkpoint(whole, parse_files([f"dit={other}"]))
    named = open_checkpoint(whole, parse_files([f"dit={other}", "variant=720p_i2v_distilled"]))
    assert (named.settings.flow_shift, named.settings.resolutions) == (7.0, {"720p": 960})
    with pytest.raises(CheckpointError, match="is called 480p_i2v_step_distilled, and its tensors are another"):
        open_checkpoint(whole, parse_files([f"dit={other}", "variant=480p_i2v_step_distilled"]))
    with pytest.raises(InputError, match="has no part 'clip': its parts are dit, dit-scales, vae, qwen, byt5, siglip"):
        open_checkpoint(folder, parse_files([f"clip={other}"]))


def test_names_of_files_tell_their_variants():
    published = {
        "hunyuanvideo1.5_480p_t2v_fp16.safetensors": "480p_t2v",
        "hunyuanvideo1.5_720p_i2v_cfg_distilled_fp8_scaled.safetensors": "720p_i2v_distilled",
        "HunyuanVideo-1.5-Diffusers-720p_i2v_distilled": "720p_i2v_distilled",
        "model.safetensors": None,
    }
    for name, variant in published.items():
        assert hunyuan15.named_variant(Path("/x/y") / name, is_step_distilled=False) == variant
    step = Path("/x/y/hunyuanvideo1.5_480p_i2v_step_distilled_bf16.safetensors")
    assert hunyuan15.named_variant(step, is_step_distilled=True) == "480p_i2v_step_distilled"
    assert len(VARIANTS) == 11 and all(VARIANTS[name].steps in (12, 50) for name in VARIANTS)


@pytest.mark.parametrize("layout", ["diffusers", "framewake", "tencent"])
def test_it_is_converted(folder, tmp_path, layout):
    checkpoint = open_checkpoint(folder)
    list(convert(checkpoint, tmp_path / "x", shapes=HUNYUAN15.shapes(checkpoint), layout=layout))
    found = checked(open_checkpoint(tmp_path / "x"))
    assert found.configs == checkpoint.configs and found.settings == checkpoint.settings
    same(checkpoint, found)


def tensors_of(root):
    """Every tensor of a folder as the bytes of its numbers, by file and name."""
    found = {}
    for path in sorted(root.rglob("*.safetensors")):
        file = TensorFile(path)
        found |= {(path.relative_to(root), name): file.raw(name).tobytes() for name in file.names()}
    return found


VARIANTS_15 = [
    ("480p_i2v", {}, {}),
    ("480p_t2v", {"is_i2v": False}, {}),
    ("480p_i2v_step_distilled", {"is_step_distilled": True}, {}),
    ("720p_i2v_distilled_sparse", {"tiles": SPARSE}, {"resolutions": {"720p": 96}, "guidance_scale": 1.0}),
]


@pytest.mark.parametrize(("variant", "changes", "settings"), VARIANTS_15, ids=[each[0] for each in VARIANTS_15])
def test_tencents_tree_and_back(tmp_path, variant, changes, settings):
    first = write_toy15(tmp_path / "first", settings=replace(SETTINGS, **settings), **changes)
    for source, target, layout in (("first", "tree", "tencent"), ("tree", "back", "diffusers")):
        checkpoint = checked(open_checkpoint(tmp_path / source))
        list(convert(checkpoint, tmp_path / target, shapes=HUNYUAN15.shapes(checkpoint), layout=layout))
    assert tensors_of(tmp_path / "back") == tensors_of(first)
    ours = checked(open_checkpoint(tmp_path / "tree"))
    assert ours.layout.weights["dit"][0].name == variant and ours.settings == open_checkpoint(first).settings
    published = write_tree(tmp_path / "published", variant, **changes)
    place = f"transformer/{variant}/diffusion_pytorch_model.safetensors"
    assert set(TensorFile(tmp_path / "tree" / place).names()) == set(TensorFile(published / place).names())
    pickles = [next(root.rglob("byt5_model.pt")) for root in (tmp_path / "tree", published)]
    torch = pytest.importorskip("torch")
    states = [torch.load(path, weights_only=True)["state_dict"] for path in pickles]
    assert set(states[0]) == set(states[1]) and all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    (tmp_path / "tree" / "framewake.json").unlink()
    assert open_checkpoint(tmp_path / "tree").settings.name == f"HunyuanVideo-1.5 {variant}"


def test_a_transformer_like_no_variant_has_no_place_in_tencents_tree(tmp_path):
    odd = open_checkpoint(write_toy15(tmp_path / "odd", settings=replace(SETTINGS, guidance_scale=3.0)))
    with pytest.raises(InputError, match="is like no published variant"):
        list(convert(odd, tmp_path / "x", shapes=HUNYUAN15.shapes(odd), layout="tencent"))


def test_diffusers_folders_without_our_settings(folder, tmp_path):
    target = shutil.copytree(folder, tmp_path / "x")
    (target / "framewake.json").unlink()
    with pytest.raises(CheckpointError, match="does not say which variant it is"):
        open_checkpoint(target)
    place = target / "transformer" / "config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"target_size": 960}))
    assert open_checkpoint(target).settings.name == "HunyuanVideo-1.5 720p_i2v"
    guider = target / "guider" / "guider_config.json"
    guider.write_text(json.dumps(json.loads(guider.read_text()) | {"guidance_scale": 1}))
    assert open_checkpoint(target).settings.guidance_scale == 1.0
    shutil.rmtree(target / "image_encoder")
    with pytest.raises(CheckpointError, match=r"there is no vision tower\. Add it with --part siglip=FILE"):
        open_checkpoint(target)


def test_a_file_of_another_task_on_a_folder(folder, tmp_path):
    """The name of the file says what its tensors do not, also where the folder's own transformer is another."""
    tensors = toy15_parts()["dit"][1]
    for name in ("hunyuanvideo1.5_720p_t2v_fp16", "hunyuanvideo1.5_720p_i2v_distilled_sparse"):
        write_tensors(tmp_path / f"{name}.safetensors", tensors)
    text = open_checkpoint(folder, parse_files([f"dit={tmp_path / 'hunyuanvideo1.5_720p_t2v_fp16.safetensors'}"]))
    assert not text.dit.needs_picture and (text.settings.flow_shift, text.settings.guidance_scale) == (9.0, 6.0)
    sparse = [f"dit={tmp_path / 'hunyuanvideo1.5_720p_i2v_distilled_sparse.safetensors'}"]
    assert open_checkpoint(folder, parse_files(sparse)).dit.tiles == TILES
    alone = write_toy15(tmp_path / "t2v", is_i2v=False)
    with pytest.raises(CheckpointError, match=r"there is no vision tower\. Add it with --part siglip=FILE"):
        open_checkpoint(alone, parse_files(sparse))
    tower = f"siglip={folder / 'image_encoder' / 'model.safetensors'}"
    (alone / "image_encoder").mkdir()
    shutil.copy(folder / "image_encoder" / "config.json", alone / "image_encoder")
    opened = open_checkpoint(alone, parse_files([*sparse, tower]))
    assert opened.dit.needs_picture and opened.image_processor.size_px == SIGLIP.image_size


def test_a_variant_that_is_none():
    with pytest.raises(InputError, match=r"'variant=480p_i2': expected one of 480p_t2v,.*Did you mean '480p_i2v'"):
        parse_files(["variant=480p_i2"])
    with pytest.raises(InputError, match="variant is given twice: 480p_i2v and 480p_t2v"):
        parse_files(["variant=480p_i2v", "variant=480p_t2v"])


def test_published_names_of_diffusers():
    listed = json.loads((DATA / "diffusers15-names.json").read_text())
    found = {}
    for rule in names15.diffusers_dit(replace(HUNYUAN15_DIT, is_step_distilled=True)):
        found |= dict.fromkeys(rule.theirs, rule.ours)
    blocks = {name: ours for name, ours in found.items() if not name.startswith("transformer_blocks") or ".53." in name}
    assert blocks == listed["dit"] and len(found) == 1805
    vae = {rule.theirs[0]: rule.ours for rule in names15.diffusers_vae(HUNYUAN15_VAE)}
    assert vae == listed["vae"] and len(vae) == 218
    assert {rule.theirs[0]: rule.ours for rule in names15.vae(vae)} == vae


def test_configurations_that_are_no_model_here():
    wrong = [
        ({"attn_mode": "flex-block-attn", "attn_param": {"ssta_threshold": 0.5}}, "ssta_threshold is 0.5"),
        ({"attn_mode": "flex-block-attn", "attn_param": {"tile_size": [6, 8]}}, "three numbers"),
        ({"num_layers": "54"}, "num_layers is '54'"),
        ({"rope_axes_dim": [16, 56]}, "three numbers"),
        ({"num_layers": 10**9}, "no model has such a size"),
        ({"_class_name": "WanTransformer3DModel"}, "another model"),
    ]
    for content, words in wrong:
        with pytest.raises(CheckpointError, match=words):
            configs15.dit_config(content)
    with pytest.raises(CheckpointError, match="'llama', expected Qwen"):
        configs15.qwen_config({"model_type": "llama"})


def test_published_configurations_come_back():
    for row, config in (
        (hunyuan15.DIT, HUNYUAN15_DIT),
        (hunyuan15.DIT, replace(HUNYUAN15_DIT, tiles=TILES)),
        (hunyuan15.VAE, HUNYUAN15_VAE),
        (hunyuan15.QWEN, QwenConfig(16, 32, 4, 2, 1, 8, 99, 1e-6, 1e6)),
        (hunyuan15.SIGLIP, SIGLIP),
    ):
        assert row.read(row.write(config)) == config
    tensors = {name: array.shape for name, array in toy15_parts()["byt5"][1].items()}
    assert configs15.infer_t5(tensors) == toy15_parts()["byt5"][0]


def test_a_1_5_file_is_no_part_of_the_first_model(folder, tmp_path):
    file = tmp_path / "hunyuanvideo1.5_480p_i2v.safetensors"
    write_tensors(file, split(toy15_parts()["dit"][1]))
    with pytest.raises(CheckpointError, match=r"is a transformer alone\. Take it with --part dit="):
        open_checkpoint(file)
