"""The Ascend branch of every model, type- and shape-checked on a CPU (see graph_check.py)."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mindspore") is None, reason="mindspore is not installed")


def check(folder: Path, case: str, dtype: str = "float16") -> subprocess.CompletedProcess:
    places = os.pathsep.join(str(place) for place in (TESTS, TESTS / "models"))
    return subprocess.run(
        [sys.executable, str(HERE / "graph_check.py"), case, dtype],
        capture_output=True,
        text=True,
        cwd=folder,  # a failed graph leaves a report in the working directory
        env=os.environ | {"PYTHONPATH": places, "GLOG_v": "4"},
        check=False,
    )


@pytest.mark.parametrize(
    ("case", "dtype", "expected"),
    [
        ("toy_right", "float16", {"LayerNormExt"}),
        ("toy_right", "float32", {"LayerNormExt"}),
        ("dit_blocks", "float16", {"LayerNormExt"}),
        ("vae", "float16", {"Conv2DExt", "Conv3DExt"}),
        ("dit", "float16", {"FlashAttentionScore", "LayerNormExt"}),
        ("llava", "float16", {"FlashAttentionScore", "Conv2DExt", "LayerNormExt"}),
        ("clip_text", "float16", {"FlashAttentionScore", "LayerNormExt"}),
    ],
)
def test_ends_only_where_a_cpu_has_no_kernel(tmp_path, case, dtype, expected):
    done = check(tmp_path, case, dtype)
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads(done.stdout.splitlines()[-1])
    assert expected <= set(result["unsupported"]), result


def test_a_wrong_shape_is_found(tmp_path):
    done = check(tmp_path, "toy_wrong")
    assert done.returncode != 0
    assert "NotAscend" in done.stderr and "47" in done.stderr
