"""Compiling on the branch for CUDA, tried on a CPU: how many programs there are, and what happens where one fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from cuda_here import CudaHere, build_nothing  # noqa: E402

from framewake.engine.torch.attention import attend  # noqa: E402


@pytest.fixture
def here():
    return CudaHere()


def test_any_failure_to_compile_is_told_and_costs_speed_only(here, monkeypatch, caplog):
    def broken(function, **_):
        def fails(*_):
            raise KeyError("ptxas fatal")

        return fails

    monkeypatch.setattr(torch, "compile", broken)
    assert here.plain_reason == ""
    compiled = here.compile(lambda x: x + 1.0)
    assert [float(compiled(here.full((), 1.0))) for _ in range(2)] == [2.0, 2.0]
    assert len(caplog.records) == 1 and "ptxas fatal" in caplog.text and "gcc" in caplog.text
    assert "ptxas fatal" in here.plain_reason


def test_too_little_memory_is_no_failure_to_compile(here, monkeypatch):
    def full(*_):
        raise torch.cuda.OutOfMemoryError("out of memory")

    monkeypatch.setattr(torch, "compile", lambda function, **_: full)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        here.compile(lambda x: x)(here.zeros((1,)))
    assert here.plain_reason == ""


def test_more_sizes_than_torch_has_programs_for_are_all_compiled(here, monkeypatch):
    """Closures of one line share a code object, of which torch compiles eight programs."""

    def made(size):
        def function(x):
            return x * float(size) + here.sum(x, (0,))

        return here.compile(function)

    build_nothing(monkeypatch)
    for size in range(1, 12):
        assert here.numpy(made(size)(here.full((size,), 1.0))).tolist() == [2.0 * size] * size
    assert torch._dynamo.utils.counters["frames"]["ok"] == 11 and here.plain_reason == ""
    assert not torch._dynamo.utils.counters["graph_break"]


def test_an_attention_that_the_compiler_does_not_see_is_what_it_says(here):
    q, k, v = (torch.randn((2, 9, 2, 16), generator=torch.Generator().manual_seed(n)) for n in range(3))
    given = (q, k, v, torch.tensor([9, 4]), 0.25)
    torch.library.opcheck(attend, (*given, False), test_utils=("test_schema", "test_faketensor"))
    for is_composed in (False, True):
        found = attend(*given, is_composed)
        assert (found - here.attention(q, k, v, scale=0.25, lengths=(9, 4))).abs().max() < 1e-6
    torch._dynamo.utils.counters.clear()
    compiled = here.compile(lambda lengths: here.attention(q, k, v, scale=0.25, lengths=lengths) * 2.0)
    for lengths in ((9, 4), (3, 7), (1, 9)):
        found = compiled(here.key_lengths(lengths))
        assert (found - here.attention(q, k, v, scale=0.25, lengths=lengths) * 2).abs().max() < 1e-6
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1 and here.plain_reason == ""


def test_one_function_for_too_many_sizes_says_that_it_is_not_compiled():
    if not hasattr(torch._dynamo.config, "fail_on_recompile_limit_hit"):
        pytest.skip("before torch 2.6 only its own log tells it")
    code = """
import functools, sys; sys.path.insert(0, "tests")
import torch
from cuda_here import CudaHere
here = CudaHere()
torch.compile = functools.partial(torch.compile, backend="aot_eager")
compiled = here.compile(lambda x: x * 2.0)
assert all(here.numpy(compiled(here.full((size,), 1.0))).tolist() == [2.0] * size for size in range(1, 12))
print("recompile_limit" in here.plain_reason)
"""
    # In a process of its own: torch goes on watching every call after that.
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"
