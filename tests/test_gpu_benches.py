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
# What is installed there beside Python itself, and what torch cannot do without.
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
# Finds nothing else among the installed packages, then runs the script that is named.
CODE = f"""
import importlib.machinery, runpy, sys
from pathlib import Path

class Bare(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = super().find_spec(name, path, target)
        places = [] if found is None else [found.origin or "", *(found.submodule_search_locations or ())]
        is_installed = any("site-packages" in place for place in places)
        return None if is_installed and name.partition(".")[0] not in {THERE!r} else found

sys.meta_path[:] = [Bare if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
try:
    import av
except ModuleNotFoundError:
    pass
else:
    sys.exit("more is found than a bare machine has")
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def toy_run(tmp_path):
    """Runs one at toy size; its record lies in a folder of its own and not among the measured ones."""
    shutil.copytree(ROOT / "scripts" / "benches", tmp_path / "scripts" / "benches")

    def run(name, *options):
        script = tmp_path / "scripts" / "benches" / f"{name.replace('-', '_')}.py"
        command = [sys.executable, "-c", CODE, str(script), "--toy", "--engine", "torch:cpu", *options]
        setting = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=tmp_path, env=setting, timeout=600
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads((tmp_path / "results" / f"bench-{name}.json").read_text())

    return run


def test_gpu_step_starts_and_ends(toy_run):
    found = toy_run("gpu-step", "--no-compile", "--rounds", "1")
    assert list(found["sizes"]) == ["64x96", "32x64"] and all(e["is_finite"] for e in found["sizes"].values())
    assert len(found["heaviest"]) == 10 and found["heaviest"][0]["share"] >= found["heaviest"][9]["share"] > 0
    assert all(entry["share"] > 0 and entry["floor"] > 0 for entry in found["sizes"].values())


def test_gpu_attention_starts_and_ends(toy_run):
    kernels = toy_run("gpu-attention", "--rounds", "1")["kernels"]
    assert set(kernels) >= {"cuDNN", "flash", "memory-efficient", "plain", "flex"}
    assert kernels["plain"]["error"] < 0.02 and "refused" in kernels["cuDNN"]
    assert "CUDA" in kernels["flex"]["refused"] and kernels["flash_attn"]["refused"] == "not installed"


def test_gpu_memory_starts_and_ends(toy_run):
    found = toy_run("gpu-memory", "--rounds", "2")
    assert found["streamed"]["is_streamed"] and found["difference"] == 0
    assert all(len(found[part]["runs"]) == 2 for part in ("streamed", "resident"))
    assert found["ratio"] == min(found["streamed"]["runs"]) / min(found["resident"]["runs"])
    assert found["decode"]["is_finite"] and len(found["rows"]) == 3
