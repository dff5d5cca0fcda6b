"""Engines by name: what exists, what is chosen, and what each refusal says."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time

import pytest

from framewake import engine as engines
from framewake.errors import EngineError, InputError


def python(code: str, **variables: str) -> subprocess.CompletedProcess:
    """Code in a fresh interpreter, without what this one has set."""
    environment = {name: value for name, value in os.environ.items() if name not in ("GLOG_v", "ONEDNN_MAX_CPU_ISA")}
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment | variables, check=False
    )


def test_the_same_name_gives_the_same_object(engine):
    assert engines.get(engine.name) is engine
    assert engine.reason == "asked for"


def test_importing_a_framework_makes_no_work_for_the_search_for_garbage(engine):
    done = python(
        "import gc\nfrom framewake import engine\n"
        f"engine.get({engine.name!r})\n"
        "print(gc.isenabled(), gc.get_freeze_count() > 50_000, len(gc.get_objects()) < 50_000)"
    )
    assert done.stdout.split() == ["True", "True", "True"], done.stderr


def test_a_guest_in_a_program_with_the_framework_freezes_nothing(engine):
    kind = engine.name.partition(":")[0]
    done = python(
        f"import gc, {kind}\nfrom framewake import engine\nbefore = gc.get_freeze_count()\n"
        f"engine.get({engine.name!r})\nprint(gc.isenabled(), gc.get_freeze_count() == before)"
    )
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_auto_says_why():
    chosen = engines.get("auto")
    assert chosen.name in [name if name.endswith("cpu") else f"{name}:0" for name in engines.installed()]
    assert chosen.reason.startswith("auto: ")
    assert engines.get("auto") is chosen
    assert engines.get() is chosen


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("mindspor:cpu", "'mindspore:cpu'"),
        ("torch", "'torch:cpu'"),
        ("torch:cuda:x", "'torch:cuda'"),
        ("", "torch:cpu"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name, hint):
    with pytest.raises(InputError, match="is unknown: choose") as caught:
        engines.get(name)
    assert hint in str(caught.value)
    assert "mindspore:ascend" in str(caught.value)


def test_a_device_that_is_not_there_is_answered_with_what_is(engine):
    absent = {"torch": "torch:cuda:99", "mindspore": "mindspore:ascend:99"}[engine.kind]
    with pytest.raises(EngineError, match=f"choose one of {engine.kind}:cpu"):
        engines.get(absent)


@pytest.mark.parametrize(("kind", "line"), [("torch", "pip install torch"), ("mindspore", "mindspore==2.10.0")])
def test_a_missing_framework_is_answered_with_the_install_line(monkeypatch, kind, line):
    real = engines.importlib.util.find_spec
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None if name == kind else real(name))
    monkeypatch.setattr(engines, "_engines", {})
    with pytest.raises(EngineError, match=line):
        engines.get(f"{kind}:cpu")
    assert f"{kind}:cpu" not in engines.installed()


def test_no_framework_at_all(monkeypatch):
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(engines, "_engines", {})
    assert engines.installed() == []
    with pytest.raises(EngineError, match="pip install torch"):
        engines.get("auto")


def test_importing_is_cheap():
    code = "import sys, framewake.engine as e; e.installed(); print({'torch', 'mindspore'} & set(sys.modules))"
    start = time.perf_counter()
    done = python(code)
    assert done.stdout.strip() == "set()", done.stderr
    assert time.perf_counter() - start < 5  # torch or mindspore alone would take most of it


def needs(kind: str) -> None:
    if f"{kind}:cpu" not in engines.installed():
        pytest.skip(f"{kind} is not installed")


def test_importing_torch_leaves_gradients_on():
    needs("torch")
    done = python(
        "from framewake import engine; e = engine.get('torch:cpu'); import torch;"
        "print(torch.is_grad_enabled(), e.linear(e.zeros((2, 2)), e.zeros((2, 2))).requires_grad)"
    )
    assert done.stdout.split() == ["True", "False"], done.stderr


ONEDNN = """
import os
import numpy as np
from framewake import engine
x, w = np.ones((1, 4, 5, 8, 8), np.float32), np.ones((4, 4, 3, 3, 3), np.float32)
for name in {names}:
    made = engine.get(name)
    made.numpy(made.conv3d(made.asarray(x), made.asarray(w)))
print(os.environ["GLOG_v"] if "mindspore:cpu" in {names} else None, os.environ.get("ONEDNN_MAX_CPU_ISA"))
"""


def instructions(*names: str, **variables: str) -> tuple[list[str], str]:
    """What each engine's oneDNN says of the instructions that it uses, and the environment afterwards."""
    done = python(ONEDNN.format(names=names), ONEDNN_VERBOSE="1", **variables)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    return [line.partition("isa:")[2] for line in lines if "info,cpu,isa:" in line], lines[-1]


on_x86 = pytest.mark.skipif(
    platform.machine().lower() not in {"x86_64", "amd64"}, reason="oneDNN's names of instructions are those of x86"
)


@on_x86
def test_mindspore_settings_are_made_unless_the_user_made_them():
    needs("mindspore")
    used, left = instructions("mindspore:cpu")
    assert used == ["Intel AVX2"] and left == "3 None"
    used, left = instructions("mindspore:cpu", ONEDNN_MAX_CPU_ISA="SSE41")
    assert used == ["Intel SSE4.1"] and left == "3 SSE41"


@on_x86
def test_mindspore_leaves_torch_its_instructions():
    needs("mindspore")
    needs("torch")
    alone, _ = instructions("torch:cpu")
    both, _ = instructions("mindspore:cpu", "torch:cpu")
    assert both == ["Intel AVX2", *alone]


def test_mindspore_refuses_numpy_2():
    needs("mindspore")
    done = python(
        "import numpy; numpy.__version__ = '2.1.0'; from framewake import engine; engine.get('mindspore:cpu')"
    )
    assert done.returncode != 0
    assert "EngineError" in done.stderr and 'pip install "numpy<2"' in done.stderr


def test_a_second_mindspore_device_in_a_process_is_refused():
    needs("mindspore")
    done = python("from framewake.engine import mindspore as m; m.make('cpu', ''); m.make('ascend:0', '')")
    assert done.returncode != 0
    assert "EngineError: MindSpore refuses the device 'ascend:0'" in done.stderr


def test_torch_compile_without_a_compiler_says_what_to_install(tmp_path):
    needs("torch")
    code = (
        "from framewake import engine; e = engine.get('torch:cpu'); x = e.full((3,), 1.0)\n"
        "def f(x):\n    return e.exp(x) * 2.0 + e.sin(x)\n"
        "e.compile(f)(x)"
    )
    done = python(code, CXX=str(tmp_path / "none"), PATH=str(tmp_path), TORCHINDUCTOR_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode != 0
    assert "EngineError: torch.compile failed" in done.stderr and "apt install g++" in done.stderr, done.stderr[-2000:]
