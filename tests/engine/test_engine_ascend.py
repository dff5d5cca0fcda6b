"""The Ascend branch of every model, type- and shape-checked on a CPU (see graph_check.py)."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
TESTS = HERE.parent
ROOT = TESTS.parent

pytestmark = pytest.mark.skipif(importlib.util.find_spec("mindspore") is None, reason="mindspore is not installed")


def check(folder: Path, *words: str) -> subprocess.CompletedProcess:
    places = os.pathsep.join(str(place) for place in (TESTS, TESTS / "models", ROOT, ROOT / "src"))
    return subprocess.run(
        [sys.executable, str(HERE / "graph_check.py"), *words],
        capture_output=True,
        text=True,
        cwd=folder,  # a failed graph leaves a report in the working directory
        env=os.environ | {"PYTHONPATH": places, "GLOG_v": "4"},
        check=False,
    )


RIGHT = {
    "toy_right:float16": {"LayerNormExt"},
    "toy_right:float32": {"LayerNormExt"},
    "toy_norm:float16": {""},
    "toy_norm:bfloat16": {""},
    "dit_blocks:float16": {"LayerNormExt"},
    "vae:float16": {"Conv2DExt", "Conv3DExt"},
    "dit:float16": {"FlashAttentionScore", "LayerNormExt"},
    "llava:float16": {"FlashAttentionScore", "Conv2DExt", "LayerNormExt"},
    "clip_text:float16": {"FlashAttentionScore", "LayerNormExt"},
}
OPERATIONS = "operations:bfloat16"


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """What each case ended with: right graphs share a process, whose start costs as much as many of them."""
    done = check(tmp_path_factory.mktemp("right"), *RIGHT, OPERATIONS)
    found = {told["case"]: told for told in map(json.loads, done.stdout.splitlines())}
    return found, f"{done.returncode}: {done.stderr[-3000:]}"


@pytest.mark.parametrize("case", RIGHT)
def test_ends_only_where_a_cpu_has_no_kernel(checked, case):
    found, said = checked
    assert case in found, said
    assert RIGHT[case] <= set(found[case]["unsupported"]), found[case]


# What is no operation of a graph: it moves tensors, asks the device, or works with other processes and gradients.
NO_OPERATION = {
    *("asarray", "numpy", "dtype", "to_device", "to_host", "draw_normal", "key_lengths", "attention_kernels"),
    *("compile", "grad", "vjp", "stop_gradient", "recompute", "adapted_linear", "make_deterministic"),
    *("synchronize", "memory", "mark", "copy_stream", "rank", "size", "exchange"),
}


def test_every_operation_gives_the_shape_and_type_that_it_should(checked):
    from framewake.engine.contract import Engine

    found, said = checked
    assert OPERATIONS in found, said
    public = {name for name, value in vars(Engine).items() if callable(value) and not name.startswith("_")}
    assert set(found[OPERATIONS]["checked"]) == public - NO_OPERATION


@pytest.mark.parametrize(("case", "said"), [("another_shape", "the shape is"), ("another_type", "the type is")])
def test_another_result_is_found(tmp_path, case, said):
    done = check(tmp_path, f"{case}:float16")
    assert done.returncode != 0 and "NotAscend" in done.stderr and said in done.stderr


def test_what_is_called_is_there_for_ascend():
    """By MindSpore's own text: platforms, names of arguments, and the limits of attention that the engine keeps to."""
    from mindspore import mint, ops

    places = {"mint": mint, "ops": ops, "F": mint.nn.functional}
    package = ROOT / "src" / "framewake" / "engine" / "mindspore"
    seen = 0
    for call in ast.walk(ast.parse((package / "ascend.py").read_text("utf-8"))):
        made = call.func if isinstance(call, ast.Call) else None
        if not isinstance(made, ast.Attribute) or not isinstance(made.value, ast.Name) or made.value.id not in places:
            continue
        function = getattr(places[made.value.id], made.attr)
        if made.attr != "reshape":  # has no text of its own
            platforms = inspect.getdoc(function).partition("Supported Platforms:")[2].strip().splitlines()[0]
            assert "``Ascend``" in platforms, made.attr
        names = inspect.signature(function).parameters
        if not any(each.kind is each.VAR_KEYWORD for each in names.values()):
            assert {keyword.arg for keyword in call.keywords} <= set(names), made.attr
        seen += 1
    assert seen > 50
    limits = " ".join(inspect.getdoc(ops.flash_attention_score).split())
    assert "Head size. The value ranges are a multiple of 16, with the max value of 512" in limits
    assert "The supported dtype is float16 and bfloat16" in limits


def test_a_wrong_shape_is_found(tmp_path):
    done = check(tmp_path, "toy_wrong:float16")
    assert done.returncode != 0
    assert "NotAscend" in done.stderr and "47" in done.stderr


@pytest.fixture
def ascend():
    """The engine of a device that is not there."""
    from framewake.engine.mindspore import MindsporeEngine

    return MindsporeEngine("ascend:0", "a test")


@pytest.mark.parametrize("call", ["asarray([1.0, 2.0])", "asarray(3)", "to_device(ms.Tensor([1.0]))"])
def test_an_array_is_copied_to_the_device_at_once(call):
    """MindSpore leaves it on the host until it is first used, and copies it between the operations then."""
    code = "import mindspore as ms; from framewake.engine.mindspore import MindsporeEngine as Engine; "
    code += f"engine = Engine('ascend:0', ''); x = engine.{call}; print('made'); engine.numpy(x)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "libmindspore_ascend" in done.stderr, "it was left on the host"


def test_no_thread_switches_the_stream_of_the_process(ascend):
    """The current stream is one for all threads in MindSpore's source: the model's kernels would change theirs."""
    with ascend.copy_stream() as held:
        assert held is None
    package = ROOT / "src" / "framewake" / "engine" / "mindspore"
    calls = [node for path in package.glob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8")))]
    assert not [
        n for n in calls if isinstance(n, ast.Attribute) and n.attr in ("StreamCtx", "stream", "set_cur_stream")
    ]


def test_float32_is_float32_before_the_first_operation(monkeypatch):
    """CANN rounds the inputs of float32 convolutions unless it is told not to, which it can be once."""
    import mindspore as ms

    from framewake.engine import mindspore as module

    done = []
    monkeypatch.setattr(ms, "set_device", lambda *given: done.append(("device", *given)))
    precision = ms.device_context.ascend.op_precision
    monkeypatch.setattr(precision, "conv_allow_hf32", lambda value: done.append(("hf32", value)))
    monkeypatch.setattr(ms.mint, "zeros", lambda shape: done.append("operation") or ms.Tensor(np.zeros(shape)))
    assert module.make("ascend:0", "a test").traits.fused_attention == ("float16", "bfloat16")
    assert done == [("device", "Ascend", 0), ("hf32", False), "operation"]
