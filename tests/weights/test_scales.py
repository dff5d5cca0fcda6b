"""Eight-bit weights and their scales: beside each weight under many names, in a map of their own, or lost."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from cut_tensors import check_file
from toy_layouts import MODEL, our_tensors, write_tencent, write_wide_toy

from framewake.errors import CheckpointError
from framewake.weights.checkpoint.layouts import Files
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.reading.files import open_tensors
from framewake.weights.reading.storage import widen
from framewake.weights.stores.quant import to_float8
from framewake.weights.writing.files import write_tensors

torch = pytest.importorskip("torch")
LAYER = "double_blocks.0.img_mlp.fc1"
FP8 = "mp_rank_00_model_states_fp8"


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_wide_toy(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def tencent(source, tmp_path_factory):
    """Tencent's tree with its transformer in scaled 8 bits alone, and the map beside it."""
    tree = write_tencent(tmp_path_factory.mktemp("ckpts"), source)
    folder = tree / MODEL / "transformers"
    weights, scales = {}, {}
    for name, values in our_tensors(open_checkpoint(source), "dit").items():
        weights[name] = torch.from_numpy(values)
        if is_large(name, values):
            scale = weights[name].abs().max() / 448
            weights[name] = (weights[name] / scale).to(torch.float8_e4m3fn)
            scales[name.removesuffix(".weight")] = scale
    (folder / "mp_rank_00_model_states.pt").unlink()
    torch.save({"module": weights}, folder / f"{FP8}.pt")
    torch.save(scales, folder / f"{FP8}_map.pt")
    return tree


@pytest.fixture
def tree(tencent, tmp_path):
    return shutil.copytree(tencent, tmp_path / "copy")


def is_large(name, values):
    return "_blocks" in name and values.ndim == 2


def transformer(tree):
    return tree / MODEL / "transformers" / f"{FP8}.pt"


def map_of(tree):
    return tree / MODEL / "transformers" / f"{FP8}_map.pt"


def differs(source, found):
    """The largest difference of a transformer's tensors, each over its own largest number."""
    right, found = our_tensors(open_checkpoint(source), "dit"), our_tensors(found, "dit")
    assert set(right) == set(found)
    return max(float(np.abs(found[name] - x).max() / np.abs(x).max()) for name, x in right.items())


@pytest.mark.parametrize("place", [".", MODEL, f"{MODEL}/transformers", f"{MODEL}/transformers/{FP8}.pt"])
def test_a_map_beside_the_weights(source, tencent, place):
    assert 0 < differs(source, open_checkpoint(tencent / place)) < 1 / 28


def test_a_part_with_its_map(source, tencent, tmp_path):
    assert differs(source, open_checkpoint(source, Files(dit=transformer(tencent)))) < 1 / 28
    link = tmp_path / "dit.pt"
    link.symlink_to(transformer(tencent))
    assert differs(source, open_checkpoint(source, Files(dit=link))) < 1 / 28


def test_a_map_elsewhere(source, tree, tmp_path):
    moved = shutil.move(map_of(tree), tmp_path / "scales.pt")
    for files in (Files(), Files(dit=transformer(tree))):
        with pytest.raises(CheckpointError, match=rf"need scales.*{FP8}_map\.pt.*dit-scales=FILE"):
            open_checkpoint(tree, files)
    assert differs(source, open_checkpoint(tree, Files({"dit-scales": moved}))) < 1 / 28


@pytest.mark.parametrize(
    "change",
    [
        lambda s: {name: float(x) for name, x in s.items()},
        lambda s: {name: x.reshape(1) for name, x in s.items()},
        lambda s: {name: x.reshape(1, 1).double() for name, x in s.items()},
        lambda s: {f"{name}.weight": x for name, x in s.items()},
        lambda s: {f"module._orig_mod.{name}": x for name, x in s.items()},
        lambda s: {"module": s},
    ],
    ids=["float", "1", "1x1", "weight", "wrapped", "inside"],
)
def test_forms_of_a_map(source, tree, change):
    torch.save(change(torch.load(map_of(tree), weights_only=True)), map_of(tree))
    assert differs(source, open_checkpoint(tree)) < 1 / 28


def test_a_map_in_safetensors(source, tree, tmp_path):
    scales = torch.load(map_of(tree), weights_only=True)
    write_tensors(tmp_path / "s.safetensors", {name: x.numpy().astype(np.float32) for name, x in scales.items()})
    assert differs(source, open_checkpoint(tree, Files({"dit-scales": tmp_path / "s.safetensors"}))) < 1 / 28


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: {name: x for name, x in s.items() if LAYER not in name},
            rf"1 weights.*{LAYER}\.weight.*_map\.pt has scales of other",
        ),
        (lambda s: s | {"double_blocks.7.img_mlp.fc1": s[LAYER]}, r"does not belong.*1 of its.*double_blocks\.7"),
        (lambda s: {f"other.{name}": x for name, x in s.items()}, "does not belong"),
        (lambda s: s | {LAYER: torch.ones(3)}, rf"'{LAYER}' in .*{FP8}_map\.pt is \[3\]; expected one number"),
        (lambda s: s | {LAYER: torch.tensor(float("nan"))}, "is nan; positive numbers"),
        (lambda s: s | {LAYER: torch.tensor(-1.0)}, "positive numbers"),
        (lambda s: s | {LAYER: torch.tensor(0.0)}, "positive numbers"),
        (lambda s: s | {LAYER: "a text"}, "has scales of other weights"),
    ],
    ids=["partial", "other layer", "other model", "shape", "nan", "negative", "zero", "text"],
)
def test_maps_that_are_refused(tree, change, message):
    torch.save(change(torch.load(map_of(tree), weights_only=True)), map_of(tree))
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(tree)


def test_the_map_in_place_of_the_weights(source, tree):
    with pytest.raises(CheckpointError, match=rf"scales of weights.*{FP8}\.pt"):
        open_checkpoint(source, Files(dit=map_of(tree)))


def eight_bits(source, kind="F8_E4M3", scale=None):
    """The transformer with its large matrices in eight bits: bits, scales, types."""
    tensors, scales, kinds = {}, {}, {}
    for name, values in our_tensors(open_checkpoint(source), "dit").items():
        if not is_large(name, values):
            tensors[name] = values
            continue
        top = {"F8_E4M3": 448, "F8_E5M2": 57344, "I8": 127}[kind]
        factor = np.float32(np.abs(values).max() / top) if scale is None else np.float32(scale)
        kinds[name], scales[name] = kind, factor
        wide = torch.from_numpy(values / factor)
        if kind == "I8":
            tensors[name] = wide.round().to(torch.int8).numpy()
        elif kind == "F8_E5M2":
            tensors[name] = wide.to(torch.float8_e5m2).view(torch.uint8).numpy()
        else:
            tensors[name] = to_float8(values / factor)
    return tensors, scales, kinds


def written(path, tensors, kinds, *, metadata=None):
    kinds = {name: kind for name, kind in kinds.items() if name in tensors}
    kinds |= {name: "U8" for name, x in tensors.items() if x.dtype == np.uint8 and name not in kinds}
    write_tensors(path, tensors, kinds=kinds, metadata=metadata)
    return Files(dit=path)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2", "I8"])
@pytest.mark.parametrize("ending", [".scale_weight", ".weight_scale", ".weight.scale", ".scale", ".weight_scale_inv"])
def test_names_of_scales_beside_the_weights(source, tmp_path, kind, ending):
    tensors, scales, kinds = eight_bits(source, kind)
    found = {name.removesuffix(".weight") + ending: x.reshape(()) for name, x in scales.items()}
    open_file = open_checkpoint(source, written(tmp_path / "x.safetensors", tensors | found, kinds))
    assert differs(source, open_file) < (1 / 7 if kind == "F8_E5M2" else 1 / 28)
    open_file.check("dit", {name: values.shape for name, values in our_tensors(open_checkpoint(source), "dit").items()})


def test_quanto_and_bitsandbytes(source, tmp_path):
    tensors, scales, kinds = eight_bits(source, "I8")
    renamed = {name + "._data" * (name in scales): x for name, x in tensors.items()}
    kinds_2 = {f"{name}._data": kind for name, kind in kinds.items()}
    for name, x in scales.items():
        renamed[f"{name}._scale"] = np.full((len(tensors[name]), 1), x)
        renamed[name.removesuffix("weight") + "output_scale"] = np.ones((), np.float32)
    assert differs(source, open_checkpoint(source, written(tmp_path / "q.safetensors", renamed, kinds_2))) < 1 / 100
    more = {n.removesuffix("weight") + "SCB": np.full(len(tensors[n]), 127 * x, np.float32) for n, x in scales.items()}
    more |= {n.removesuffix("weight") + "weight_format": np.zeros((), np.uint8) for n in scales}
    assert (
        differs(source, open_checkpoint(source, written(tmp_path / "b.safetensors", tensors | more, kinds))) < 1 / 100
    )


@pytest.mark.parametrize("grid", [(1, 1), ("rows", 1), (1, 8), ("rows", 4), (4, 2)])
def test_scales_of_blocks(tmp_path, grid):
    from framewake.weights.checkpoint.hunyuan import COMPONENTS
    from framewake.weights.checkpoint.parts import open_part

    rng = np.random.default_rng(0)
    bits = rng.integers(0, 0x70, (64, 32)).astype(np.uint8)
    shape = tuple(64 if size == "rows" else size for size in grid)
    scales = rng.uniform(1e-3, 1e-2, shape).astype(np.float32)
    for number, form in enumerate((shape, (*shape, 1))):
        path = tmp_path / f"{number}.safetensors"
        write_tensors(path, {"a.weight": bits, "a.weight_scale": scales.reshape(form)}, kinds={"a.weight": "F8_E4M3"})
        file = open_part("clip_text", [path], COMPONENTS)
        check_file(file, "float32")
        found = file.read("a.weight")
        wide = np.kron(scales, np.ones((64 // shape[0], 32 // shape[1]), np.float32))
        assert np.array_equal(found, widen(bits, "F8_E4M3") * wide)


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_a_plain_cast_needs_no_scales(source, tmp_path, kind):
    """As Kijai publishes them, with fp8 in the name."""
    tensors, _, kinds = eight_bits(source, kind, scale=1)
    path = tmp_path / f"hunyuan_video_I2V_720_{kind.lower()}_fp8.safetensors"
    found = open_checkpoint(source, written(path, tensors, kinds))
    assert differs(source, found) < 1 / 7


@pytest.mark.parametrize("kind", ["F8_E4M3", "F8_E5M2"])
def test_lost_scales_show_in_the_numbers(source, tmp_path, kind):
    tensors, _, kinds = eight_bits(source, kind)
    with pytest.raises(CheckpointError, match="need scales that are not there"):
        open_checkpoint(source, written(tmp_path / "x.safetensors", tensors, kinds))


def test_lost_scales_show_in_the_name_and_in_marks(source, tree, tmp_path):
    """A scale of nearly one leaves numbers as they were: only what stands around them tells."""
    tensors, _, kinds = eight_bits(source, scale=1)
    with pytest.raises(CheckpointError, match="need scales"):
        marked = tensors | {"scaled_fp8": np.zeros(0, np.uint8)}
        open_checkpoint(source, written(tmp_path / "x.safetensors", marked, kinds | {"scaled_fp8": "F8_E4M3"}))
    mark = np.frombuffer(json.dumps({"format": "float8_e4m3fn"}).encode(), np.uint8)
    with pytest.raises(CheckpointError, match=f"1 weights.*{LAYER}"):
        open_checkpoint(source, written(tmp_path / "y.safetensors", tensors | {f"{LAYER}.comfy_quant": mark}, kinds))
    map_of(tree).unlink()
    content = torch.load(transformer(tree), weights_only=True)["module"]
    for name, bits in content.items():
        content[name] = torch.from_numpy(tensors[name]).view(bits.dtype) if name in kinds else bits
    torch.save({"module": content}, transformer(tree))
    with pytest.raises(CheckpointError, match="need scales"):
        open_checkpoint(tree)


def test_whole_numbers_without_scales(source, tmp_path):
    tensors, _, kinds = eight_bits(source, "I8")
    with pytest.raises(CheckpointError, match="whole numbers"):
        open_checkpoint(source, written(tmp_path / "x.safetensors", tensors, kinds))


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (f"{LAYER}.comfy_quant", json.dumps({"format": "nvfp4"}).encode(), "says 'nvfp4'"),
        (f"{LAYER}.comfy_quant", b'{"format": "int8_tensorwise", "convrot": true}', "rotated"),
        (f"{LAYER}.comfy_quant", b"nothing", "nothing readable"),
        (f"{LAYER}.weight.absmax", b"1234", "bitsandbytes"),
        (f"{LAYER}.qweight", b"1234", "GPTQ"),
    ],
)
def test_packed_weights_are_named(source, tmp_path, name, values, message):
    tensors, scales, kinds = eight_bits(source)
    found = {n.removesuffix("weight") + "scale_weight": x.reshape(()) for n, x in scales.items()}
    found[name] = np.frombuffer(values, np.uint8)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(source, written(tmp_path / "x.safetensors", tensors | found, kinds))


def test_names_of_wrapped_modules(source, tmp_path):
    tensors = our_tensors(open_checkpoint(source), "dit")
    for number, change in enumerate(
        (
            lambda name: f"module.{name}",
            lambda name: f"my.own.{name}",
            lambda name: name.replace("_blocks.0.", "_blocks.0._orig_mod."),
            lambda name: f"network._backbone.{name}",
        )
    ):
        path = tmp_path / f"{number}.safetensors"
        write_tensors(path, {change(name): values for name, values in tensors.items()})
        assert differs(source, open_checkpoint(source, Files(dit=path))) == 0
    both = tensors | {f"module.{name}": values for name, values in tensors.items()}
    write_tensors(tmp_path / "both.safetensors", both)
    with pytest.raises(CheckpointError, match="twice"):
        open_checkpoint(source, Files(dit=tmp_path / "both.safetensors"))


def test_the_same_on_an_engine_and_streamed(engine, source, tencent):
    checkpoint = open_checkpoint(tencent)
    right = our_tensors(checkpoint, "dit")
    wanted = {name: values.shape for name, values in right.items()}
    resident = checkpoint.store("dit", engine, "float32", shapes=wanted)
    for name, values in resident.part("").items():
        assert np.array_equal(engine.numpy(values), right[name])
    streamed = checkpoint.store("dit", engine, "float32", shapes=wanted, streams=["double_blocks", "single_blocks"])
    for stream in ("double_blocks", "single_blocks"):
        for number, block in enumerate(streamed.blocks(stream)):
            assert all(np.array_equal(engine.numpy(x), right[f"{stream}.{number}.{n}"]) for n, x in block.items())
    streamed.close()


def test_folders_take_no_map_for_weights(tencent):
    assert open_tensors(tencent / MODEL / "transformers").path == transformer(tencent)
