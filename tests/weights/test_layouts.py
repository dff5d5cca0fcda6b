"""The same weights in every layout: recognised, checked and equal."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_layouts import MODEL, our_tensors, save_comfy, save_torch, text_to_video, write_tencent, write_wide_toy

from framewake.config import CLIP_L, HUNYUAN_DIT, HUNYUAN_VAE, LLAVA_LLAMA3_8B
from framewake.errors import CheckpointError
from framewake.models.clip_text import ClipText
from framewake.models.llava import Llava
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.weights.checkpoint import inferred
from framewake.weights.checkpoint.layouts import COMPONENTS, Files
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.checkpoint.settings import Settings
from framewake.weights.reading.files import open_tensors
from framewake.weights.writing.files import write_tensors

DATA = Path(__file__).parents[1] / "data"


def shapes(checkpoint, component):
    return HUNYUAN.shapes(checkpoint)[component]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_wide_toy(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def tencent(source, tmp_path_factory):
    return write_tencent(tmp_path_factory.mktemp("ckpts"), source)


@pytest.fixture
def tree(tencent, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tencent, tmp_path / "copy")


def assert_same(first, second, *, largest=0.0):
    for component in COMPONENTS:
        assert first.configs[component] == second.configs[component]
        wanted = shapes(first, component)
        second.check(component, wanted)
        one, two = our_tensors(first, component), our_tensors(second, component)
        assert set(one) >= set(wanted) and set(two) >= set(wanted)
        found = max(float(np.abs(one[n] - two[n]).max() / np.abs(one[n]).max()) for n in wanted)
        assert found <= largest, f"{component}: {found}"


@pytest.mark.parametrize(
    "place", [".", MODEL, f"{MODEL}/transformers", f"{MODEL}/transformers/mp_rank_00_model_states.pt"]
)
def test_tencents_tree_from_any_place_in_it(source, tencent, place):
    found = open_checkpoint(tencent / place)
    assert found.layout.name == "tencent" and found.folder == tencent
    assert_same(open_checkpoint(source), found)
    assert found.image_processor == open_checkpoint(source).image_processor


@pytest.mark.parametrize("keys", [(), ("ema",), ("module",)])
def test_a_bare_file_and_each_of_its_dicts(source, tmp_path, keys):
    assert_same(open_checkpoint(source), open_checkpoint(write_tencent(tmp_path, source, keys=keys)))


def test_the_file_that_the_original_would_take(source, tree):
    folder = tree / MODEL / "transformers"
    save_torch(folder / "other.pt", {"x": np.zeros(2, np.float32)})
    assert_same(open_checkpoint(source), open_checkpoint(tree))
    (folder / "mp_rank_00_model_states.pt").rename(folder / "mine.pt")
    with pytest.raises(CheckpointError, match=r"mine\.pt, other\.pt"):
        open_checkpoint(tree)


@pytest.mark.parametrize("missing", ["text_encoder_2", "text_encoder_i2v", f"{MODEL}/vae", f"{MODEL}/transformers"])
def test_an_incomplete_tree(tree, missing):
    shutil.rmtree(tree / missing)
    with pytest.raises(CheckpointError, match=rf"{Path(missing).name}.*download"):
        open_checkpoint(tree)


def test_without_any_config_the_shapes_tell(source, tree):
    (tree / MODEL / "vae" / "config.json").unlink()
    assert open_checkpoint(tree).vae == open_checkpoint(source).vae


def test_all_differences_of_a_torch_file_in_one_report(tree):
    path = tree / MODEL / "transformers" / "mp_rank_00_model_states.pt"
    tensors = {name: open_tensors(path).read(name) for name in open_tensors(path).names()}
    del tensors["double_blocks.0.img_mod.linear.bias"]
    tensors["single_blocks.0.linear2.bias"] = np.zeros(5, np.float32)
    tensors["double_blocks.0.more"] = np.zeros(5, np.float32)
    save_torch(path, tensors, "module")
    checkpoint = open_checkpoint(tree)
    with pytest.raises(CheckpointError) as caught:
        checkpoint.check("dit", shapes(checkpoint, "dit"))
    text = str(caught.value)
    assert "double_blocks.0: missing img_mod.linear.bias; unexpected more" in text
    assert "single_blocks.0: linear2.bias is [5] instead of [64]" in text


def test_single_files(source, tmp_path):
    files = Files(**save_comfy(tmp_path, source))
    folder = shutil.copytree(source, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
    # 8 bits have 4 binary digits of which the last is rounded: half of 1/16 at most, near the largest value.
    assert_same(open_checkpoint(source), open_checkpoint(folder, files), largest=1 / 28 + 1e-6)
    exact = open_checkpoint(folder, files)
    for component in ("vae", "llava", "clip_text"):
        one, two = our_tensors(open_checkpoint(source), component), our_tensors(exact, component)
        assert all(np.array_equal(one[name], two[name]) for name in one)


def test_one_single_file_beside_a_tree(source, tencent, tmp_path):
    files = save_comfy(tmp_path, source)
    found = open_checkpoint(tencent, Files(dit=files["dit"]))
    assert found.dit == open_checkpoint(source).dit
    found.check("dit", shapes(found, "dit"))


@pytest.mark.parametrize("prefix", ["model.diffusion_model.", "diffusion_model.", "model.model.", ""])
@pytest.mark.parametrize("kind", ["F32", "BF16"])
def test_prefixes_and_types(source, tmp_path, prefix, kind):
    def bits(values):
        return values if kind == "F32" else (values.view(np.uint32) >> 16).astype(np.uint16)

    tensors = our_tensors(open_checkpoint(source), "dit")
    stored = {prefix + name: bits(values) for name, values in tensors.items()}
    write_tensors(tmp_path / "dit.safetensors", stored, kinds=dict.fromkeys(stored, kind))
    found = our_tensors(open_checkpoint(source, Files(dit=tmp_path / "dit.safetensors")), "dit")
    largest = max(float(np.abs(found[n] - x).max() / np.abs(x).max()) for n, x in tensors.items())
    assert (largest == 0) == (kind == "F32") and largest < 2**-7


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.scale_weight": np.ones((), np.float32)}, "no 'a.weight'"),
        ({"a.weight": np.ones((4, 4), np.float32), "a.scale_weight": np.ones(3, np.float32)}, "one number"),
    ],
)
def test_scales_that_fit_nothing(source, tmp_path, tensors, message):
    write_tensors(tmp_path / "x.safetensors", tensors)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(source, Files(dit=tmp_path / "x.safetensors"))


def test_another_model_is_refused(source, tmp_path):
    write_tensors(tmp_path / "x.safetensors", {"conv.weight": np.ones((4, 4), np.float32)})
    with pytest.raises(CheckpointError, match=r"img_in\.proj\.weight.*conv\.weight.*another model"):
        open_checkpoint(source, Files(dit=tmp_path / "x.safetensors"))


def test_a_text_model_without_its_tower_is_refused(source, tmp_path):
    files = save_comfy(tmp_path, source)
    folder = shutil.copytree(source, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
    with pytest.raises(CheckpointError, match=r"no vision tower.*--part llava-vision=FILE"):
        open_checkpoint(folder, Files({name: path for name, path in files.items() if name != "llava-vision"}))


def test_first_release(tmp_path):
    source = write_wide_toy(tmp_path / "a", "latent_concat", has_guidance=False)
    found = open_checkpoint(write_tencent(tmp_path / "b", source))
    assert (found.dit.condition, found.dit.in_channels, found.dit.has_guidance) == ("latent_concat", 9, False)
    assert_same(open_checkpoint(source), found)


def test_text_to_video_with_a_language_model_alone(tmp_path):
    source = write_wide_toy(tmp_path / "a", "none")
    tree = text_to_video(tmp_path / "b", source)
    found, known = open_checkpoint(tree), open_checkpoint(source)
    assert (found.dit.condition, found.has_vision) == ("none", False)
    assert found.dit == known.dit and found.configs["llava"].text == known.configs["llava"].text
    (tree / "framewake.json").unlink()
    assert open_checkpoint(tree).settings == Settings(name="HunyuanVideo")
    found.check("llava", shapes(found, "llava"))


def listed(name):
    return {key: tuple(shape) for key, shape in json.loads((DATA / name).read_text()).items()}


def test_published_shapes_give_the_published_configurations():
    dit = listed("dit-keys.json")
    assert inferred.dit_config(dit, "token_replace") == HUNYUAN_DIT
    assert inferred.dit_config(dit, "none") == dataclasses.replace(HUNYUAN_DIT, condition="none")
    first = {name: shape for name, shape in dit.items() if not name.startswith("guidance_in")}
    first["img_in.proj.weight"] = (3072, 33, 1, 2, 2)
    expected = dataclasses.replace(HUNYUAN_DIT, condition="latent_concat", in_channels=33, has_guidance=False)
    assert inferred.dit_config(first, "token_replace") == expected
    assert inferred.vae_config(listed("vae-keys.json")) == HUNYUAN_VAE
    llava = Llava(None, LLAVA_LLAMA3_8B)
    assert inferred.llava_config(llava.shapes() | llava.unused_shapes()) == LLAVA_LLAMA3_8B
    assert inferred.clip_text_config(ClipText(None, CLIP_L).shapes()) == CLIP_L


def sparse(path, tensors, kind="BF16", width=2):
    """A safetensors file with a true header and a hole for data."""
    header, at = {}, 0
    for name, shape in tensors.items():
        stop = at + width * int(np.prod(shape, dtype=np.int64))
        header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + at)
    return path


def test_every_published_name_is_used_once(source, tmp_path):
    """856 and 248 names at full size, 26 GB that take no room on the disk."""
    dit, vae = listed("dit-keys.json"), listed("vae-keys.json")
    assert (len(dit), len(vae)) == (856, 248)
    path = sparse(tmp_path / "dit.safetensors", dit)
    assert path.stat().st_size > 25e9
    folder = shutil.copytree(source, tmp_path / "base")
    model = tmp_path / "base" / "text_encoder" / "model.safetensors"
    llava, clip = Llava(None, LLAVA_LLAMA3_8B), ClipText(None, CLIP_L)
    for part in ("text_encoder", "text_encoder_2", "vae"):
        (folder / part / "config.json").unlink()
    files = Files(
        dit=path,
        vae=sparse(tmp_path / "vae.safetensors", vae),
        llava=sparse(model, llava.shapes() | llava.unused_shapes()),
        clip=sparse(tmp_path / "clip.safetensors", clip.shapes()),
    )
    processor = folder / "image_processor" / "preprocessor_config.json"
    processor.write_text(processor.read_text().replace("28", "336"))
    found = open_checkpoint(folder, files)
    assert list(found.configs.values()) == [HUNYUAN_DIT, HUNYUAN_VAE, LLAVA_LLAMA3_8B, CLIP_L]
    for component in COMPONENTS:
        tensors = found.check(component, shapes(found, component))
        if component in ("dit", "vae"):
            used = [their for rule in tensors.rules() for their in rule.theirs]
            assert sorted(used) == sorted(tensors.file.names()) and len(set(used)) == len(used)
            assert set(tensors.names()) == set(shapes(found, component))
