"""Model text keeps to what MindSpore's compiler reads, and to what no engine gets silently wrong."""

from __future__ import annotations

import ast

import pytest
from package_source import Function, functions, modules

COMPILED = ("nn.", "models.")
FUNCTIONS = {f.name: f for module in modules().values() if module.name.startswith(COMPILED) for f in functions(module)}
# Statements that ms.jit cannot read, wherever they stand in a function that it meets.
UNREADABLE = (ast.With, ast.Try, ast.NamedExpr, ast.Import, ast.ImportFrom, ast.Global, ast.Nonlocal, ast.Yield)
# Host code in these packages: it works on numpy arrays and numbers, and is never compiled.
HOST = {
    "models.tiles_shared.turns": "a turn of each device at a time; the autoencoder inside it is what gets compiled",
    "models.tiles_shared.in_order": "hands on what has arrived on the host",
    "models.tiling._computed": "one tile after another, each when it is asked for",
    "models.tiling.put_together": "runs on the host",
    "models.vae_slabs._first_level": "one slab after another, so that they are never there together",
    "models.vae_slabs._convolved": "the same",
    "models.vae_slabs._used_up": "the same",
    "models.tiling._drained": "runs a generator to its end",
    "models.tiling._assemble": "yields between tiles, so that a decode can be stopped there",
    "models.tiling._assemble.tile": "one tile: the autoencoder inside it is what gets compiled",
}


def faults(function: Function) -> list[str]:
    found = []
    for node in ast.walk(function.node):
        line = getattr(node, "lineno", 0)
        if isinstance(node, UNREADABLE):
            found.append(f"{line}: {type(node).__name__} cannot be compiled")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            name = node.func.attr
            if name.endswith("_") and not name.startswith("_"):
                found.append(f"{line}: {name} works in place, which MindSpore ignores on a CPU")
    return found


@pytest.mark.parametrize("name", FUNCTIONS)
def test_model_text_can_be_compiled(name):
    assert name in HOST or not faults(FUNCTIONS[name])


def test_no_decorator_hides_a_function():
    """ms.jit follows functools' __wrapped__ and leaves the decorator out."""
    decorated = {
        name: [ast.unparse(decorator) for decorator in function.node.decorator_list]
        for name, function in FUNCTIONS.items()
        if {ast.unparse(d) for d in function.node.decorator_list} - {"property", "staticmethod", "cache"}
    }
    assert not decorated


def test_the_first_argument_of_a_method_is_called_self():
    wrong = [name for name, f in FUNCTIONS.items() if f.is_method and f.node.args.args[0].arg != "self"]
    assert not wrong
