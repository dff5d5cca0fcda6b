"""A machine with a GPU and little else: the memory benchmark runs without web, video and parity packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Refuses every package that such a machine does not have, then runs the script that is named.
GUARD = """
import importlib.abc, runpy, sys
ABSENT = {"av", "pydantic", "fastapi", "starlette", "uvicorn", "sqlalchemy", "httpx", "huggingface_hub", "scipy",
          "diffusers", "transformers", "mindspore", "pytest"}
class Refusing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            raise ImportError(f"{name} is not on this machine")
sys.meta_path.insert(0, Refusing())
sys.argv = sys.argv[1:]
sys.path.insert(0, str(__import__("pathlib").Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture
def project(tmp_path):
    """The benchmarks in a folder of their own, so that a trial leaves no record among the real ones."""
    shutil.copytree(ROOT / "scripts" / "benches", tmp_path / "scripts" / "benches")
    return tmp_path


def test_the_gpu_memory_benchmark_runs_on_a_bare_machine(project):
    pytest.importorskip("torch")
    script = project / "scripts" / "benches" / "gpu_memory.py"
    command = [sys.executable, "-c", GUARD, str(script), "--engine", "torch:cpu", "--toy", "--no-notes"]
    paths = {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | paths, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((project / "results" / "bench-gpu-memory.json").read_text())
    assert found["streamed"]["is_streamed"] and found["difference"] == 0
    assert found["decode"]["is_finite"] and len(found["rows"]) == 3
