"""The benchmarks for GPU machines start and end, at toy size, with nothing but what such a machine has."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
# What is installed there beside Python itself, and what torch, typer and rich cannot do without.
THERE = [
    "torch",
    "torchgen",
    "functorch",
    "triton",
    "numpy",
    "safetensors",
    "PIL",
    "tokenizers",
    "typer",
    "rich",
    "framewake",
]
THERE += ["typing_extensions", "filelock", "sympy", "mpmath", "networkx", "jinja2", "markupsafe", "fsspec"]
THERE += ["annotated_doc", "click", "shellingham", "markdown_it", "mdurl", "pygments"]
THERE += ["pydantic", "pydantic_core", "annotated_types", "typing_inspection"]
# As sitecustomize.py: every Python that is started finds nothing else among the installed packages.
BARE = f"""
import importlib.machinery, sys

class Bare(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = super().find_spec(name, path, target)
        places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
        is_installed = any("site-packages" in place for place in places)
        return None if is_installed and name.partition(".")[0] not in {THERE!r} else found

sys.meta_path[:] = [Bare if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The environment of a bare machine."""
    folder = tmp_path_factory.mktemp("bare")
    (folder / "sitecustomize.py").write_text(BARE)
    setting = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": f"{folder}:{ROOT / 'src'}"}
    looked = [sys.executable, "-c", "import torch, typer; import av"]
    done = subprocess.run(looked, env=setting, capture_output=True, text=True, check=False, timeout=120)
    assert "No module named 'av'" in done.stderr, "more is found than a bare machine has"
    return setting


@pytest.fixture
def machine(tmp_path, bare):
    """A copy of what the benchmarks need, whose records lie beside it, and the environment of a bare machine."""
    shutil.copytree(ROOT / "scripts" / "benches", tmp_path / "scripts" / "benches")
    (tmp_path / "src").symlink_to(ROOT / "src")
    return tmp_path, dict(bare)


@pytest.fixture
def toy_run(machine):
    """Runs one at toy size."""
    place, setting = machine

    def run(name, *options, code=0):
        script = place / "scripts" / "benches" / f"{name.replace('-', '_')}.py"
        command = [sys.executable, str(script), "--toy", "--engine", "torch:cpu", *options]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=place, env=setting, timeout=600)
        assert done.returncode == code, done.stderr[-2000:]
        return json.loads((place / "results" / f"bench-{name}.json").read_text())

    return run


def test_gpu_step_starts_and_ends(toy_run):
    found = toy_run("gpu-step", "--no-compile", "--rounds", "1")
    assert list(found["sizes"]) == ["64x96", "32x64"] and all(e["is_finite"] for e in found["sizes"].values())
    assert len(found["heaviest"]) == 10 and found["heaviest"][0]["share"] >= found["heaviest"][9]["share"] > 0
    assert all(entry["share"] > 0 and entry["floor"] > 0 for entry in found["sizes"].values())
    assert all(entry["programs"] == 0 for entry in found["sizes"].values())


@pytest.mark.parametrize("name", ["gpu-step", "gpu-devices", "gpu-train", "gpu-memory"])
def test_the_second_model_starts_and_ends(toy_run, name):
    more = ("--no-compile",) if name in ("gpu-step", "gpu-devices") else ()
    found = toy_run(name, "--model", "hunyuanvideo-1.5", "--rounds", "1", *more)
    assert found["model"] == "hunyuanvideo-1.5" and "failed" not in json.dumps(found)
    assert all("hunyuanvideo-1.5 " in row for row in found["rows"])


def test_gpu_attention_starts_and_ends(toy_run):
    kernels = toy_run("gpu-attention", "--rounds", "1")["kernels"]
    assert set(kernels) >= {"cuDNN", "flash", "memory-efficient", "plain", "flex"}
    assert kernels["plain"]["error"] < 0.02 and "refused" in kernels["cuDNN"]
    assert "CUDA" in kernels["flex"]["refused"] and kernels["flash_attn"]["refused"] == "not installed"


def test_gpu_devices_starts_and_ends_with_one(toy_run):
    found = toy_run("gpu-devices", "--rounds", "1", "--no-compile")
    assert found["processes"] == 1 and found["sent"] == found["formula"] == 0
    assert found["float32"]["largest"] == found["bfloat16"]["largest"] == 0 < found["attention"]


def test_gpu_train_starts_and_ends(toy_run):
    found = toy_run("gpu-train")
    assert {found[part]["way"] for part in ("bounded", "free")} == {"weights resident"}
    assert found["bounded"]["loss"] == found["free"]["loss"] and found["free"]["seconds"] > 0


def test_gpu_memory_starts_and_ends(toy_run):
    found = toy_run("gpu-memory", "--rounds", "2")
    assert found["streamed"]["is_streamed"] and found["difference"] == 0
    assert all(len(found[part]["runs"]) == 2 for part in ("streamed", "resident"))
    like = found["resident"]["like_streamed"]
    assert like["chunk"] == found["streamed"]["chunk"]
    assert found["ratio"] == min(found["streamed"]["runs"]) / min(like["runs"])
    assert found["decode"]["is_finite"] and len(found["rows"]) == 3


def test_a_part_that_fails_leaves_the_others_alone(toy_run, machine):
    script = machine[0] / "scripts" / "benches" / "gpu_memory.py"
    before, head, after = script.read_text().partition("def streamed(bench: Bench) -> dict[str, Any]:\n")
    script.write_text(f"{before}{head}    raise MemoryError('no room')\n{after}")
    found = toy_run("gpu-memory", "--rounds", "1", code=1)
    assert found["streamed"] == {"failed": "MemoryError: no room"} and "ratio" not in found
    assert found["resident"]["seconds"] > 0 and found["decode"]["is_finite"] and len(found["rows"]) == 2


def test_gpu_all_keeps_what_each_part_found(machine):
    place, setting = machine
    (place / "docs" / "measurements").mkdir(parents=True)
    (place / "scripts" / "benches" / "gpu_attention.py").write_text("raise SystemExit('broken')\n")
    setting |= {"OUT": str(place / "out"), "PY": sys.executable, "ENGINE": "torch:cpu", "TOY": "--toy"}

    def run(*words):
        command = ["bash", str(place / "scripts" / "benches" / "gpu_all.sh"), *words]
        return subprocess.run(command, env=setting, capture_output=True, text=True, check=False, timeout=600)

    # The other parts of "first" take minutes on a CPU.
    assert run("first", "machine", "doctor", "attention").returncode == 1
    done = run("second")
    assert done.returncode == 0, done.stdout[-2000:]
    assert run("several").returncode == 0
    parts = [line.rpartition(",")[0] for line in (place / "out" / "parts.txt").read_text().splitlines()]
    assert parts[:3] == ["machine: rc 0", "doctor: rc 0", "attention: rc 1"]
    assert parts[3:] == ["decode: rc 0", "memory: rc 0", "train: rc 0", "by-2: rc 0"]
    shared = json.loads((place / "out" / "bench-gpu-devices-2.json").read_text())
    assert shared["processes"] == 2 and shared["sent"] == shared["formula"] > 0
    assert shared["float32"]["largest"] <= 2e-6 and shared["bfloat16"]["largest"] < 0.1 and shared["peak"] > 0
    assert "broken" in (place / "out" / "log.txt").read_text()
    kept = [json.loads((place / "out" / f"bench-gpu-{name}.json").read_text()) for name in ("decode", "memory")]
    assert kept[0]["decode"]["is_finite"] and kept[1]["ratio"] > 0
