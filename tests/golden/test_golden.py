"""Every golden case on every installed engine, and that the comparison can fail."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from engines_here import FIRST, needs_torch
from ranks_here import together

from framewake import engine as engines
from framewake import golden
from framewake.errors import CheckpointError, InputError
from framewake.golden import rule
from framewake.golden.cases import read_cases
from framewake.golden.runner import KINDS

FOLDER = Path(__file__).parent
CASES = {case.id: case for case in read_cases(FOLDER)}
# Without a model; one engine is enough to show how failures look.
QUICK = "schedule_step"
SHARED = ("dit_", "e2e_cfg", "e2e_concat", "e2e_t2v")


@pytest.mark.parametrize("name", CASES)
def test_case(engine, name):
    rows = list(golden.run(FOLDER, engine, only=(name,)))
    assert {row.array for row in rows} >= set(CASES[name].meanings)
    assert all(np.isfinite(row.difference) for row in rows)
    assert [row for row in rows if not row.passed] == []


@needs_torch
@pytest.mark.parametrize("ranks", [2, 3])
@pytest.mark.parametrize("name", [name for name in CASES if name.startswith(SHARED)])
def test_case_among_several_devices(name, ranks):
    sent = []

    def work(rank):
        rows = list(golden.run(FOLDER, rank, only=(name,)))
        sent.append(len(rank.sent))
        return rows

    for rows in together(engines.get("torch:cpu"), ranks, work):
        assert {row.array for row in rows} >= set(CASES[name].meanings)
        assert [row for row in rows if not row.passed] == []
    assert min(sent) == max(sent) > 5, "the devices shared the work"


def test_every_kind_is_among_the_cases():
    assert {case.kind for case in CASES.values()} == set(KINDS)


@pytest.fixture
def torch_engine():
    return engines.get(FIRST)


def alone(tmp_path: Path, name: str, **changes) -> Path:
    """A folder with one case, its description changed."""
    entry = next(entry for entry in json.loads((FOLDER / "cases.json").read_text())["cases"] if entry["id"] == name)
    shutil.copy(FOLDER / "tensors.json", tmp_path)
    shutil.copy(CASES[name].file, tmp_path)
    content = {"format": 1, "cases": [entry | changes]}
    (tmp_path / "cases.json").write_text(json.dumps(content))
    return tmp_path


def rewrite(folder: Path, name: str, **arrays: np.ndarray) -> None:
    path = folder / CASES[name].file.name
    np.savez(path, **(CASES[name].arrays() | arrays))


@pytest.mark.parametrize(
    "name", [QUICK, "dit_tr_b1", "vae_decode_one", "clip_text", "buckets_360p", "lora_partial_alpha"]
)
def test_one_corrupted_value_fails_its_array_only(tmp_path, torch_engine, name):
    arrays = CASES[name].arrays()
    for array, values in arrays.items():
        if array in ("image_size", "rows"):
            continue
        wrong = np.array(values)
        step = 1 if np.issubdtype(values.dtype, np.integer) else 1e-3 * max(float(np.abs(values).max()), 1e-3)
        wrong[(0,) * wrong.ndim] += np.asarray(step, dtype=wrong.dtype)
        folder = alone(tmp_path, name)
        rewrite(folder, name, **{array: wrong})
        failed = [row for row in golden.run(folder, torch_engine) if not row.passed]
        assert [row.array for row in failed] == [array]
        assert failed[0].difference >= 0.9 * step
        if len(arrays) > 8:
            break


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_no_number_fails(tmp_path, torch_engine, value):
    folder = alone(tmp_path, QUICK)
    wrong = np.array(CASES[QUICK].arrays()["sample_0"])
    wrong[0, 0, 0, 0, 0] = value
    rewrite(folder, QUICK, sample_0=wrong)
    assert [row.array for row in golden.run(folder, torch_engine) if not row.passed] == ["sample_0"]


def test_another_shape_fails(tmp_path, torch_engine):
    folder = alone(tmp_path, QUICK)
    rewrite(folder, QUICK, sample_0=CASES[QUICK].arrays()["sample_0"][:, :1])
    assert [row.array for row in golden.run(folder, torch_engine) if not row.passed] == ["sample_0"]


def test_an_array_that_nothing_computes_fails(tmp_path, torch_engine):
    meanings = json.loads(json.dumps({name: {} for name in CASES[QUICK].meanings} | {"sample_77": {}}))
    folder = alone(tmp_path, QUICK, arrays=meanings)
    rewrite(folder, QUICK, sample_77=np.zeros(3, np.float32))
    assert [row.array for row in golden.run(folder, torch_engine) if not row.passed] == ["sample_77"]


def test_padded_rows_are_not_compared(tmp_path, torch_engine):
    folder = alone(tmp_path, "dit_tr_b1")
    wrong = np.array(CASES["dit_tr_b1"].arrays()["txt_in"])
    wrong[0, 7:] = 99  # the mask ends at 7
    rewrite(folder, "dit_tr_b1", txt_in=wrong)
    assert all(row.passed for row in golden.run(folder, torch_engine))


BAD = {
    "no file": {"file": "missing.npz"},
    "outside": {"file": "../cases.json"},
    "unknown kind": {"kind": "euler_stop"},
    "no seed": {"seed": None},
    "no config": {"config": {}},
    "no inputs": {"inputs": {}},
    "no shape": {"inputs": {"sample": {"rule": "input"}}},
    "other arrays": {"arrays": {"sample_0": {}}},
    "config of another kind": {"config": {"steps": "4", "shift": 7.0, "reverse": True}},
}


@pytest.mark.parametrize("changes", BAD.values(), ids=BAD)
def test_malformed_case(tmp_path, torch_engine, changes):
    with pytest.raises((CheckpointError, InputError)):
        list(golden.run(alone(tmp_path, QUICK, **changes), torch_engine))


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2, "cases": []}', '{"format": 1}', '{"format": 1, "cases": [3]}']
)
def test_malformed_folder(tmp_path, torch_engine, text):
    shutil.copy(FOLDER / "tensors.json", tmp_path)
    (tmp_path / "cases.json").write_text(text)
    with pytest.raises(CheckpointError):
        list(golden.run(tmp_path, torch_engine))


def test_no_folder_and_no_such_case(torch_engine, tmp_path):
    with pytest.raises(InputError, match=r"cases\.json"):
        list(golden.run(tmp_path / "nothing", torch_engine))
    with pytest.raises(InputError, match="dit_tr_one_frame"):
        list(golden.run(FOLDER, torch_engine, only=("dit_tr_one_fram",)))


def test_damaged_arrays(tmp_path, torch_engine):
    folder = alone(tmp_path, QUICK)
    path = folder / CASES[QUICK].file.name
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CheckpointError, match=path.name):
        list(golden.run(folder, torch_engine))


def test_other_tensors_than_the_model_has(tmp_path, torch_engine):
    folder = alone(tmp_path, "dit_tr_b1")
    tensors = json.loads((folder / "tensors.json").read_text())
    tensors["tables"]["dit_1"]["img_in.proj.bias"] = [31]
    (folder / "tensors.json").write_text(json.dumps(tensors))
    with pytest.raises(CheckpointError, match=r"img_in\.proj\.bias"):
        list(golden.run(folder, torch_engine))


def test_known_values_of_the_rule():
    drawn = rule.weight("img_in.proj.weight", (2, 3), 7).ravel()[:3].tolist()
    assert drawn == [0.6013286113739014, 0.17011523246765137, 0.3208794593811035]
    assert rule.weight("img_in.proj.bias", (3,), 7)[0] == np.float32(-0.04043986275792122)
    assert rule.weight("norm1.weight", (3,), 7)[0] == np.float32(1.1018584966659546)
    assert rule.input("latents", (4,), 11)[1] == np.float32(1.329562783241272)
    picture = rule.image("a", 20, 24, 3)
    assert picture[0, 0].tolist() == [118, 194, 0]
    assert picture[19, 23].tolist() == [145, 96, 66]
