"""Both engines have exactly the contract's methods, with its signatures."""

from __future__ import annotations

import importlib
import importlib.util
import inspect

import pytest

from framewake.engine.contract import Engine

METHODS = {name: f for name, f in inspect.getmembers(Engine, inspect.isfunction) if not name.startswith("_")}
CLASSES = [
    ("torch", "framewake.engine.torch.cpu", "TorchCpu"),
    ("torch", "framewake.engine.torch.cuda", "TorchCuda"),
    ("mindspore", "framewake.engine.mindspore", "MindsporeEngine"),
    ("mindspore", "framewake.engine.mindspore", "MindsporeCpu"),
]


@pytest.fixture(params=CLASSES, ids=[name for *_, name in CLASSES])
def engine_class(request):
    framework, module, name = request.param
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed")
    return getattr(importlib.import_module(module), name)


def parameters(function) -> list[tuple]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@pytest.mark.parametrize("name", METHODS)
def test_signature_equals_the_contract(engine_class, name):
    assert parameters(getattr(engine_class, name)) == parameters(METHODS[name])


def test_nothing_public_beyond_the_contract(engine_class):
    public = {name for name, _ in inspect.getmembers(engine_class, inspect.isfunction) if not name.startswith("_")}
    assert public - set(METHODS) == set()


@pytest.mark.parametrize("name", METHODS)
def test_documented_in_the_contract_only(engine_class, name):
    assert inspect.getdoc(METHODS[name])
    assert vars(engine_class).get(name, METHODS[name]).__doc__ in (None, METHODS[name].__doc__)


def test_attributes(engine):
    assert engine.name == f"{engine.kind}:{engine.device}"
    assert engine.kind in ("torch", "mindspore")
    assert engine.reason


def test_no_method_hides_another_function(engine_class):
    """ms.jit follows __wrapped__ and compiles what lies below a decorator made with functools.wraps."""
    wrapped = [name for name in METHODS if hasattr(getattr(engine_class, name), "__wrapped__")]
    assert not wrapped
