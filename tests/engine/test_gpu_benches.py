"""The benchmarks for GPU machines start and end, at toy size, with nothing but what such a machine has."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parents[2]
# Everything of a full installation that a bare machine lacks.
MISSING = "av pydantic fastapi starlette sqlalchemy uvicorn httpx gradio mindspore diffusers transformers peft scipy"
MISSING += " matplotlib skimage flip_evaluator huggingface_hub prometheus_client"
CODE = f"""
import runpy, sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {MISSING.split()!r}:
            raise ModuleNotFoundError(f"there is no {{name}} here", name=name)

sys.meta_path.insert(0, Missing())
sys.argv = sys.argv[1:]
sys.path.insert(0, str({str(ROOT / "scripts" / "benches")!r}))
runpy.run_path(sys.argv[0], run_name="__main__")
"""
SETTING = {"OMP_NUM_THREADS": "1"}


def toy_run(name, *options):
    script = ROOT / "scripts" / "benches" / f"{name.replace('-', '_')}.py"
    command = [sys.executable, "-c", CODE, str(script), "--toy", "--engine", "torch:cpu", *options]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, env={**os.environ, **SETTING}, timeout=600
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((ROOT / "results" / f"bench-{name}.json").read_text())


def test_gpu_step_starts_and_ends():
    found = toy_run("gpu-step", "--no-compile", "--rounds", "1")
    assert list(found["sizes"]) == ["64x96", "32x64"] and all(e["is_finite"] for e in found["sizes"].values())
    assert len(found["heaviest"]) == 10 and found["heaviest"][0]["share"] >= found["heaviest"][9]["share"] > 0
    assert all(entry["share"] > 0 and entry["floor"] > 0 for entry in found["sizes"].values())


def test_gpu_attention_starts_and_ends():
    found = toy_run("gpu-attention", "--rounds", "1")
    kernels = found["kernels"]
    assert set(kernels) >= {"cuDNN", "flash", "memory-efficient", "plain", "flex"}
    assert kernels["plain"]["error"] < 0.02 and "refused" in kernels["cuDNN"]
