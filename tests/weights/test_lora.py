"""One update in every published format gives the same merged weights, on both engines."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from lora_files import (
    ALPHA,
    BASE,
    TARGETS,
    adapted,
    as_bfloat16,
    diffusers_keys,
    diffusers_metadata,
    expected,
    keys_of,
    rank_of,
    write,
)

from framewake.config import HUNYUAN_DIT
from framewake.models.dit import DiT
from framewake.weights.lora.file import fit, open_lora
from framewake.weights.lora.keys import OFFICIAL
from framewake.weights.lora.report import report
from framewake.weights.lora.targets import Targets
from framewake.weights.lora.view import LoraView
from framewake.weights.stores.store import Resident
from framewake.weights.writing.files import write_tensors

DATA = Path(__file__).parents[1] / "data"
FILES = {
    "official": lambda: (keys_of("official"), None),
    "kohya": lambda: (keys_of("kohya"), None),
    "comfyui": lambda: (keys_of("comfyui", "lora_A"), None),
    "comfyui, lora_down": lambda: (keys_of("comfyui"), None),
    "diffusers": lambda: (diffusers_keys(), None),
    "diffusers, configured": lambda: (diffusers_keys(alpha=None), diffusers_metadata()),
    "diffusers, PEFT": lambda: (diffusers_keys(prefix="base_model.model.transformer."), None),
    "kohya, diffusers' names": lambda: (
        {"lora_transformer_" + underscored(key): value for key, value in diffusers_keys(prefix="").items()},
        None,
    ),
}


def underscored(key):
    module, dot, ending = key.partition(".lora_") if ".lora_" in key else key.rpartition(".")
    return module.replace(".", "_") + dot + ending


def merged(engine, lora, scale=1.0, base=BASE, dtype="float32"):
    view = LoraView(engine, Resident({name: engine.asarray(x, dtype) for name, x in base.items()}), [lora])
    view.use([scale])
    return {name: engine.numpy(x) for name, x in view.part("").items()}


def check(found, names=None, scale=1.0, **changes):
    """Every weight against its definition in float64; what has no pair is the base, bit by bit."""
    worst = 0.0
    for name, base in BASE.items():
        if name in (names or adapted()):
            want = expected(name, scale, **changes)
            worst = max(worst, float(np.abs(found[name] - want).max() / np.abs(want).max()))
            assert not np.allclose(want, base, atol=1e-3), "the update is too small to prove anything"
        else:
            assert np.array_equal(found[name], base), name
    assert worst <= 2e-6, worst


@pytest.mark.parametrize("kind", FILES)
def test_every_format_gives_the_same_weights(engine, kind, tmp_path):
    tensors, metadata = FILES[kind]()
    lora = open_lora(write(tmp_path / "a.safetensors", tensors, metadata), TARGETS)
    assert lora.format == kind.partition(",")[0] and not lora.unmatched
    check(merged(engine, lora, 0.8), scale=0.8)


@pytest.mark.parametrize("style", ["official", "diffusers"])
def test_without_alpha_the_rank_is_taken(engine, style, tmp_path):
    tensors = diffusers_keys(alpha=None) if style == "diffusers" else keys_of(style, alpha=None)
    lora = open_lora(write(tmp_path / "a.safetensors", tensors), TARGETS)
    check(merged(engine, lora), alpha=None)
    assert not report(lora).has_alpha


def test_alpha_can_be_ignored_as_in_the_original(engine, tmp_path):
    path = write(tmp_path / "a.safetensors", keys_of("official"))
    check(merged(engine, open_lora(path, TARGETS, ignores_alpha=True), 0.5), scale=0.5, alpha=None)


def test_an_adapter_folder_of_peft(engine, tmp_path):
    write(tmp_path / "adapter_model.safetensors", diffusers_keys(alpha=None, prefix="base_model.model."))
    (tmp_path / "adapter_config.json").write_text(json.dumps({"lora_alpha": ALPHA, "peft_type": "LORA"}))
    check(merged(engine, open_lora(tmp_path, TARGETS)))


def test_alpha_by_module_and_by_root_of_the_rank(tmp_path):
    names = ["double_blocks.0.img_mod.linear.weight", "single_blocks.0.modulation.linear.weight"]
    config = {"lora_alpha": 8, "alpha_pattern": {"norm.linear": 2}, "use_rslora": True}
    metadata = {"lora_adapter_metadata": json.dumps({f"transformer.{k}": v for k, v in config.items()})}
    lora = open_lora(write(tmp_path / "a.safetensors", diffusers_keys(None, names=names), metadata), TARGETS)
    factors = {update.place.weight: update.factor() for update in lora.updates}
    assert factors == {names[0]: 8 / 2, names[1]: 2 / 2}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_files(engine, dtype, tmp_path):
    path = tmp_path / "a.safetensors"
    if dtype == "float16":
        write(path, keys_of("kohya", dtype=np.float16))
        check(merged(engine, open_lora(path, TARGETS)), dtype=np.float16)
        return
    bits, kinds = as_bfloat16(keys_of("kohya"))
    write_tensors(path, bits, kinds=kinds)
    found = merged(engine, open_lora(path, TARGETS))
    widened = {name: np.asarray((x.astype(np.uint32) << np.uint32(16)).view(np.float32)) for name, x in bits.items()}
    other = merged(engine, open_lora(write(tmp_path / "b.safetensors", widened), TARGETS))
    assert all(np.array_equal(found[name], other[name]) for name in found)


def test_only_some_of_query_key_value(engine, tmp_path):
    name = "double_blocks.0.img_attn_qkv.weight"
    tensors = {key: x for key, x in diffusers_keys(names=[name]).items() if "to_k." in key}
    lora = open_lora(write(tmp_path / "a.safetensors", tensors), TARGETS)
    found, width = merged(engine, lora)[name], BASE[name].shape[1]
    want = expected(name)
    assert np.array_equal(found[:width], BASE[name][:width])
    assert np.array_equal(found[2 * width :], BASE[name][2 * width :])
    assert np.abs(found[width : 2 * width] - want[width : 2 * width]).max() < 1e-6


def test_ranks_may_differ_inside_a_fused_layer(engine, tmp_path):
    name, tensors, width = "single_blocks.0.linear1.weight", {}, 32
    want = BASE[name].astype(np.float64)
    for number, (part, rows) in enumerate([("attn.to_q", 32), ("attn.to_k", 32), ("attn.to_v", 32), ("proj_mlp", 128)]):
        rng = np.random.default_rng(number)
        down, up = (rng.standard_normal(s).astype(np.float32) for s in ((number + 1, width), (rows, number + 1)))
        key = f"transformer.single_transformer_blocks.0.{part}"
        tensors |= {f"{key}.lora_A.weight": down, f"{key}.lora_B.weight": up, f"{key}.alpha": np.float32(number + 2)}
        want[32 * number : 32 * number + rows] += (number + 2) / (number + 1) * (up.astype(np.float64) @ down)
    tensors = {key: np.asarray(x) for key, x in tensors.items()}
    found = merged(engine, open_lora(write(tmp_path / "a.safetensors", tensors), TARGETS))[name]
    assert np.abs(found - want).max() <= 2e-6 * np.abs(want).max()


def test_every_key_of_the_official_recipe_has_its_place():
    shapes = json.loads((DATA / "lora-keys.json").read_text())
    held = _Header(shapes)
    targets = Targets.of(HUNYUAN_DIT, DiT(None, HUNYUAN_DIT).shapes())
    lora = fit(Path("official"), held, targets)
    places = {update.module.name: update.place for update in lora.updates}
    assert len(places) == len({place.weight for place in places.values()}) == 325
    assert all(place.weight.removesuffix(".weight").replace(".", "_") == module for module, place in places.items())
    facts = report(lora)
    assert (facts.format, facts.ranks, facts.matched, facts.modules) == ("official", (64,), 325, 325)
    assert OFFICIAL + next(iter(places)) + ".lora_up.weight" in shapes


def test_the_report_measures_the_change(tmp_path):
    lora = open_lora(write(tmp_path / "a.safetensors", keys_of("kohya")), TARGETS)
    facts = report(lora, lambda name: float(np.linalg.norm(BASE[name])))
    changes = {n: np.linalg.norm(expected(n) - BASE[n]) / np.linalg.norm(BASE[n]) for n in adapted()}
    name = max(changes, key=changes.get)
    assert facts.largest_weight == name and facts.largest == pytest.approx(changes[name], rel=1e-5)
    assert facts.ranks == tuple(sorted({rank_of(n) for n in adapted()})) and facts.alphas == (ALPHA,)
    assert f"{len(adapted())} of {len(adapted())} modules matched" in facts.sentence(0.5)
    assert f"{50 * facts.largest:.3g} %" in facts.sentence(0.5)


class _Header:
    """Shapes without data."""

    def __init__(self, shapes):
        self._shapes = shapes
        self.metadata = {}

    def names(self):
        return tuple(self._shapes)

    def shape(self, name):
        return tuple(self._shapes[name])

    def dtype(self, name):
        return "F16"

    def read(self, name):
        return np.zeros(self.shape(name), np.float16)
