"""Differences, whole values, DoRA, LoHa and LoKr: each against its formula in float64, on both engines."""

from __future__ import annotations

import numpy as np
import pytest
from lora_files import ALPHA, BASE, SHAPES, TARGETS, write
from toy_checkpoint import write_toy

from framewake.errors import CheckpointError
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.convert import convert
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.fuse import fuse
from framewake.weights.lora.keys import FORMATS
from framewake.weights.lora.report import report
from framewake.weights.lora.view import LoraView
from framewake.weights.stores.store import Resident

FUSED = "double_blocks.0.img_attn_qkv"
WHOLE = "double_blocks.0.img_mlp.fc1"
KERNEL = "img_in.proj"
SWAPPED = "final_layer.adaLN_modulation.1"
NORM = "single_blocks.0.q_norm"
RANK = 4


def drawn(seed, *shape):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / np.float32(2)


def sizes(module):
    rows, *columns = SHAPES[f"{module}.weight"]
    return rows, int(np.prod(columns))


def wide(*arrays):
    return [np.asarray(x, np.float64) for x in arrays]


def flat(module):
    return BASE[f"{module}.weight"].astype(np.float64).reshape(sizes(module))


def pair(module, seed=1, rank=RANK):
    rows, columns = sizes(module)
    kernel = SHAPES[f"{module}.weight"][2:]
    up, down = drawn(seed, rows, rank), drawn(seed + 1, rank, columns)
    tensors = {
        "lora_up.weight": up.reshape(rows, rank, *(1 for _ in kernel)),
        "lora_down.weight": down.reshape(rank, -1, *kernel),
        "alpha": np.asarray(ALPHA, np.float32),
    }
    one, other = wide(up, down)
    return tensors, ALPHA / rank * one @ other


def plain(module):
    tensors, change = pair(module)
    return tensors, lambda scale: {f"{module}.weight": flat(module) + scale * change}


def difference(module):
    values = drawn(3, *SHAPES[f"{module}.weight"])
    new = values.astype(np.float64).reshape(len(values), -1)
    return {"diff": values}, lambda scale: {
        f"{module}.weight": BASE[f"{module}.weight"].reshape(new.shape) + scale * new
    }


def bias_difference(module):
    tensors, made = plain(module)
    values, name = drawn(4, sizes(module)[0]), f"{module}.bias"
    return tensors | {
        "diff_b": values
    }, lambda scale: made(scale) | {name: BASE[name] + scale * values.astype(np.float64)}


def bias_of_up(module):
    """PEFT multiplies it with alpha over rank, as the product."""
    tensors, made = plain(module)
    values, name = drawn(4, sizes(module)[0]), f"{module}.bias"
    change = ALPHA / RANK * values.astype(np.float64)
    return tensors | {"lora_up.bias": values}, lambda scale: made(scale) | {name: BASE[name] + scale * change}


def value(module):
    new = drawn(5, *SHAPES[f"{module}.weight"])
    base = BASE[f"{module}.weight"].astype(np.float64)
    return {"set_weight": new}, lambda scale: {f"{module}.weight": base + scale * (new - base)}


def dora(module, axis, magnitudes="dora_scale"):
    tensors, change = pair(module)
    rows, columns = sizes(module)
    magnitude = np.abs(drawn(6, *((rows, 1) if axis == 1 else (1, columns)))) + np.float32(0.5)
    new = flat(module) + change
    new = magnitude * new / np.sqrt((new * new).sum(axis, keepdims=True))
    base = flat(module)
    kernel = [1] * len(SHAPES[f"{module}.weight"][2:])
    shapes = {"dora_scale": (*magnitude.shape, *kernel), "lora_magnitude_vector": (1, -1, *kernel) if kernel else (-1,)}
    held = magnitude.reshape(shapes[magnitudes])
    return tensors | {magnitudes: held}, lambda scale: {f"{module}.weight": base + scale * (new - base)}


def loha(module):
    rows, columns = sizes(module)
    parts = {
        f"hada_w{n}_{x}": drawn(10 * n + len(shape), *shape)
        for n in (1, 2)
        for x, shape in (("a", (rows, RANK)), ("b", (RANK, columns)))
    }
    a, b, c, d = wide(*parts.values())
    change = ALPHA / RANK * (a @ b) * (c @ d)
    parts["alpha"] = np.asarray(ALPHA, np.float32)
    return parts, lambda scale: {f"{module}.weight": flat(module) + scale * change}


def lokr(module, is_first_cut, is_second_cut):
    rows, columns = sizes(module)
    shapes = ((4, 2), (rows // 4, columns // 2))
    parts, matrices = {"alpha": np.asarray(ALPHA, np.float32)}, []
    for name, shape, is_cut in (("lokr_w1", shapes[0], is_first_cut), ("lokr_w2", shapes[1], is_second_cut)):
        if is_cut:
            one, other = drawn(7, shape[0], RANK), drawn(8, RANK, shape[1])
            parts |= {f"{name}_a": one, f"{name}_b": other}
            matrices.append(np.matmul(*wide(one, other)))
        else:
            parts[name] = drawn(9, *shape)
            matrices += wide(parts[name])
    ratio = ALPHA / RANK if is_first_cut or is_second_cut else 1.0
    change = ratio * np.kron(*matrices)
    return parts, lambda scale: {f"{module}.weight": flat(module) + scale * change}


KINDS = {
    "difference of a matrix": (WHOLE, difference, ()),
    "difference of a kernel": (KERNEL, difference, ()),
    "difference of a norm": (NORM, difference, ()),
    "difference of a bias": (FUSED, bias_difference, ()),
    "bias of a factor": (FUSED, bias_of_up, ()),
    "a value": (WHOLE, value, ()),
    "a value of a norm": (NORM, value, ()),
    "DoRA by row": (FUSED, dora, (1,)),
    "DoRA by column": (WHOLE, dora, (0,)),
    "DoRA of a kernel": (KERNEL, dora, (1,)),
    "DoRA as PEFT writes it": (FUSED, dora, (1, "lora_magnitude_vector")),
    "DoRA of a kernel as PEFT writes it": (KERNEL, dora, (1, "lora_magnitude_vector")),
    "LoHa": (FUSED, loha, ()),
    "LoKr, whole": (WHOLE, lokr, (False, False)),
    "LoKr, second cut": (FUSED, lokr, (False, True)),
    "LoKr, both cut": (WHOLE, lokr, (True, True)),
}


def made(kind):
    module, build, more = KINDS[kind]
    tensors, want = build(module, *more)
    return {f"diffusion_model.{module}.{ending}": x for ending, x in tensors.items()}, want


def opened(tmp_path, kind):
    tensors, want = made(kind)
    return open_lora(write(tmp_path / "a.safetensors", tensors), TARGETS), want


def check(found, wanted):
    for name, base in BASE.items():
        if name in wanted:
            want = wanted[name].reshape(base.shape)
            assert np.abs(want - base).max() > 0.01
            assert np.abs(found[name] - want).max() <= 3e-6 * np.abs(want).max(), name
        else:
            assert np.array_equal(found[name], base), name


@pytest.mark.parametrize("kind", KINDS)
def test_the_view_gives_what_the_formula_says(engine, tmp_path, kind):
    lora, want = opened(tmp_path, kind)
    store = Resident({name: engine.asarray(x, "float32") for name, x in BASE.items()})
    for keeps in (True, False):
        view = LoraView(engine, store, [lora], keeps=keeps)
        for scale in (1.0, 0.3, -0.5):
            view.use([scale])
            check({name: engine.numpy(x) for name, x in view.part("").items()}, want(scale))
        view.use([0.0])
        assert all(view.part("")[name] is x for name, x in store.part("").items())


def test_names_of_diffusers_with_swapped_halves(engine, tmp_path):
    """Everything that stands by row is turned with the rows, magnitudes and biases among it."""
    tensors, want = bias_difference(SWAPPED)
    tensors["dora_scale"] = np.abs(drawn(6, sizes(SWAPPED)[0], 1)) + np.float32(0.5)
    new = want(1.0)[f"{SWAPPED}.weight"]
    new = tensors["dora_scale"] * new / np.linalg.norm(new, axis=1, keepdims=True)
    by_row = ("lora_up.weight", "diff_b", "dora_scale")
    turned = {end: np.concatenate(np.split(x, 2)[::-1]) if end in by_row else x for end, x in tensors.items()}
    path = write(tmp_path / "a.safetensors", {f"transformer.norm_out.linear.{end}": x for end, x in turned.items()})
    view = LoraView(
        engine,
        Resident({name: engine.asarray(x, "float32") for name, x in BASE.items()}),
        [open_lora(path, TARGETS)],
    )
    check({name: engine.numpy(x) for name, x in view.part("").items()}, want(1.0) | {f"{SWAPPED}.weight": new})


@pytest.mark.parametrize("kind", ["difference of a bias", "DoRA by row", "LoHa", "a value", "LoKr, both cut"])
def test_merged_for_good_and_streamed_are_the_same(engine, tmp_path, kind):
    checkpoint = open_checkpoint(write_toy(tmp_path / "toy"))
    lora, _ = opened(tmp_path, kind)
    fuse(checkpoint, [lora], [0.7], folder=tmp_path / "new", engine=engine)
    merged = open_checkpoint(tmp_path / "new").tensors("dit")
    streams = ("double_blocks", "single_blocks")
    store = checkpoint.store("dit", engine, "float32", shapes=SHAPES, streams=streams)
    view = LoraView(engine, store, [lora], keeps=False)
    view.use([0.7])
    changed = 0
    for name in streams:
        for number, block in enumerate(view.blocks(name)):
            for key, x in block.items():
                full = f"{name}.{number}.{key}"
                # The toy's files are in float32, so nothing is rounded between.
                assert np.array_equal(merged.read(full), engine.numpy(x)), full
                changed += not np.array_equal(merged.read(full), checkpoint.tensors("dit").read(full))
    store.close()
    assert changed == len(lora.by_weight())


HOLDS = {
    "official": (),
    "diffusers": (
        "DoRA by row",
        "DoRA of a kernel",
        "DoRA as PEFT writes it",
        "DoRA of a kernel as PEFT writes it",
    ),
    "kohya": tuple(KINDS),
    "comfyui": tuple(KINDS),
}


@pytest.mark.parametrize("style", FORMATS)
def test_formats_hold_it_or_refuse_it_by_name(engine, tmp_path, style):
    for number, kind in enumerate(KINDS):
        lora, want = opened(tmp_path, kind)
        path = tmp_path / f"{number}.safetensors"
        if kind in HOLDS[style]:
            convert(lora, path, style, TARGETS)
            view = LoraView(
                engine,
                Resident({name: engine.asarray(x, "float32") for name, x in BASE.items()}),
                [open_lora(path, TARGETS)],
            )
            check({name: engine.numpy(x) for name, x in view.part("").items()}, want(1.0))
            continue
        with pytest.raises(CheckpointError, match=rf"the {style} format cannot hold '.*'.*--format (comfyui|kohya)"):
            convert(lora, path, style, TARGETS)
        assert not path.exists()


@pytest.mark.parametrize(
    ("style", "key", "shape"),
    [
        ("kohya", "lora_unet_img_in_proj.dora_scale", lambda rows: (rows, 1, 1, 1, 1)),
        ("diffusers", "transformer.x_embedder.proj.lora_magnitude_vector", lambda rows: (1, rows, 1, 1, 1)),
    ],
)
def test_magnitudes_of_a_kernel_have_the_axes_that_their_readers_multiply(tmp_path, style, key, shape):
    lora, _ = opened(tmp_path, "DoRA of a kernel")
    convert(lora, tmp_path / "b.safetensors", style, TARGETS)
    file = open_lora(tmp_path / "b.safetensors", TARGETS).tensors
    assert file.shape(key) == shape(sizes(KERNEL)[0])


def test_a_conversion_may_leave_out_what_does_not_fit(tmp_path):
    lora, _ = opened(tmp_path, "difference of a bias")
    assert convert(lora, tmp_path / "b.safetensors", "official", TARGETS, allows_partial=True) == 1
    assert [u.method for u in open_lora(tmp_path / "b.safetensors", TARGETS).updates] == ["product"]


def test_pieces_with_magnitudes_become_one_layer_and_back(engine, tmp_path):
    tensors, want = dora(FUSED, 1)
    width = sizes(FUSED)[1]
    cut = {}
    for number, part in enumerate("qkv"):
        rows = slice(number * width, (number + 1) * width)
        key = f"transformer.transformer_blocks.0.attn.to_{part}"
        cut |= {f"{key}.lora_A.weight": tensors["lora_down.weight"], f"{key}.alpha": tensors["alpha"]}
        cut[f"{key}.lora_B.weight"] = np.ascontiguousarray(tensors["lora_up.weight"][rows])
        cut[f"{key}.lora_magnitude_vector"] = np.ascontiguousarray(tensors["dora_scale"][rows, 0])
    write(tmp_path / "a.safetensors", cut)
    for source, target, style in (("a", "b", "kohya"), ("b", "c", "diffusers")):
        lora = open_lora(tmp_path / f"{source}.safetensors", TARGETS)
        convert(lora, tmp_path / f"{target}.safetensors", style, TARGETS)
    base = Resident({name: engine.asarray(x, "float32") for name, x in BASE.items()})
    for name in "abc":
        view = LoraView(engine, base, [open_lora(tmp_path / f"{name}.safetensors", TARGETS)])
        check({name: engine.numpy(x) for name, x in view.part("").items()}, want(1.0))


def test_the_report_names_the_methods(tmp_path):
    told = {kind: report(opened(tmp_path, kind)[0]).sentence() for kind in KINDS}
    assert "LoRA and differences" in told["difference of a bias"] and "no rank" in told["difference of a norm"]
    assert "LoRA and DoRA" in told["DoRA by row"] and "LoHa" in told["LoHa"] and "LoKr" in told["LoKr, both cut"]
