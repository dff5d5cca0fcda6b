"""Layouts into each other and back, read by the libraries that the layouts belong to."""

from __future__ import annotations

import shutil
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file
from toy_checkpoint import write_toy
from toy_layouts import MODEL, our_tensors, save_comfy, text_to_video, write_tencent, write_wide_toy

from framewake.errors import CheckpointError, InputError, ResourceError
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.weights.checkpoint.layouts import COMPONENTS, Files
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.checkpoint.verify import verify
from framewake.weights.reading import pieces
from framewake.weights.reading.files import open_tensors
from framewake.weights.reading.storage import widen
from framewake.weights.stores.quant import STORED
from framewake.weights.writing import convert as converting
from framewake.weights.writing.convert import LAYOUTS, convert
from framewake.weights.writing.files import write_tensors


def shapes(checkpoint):
    return HUNYUAN.shapes(checkpoint)


def written(source, folder, files=None, **options):
    checkpoint = open_checkpoint(source) if files is None else open_checkpoint(source, files)
    list(convert(checkpoint, folder, shapes=shapes(checkpoint), **options))
    return folder


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_wide_toy(tmp_path_factory.mktemp("source"))


def difference(first, second):
    one, two = open_checkpoint(first), open_checkpoint(second)
    assert all(getattr(one, name) == getattr(two, name) for name in ("configs", "settings", "image_processor"))
    found = 0.0
    for component in COMPONENTS:
        a, b = our_tensors(one, component), our_tensors(two, component)
        assert set(a) == set(b)
        found = max(found, *(float(np.abs(a[n] - b[n]).max() / np.abs(a[n]).max()) for n in a))
    return found


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("back", LAYOUTS)
def test_there_and_back(source, tmp_path, layout, back):
    there = written(source, tmp_path / "there", layout=layout)
    assert open_checkpoint(there).layout.name == ("tencent" if layout == "tencent" else "diffusers")
    assert difference(source, written(there, tmp_path / "back", layout=back)) == 0


@pytest.mark.parametrize(("dtype", "largest"), [("fp32", 0.0), ("fp16", 2**-11), ("bf16", 2**-8)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_types(source, tmp_path, layout, dtype, largest):
    folder = written(source, tmp_path / "x", layout=layout, dtype=dtype)
    found = difference(source, folder)
    assert found <= largest and (found == 0) == (dtype == "fp32")
    back = written(folder, tmp_path / "y", layout=layout)  # no type is named: the bits stay
    assert difference(folder, back) == 0
    kinds = {open_checkpoint(back)._file("dit").dtype(name) for name in open_checkpoint(back)._file("dit").names()}
    assert kinds == {converting.KINDS[dtype]}


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_verify_tells_what_is_stored(source, tmp_path, kind):
    checkpoint = open_checkpoint(written(source, tmp_path / "x", layout="framewake", dtype=kind))
    for found in verify(checkpoint, shapes(checkpoint)):
        on_disk = sum(file.stat().st_size for file in found.files)
        assert 0 < found.size < on_disk, "scaled numbers were counted in place of the stored ones"
        assert (STORED[kind] in found.kinds) == (found.component in ("dit", "llava", "clip_text")), found


def test_what_the_libraries_read(source, tmp_path):
    """torch reads our .pt file, safetensors our safetensors; both without leave to run anything."""
    torch = pytest.importorskip("torch")
    ours = our_tensors(open_checkpoint(source), "dit")
    tree = written(source, tmp_path / "tencent", layout="tencent")
    path = tree / MODEL / "transformers" / "mp_rank_00_model_states.pt"
    for options in ({}, {"mmap": True}):
        theirs = torch.load(path, weights_only=True, **options)
        assert set(theirs) == {"module"} and set(theirs["module"]) == set(ours)
        assert all(np.array_equal(theirs["module"][name].numpy(), values) for name, values in ours.items())
    vae = torch.load(tree / MODEL / "vae" / "pytorch_model.pt", weights_only=True)
    assert set(vae) == set(our_tensors(open_checkpoint(source), "vae"))
    folder = written(tree, tmp_path / "diffusers", layout="diffusers")
    name = "transformer/diffusion_pytorch_model.safetensors"
    first, second = load_file(source / name), load_file(folder / name)
    assert first.keys() == second.keys() and all(np.array_equal(first[n], second[n]) for n in first)


def test_bfloat16_as_torch_rounds_it():
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32) * 10.0 ** np.arange(-25, 25).repeat(100)
    values = np.concatenate([values.astype(np.float32), np.float32([0.0, -0.0, np.inf, -np.inf, np.nan])])
    found = pieces.cast(values, "F32", "BF16", "x")
    torch = pytest.importorskip("torch")
    expected = torch.from_numpy(values).to(torch.bfloat16).float().numpy()
    assert np.array_equal(widen(found, "BF16"), expected, equal_nan=True)
    with pytest.raises(CheckpointError, match="cannot hold"):
        pieces.cast(np.float32([3.4e38]), "F32", "BF16", "x")


def test_scaled_files_become_a_folder(source, tmp_path):
    files = Files(**save_comfy(tmp_path / "files", source))
    small = shutil.copytree(source, tmp_path / "small", ignore=shutil.ignore_patterns("*.safetensors"))
    folder = written(small, tmp_path / "x", files, dtype="fp32")
    one, two = our_tensors(open_checkpoint(small, files), "dit"), our_tensors(open_checkpoint(folder), "dit")
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_text_to_video_keeps_its_language_model(tmp_path):
    tree = text_to_video(tmp_path / "a", write_wide_toy(tmp_path / "source", "none"))
    for layout in ("tencent", "diffusers"):
        found = open_checkpoint(written(tree, tmp_path / layout, layout=layout))
        assert (found.dit.condition, found.has_vision) == ("none", False)


def test_a_language_model_that_is_not_described_is_refused_first(tmp_path):
    tree = text_to_video(tmp_path / "a", write_wide_toy(tmp_path / "source", "none"))
    checkpoint = open_checkpoint(tree)  # of the published width it would open without the file too
    (tree / "text_encoder" / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"text_encoder/config\.json is missing"):
        list(convert(checkpoint, tmp_path / "x", shapes=shapes(checkpoint)))
    assert not (tmp_path / "x").exists()


def test_memory_stays_bounded(source, tmp_path, monkeypatch):
    """A tensor a hundred times as large as a part of it goes through in parts."""
    monkeypatch.setattr(pieces, "CHUNK_BYTES", 2**16)
    big = 2**21
    tensors = our_tensors(open_checkpoint(source), "clip_text")
    folder = shutil.copytree(source, tmp_path / "big")
    extra = tensors | {"text_model.embeddings.position_ids": np.zeros((1, big), np.int64)}
    path = next((folder / "text_encoder_2").glob("*.safetensors"))
    write_tensors(path, extra)
    checkpoint = open_checkpoint(folder)
    wanted = shapes(checkpoint)
    tracemalloc.start()
    list(convert(checkpoint, tmp_path / "x", shapes=wanted, dtype="bf16"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * 2**20 < 8 * big
    assert open_tensors(tmp_path / "x" / "text_encoder_2").shape("text_model.embeddings.position_ids") == (1, big)


def test_values_that_do_not_fit_leave_no_half_file(source, tmp_path):
    folder = shutil.copytree(source, tmp_path / "copy")
    path = next((folder / "vae").glob("*.safetensors"))
    tensors = {name: open_tensors(path).read(name) for name in open_tensors(path).names()}
    tensors["quant_conv.bias"][0] = 1e6
    write_tensors(path, tensors)
    with pytest.raises(CheckpointError, match=r"quant_conv\.bias .*wider"):
        written(folder, tmp_path / "x", dtype="fp16")
    assert not list((tmp_path / "x" / "vae").glob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "fp8"}, "--layout framewake"),
        ({"dtype": "int8"}, "--layout framewake"),
        ({"dtype": "bf61"}, "Did you mean 'bf16'"),
        ({"layout": "comfy"}, "unknown"),
    ],
)
def test_what_cannot_be_written(source, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        written(source, tmp_path / "x", **options)
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_in_use(source, tmp_path):
    (tmp_path / "mine").write_text("precious")
    with pytest.raises(InputError, match="name a new one"):
        written(source, tmp_path)
    with pytest.raises(InputError, match="name a new one"):
        written(source, tmp_path / "mine")


def test_a_full_disk_is_told_before_anything_is_written(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(ResourceError, match="free there"):
        written(source, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_checkpoint_that_does_not_fit_is_refused_first(source, tmp_path):
    tree = write_tencent(tmp_path / "tree", source)
    path = tree / MODEL / "vae" / "pytorch_model.pt"
    torch = pytest.importorskip("torch")
    torch.save({"decoder.conv_in.conv.weight": torch.ones(2)}, path)
    with pytest.raises(CheckpointError, match="missing"):
        written(tree, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_no_shape_tells_is_written_into_tencents_layout(tmp_path):
    """Rotary channels other than the published rule's were lost, and clips were others."""
    source = open_checkpoint(write_toy(tmp_path / "a"))
    assert source.dit.rope_dims == (4, 6, 6)
    list(convert(source, tmp_path / "b", shapes=shapes(source), layout="tencent"))
    assert open_checkpoint(tmp_path / "b").dit == source.dit
