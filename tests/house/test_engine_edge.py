"""What is decided by an engine is decided by its traits, and nothing goes around the contract."""

from __future__ import annotations

import ast
import string

import pytest
from package_source import imports, modules

NAMING = ("kind", "device", "name")
OUTSIDE = {name: module for name, module in modules().items() if name.partition(".")[0] != "engine"}
# What others may import of engine/; an engine itself comes from ``framewake.engine.get``.
OPEN = {"framewake.engine"} | {f"framewake.engine.{name}" for name in ("contract", "forks", "group", "traits")}

EXCEPTIONS = {
    "train.run: begun.engine != engine.name": "a name that was recorded is compared with the present one, to tell it",
}


def is_engine(node: ast.AST) -> bool:
    """Whether an expression is an engine by its name: engine, self.engine, setup.engine, self._engine."""
    name = node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""
    return name.lstrip("_") == "engine"


def is_naming(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in NAMING and is_engine(node.value)


def is_secret(node: ast.AST) -> bool:
    """Whether an engine is asked for its class, or for a name that the contract may not have."""
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
        return False
    rest = ast.unparse(node).removesuffix(")").partition(", ")[2]
    is_asked = node.func.id in ("isinstance", "getattr", "hasattr") and rest != "str"
    return is_asked and rest[:1] in ("'", *string.ascii_uppercase) and is_engine(node.args[0])


# The expressions by whose value a node goes one way or another, or which it keeps for later.
USED = {
    ast.Compare: lambda node: [node.left, *node.comparators],
    ast.Subscript: lambda node: [node.value, node.slice],
    ast.Match: lambda node: [node.subject],
    ast.If: lambda node: [node.test],
    ast.IfExp: lambda node: [node.test],
    ast.While: lambda node: [node.test],
    ast.BoolOp: lambda node: node.values,
    ast.NamedExpr: lambda node: [node.value],
    ast.AnnAssign: lambda node: [node.value],
    ast.Assign: lambda node: getattr(node.value, "elts", [node.value]),
    ast.Call: lambda node: [node.func.value, *node.args] if getattr(node.func, "attr", "") in ASKING else [],
}
ASKING = ("get", "pop", "match", "fullmatch", "search", "startswith", "endswith", "partition", "rpartition", "split")


def decisions(tree: ast.AST) -> list[str]:
    """Where something is decided by what an engine is called, or by its class."""
    found = []
    for node in ast.walk(tree):
        used = USED.get(type(node), lambda _: [])(node)
        if any(value is not None and is_naming(value) for value in used) or is_secret(node):
            found.append(ast.unparse(node))
    return found


def test_nothing_is_decided_by_the_name_of_an_engine():
    found = {f"{name}: {text}" for name, module in OUTSIDE.items() for text in decisions(module.tree)}
    assert found == set(EXCEPTIONS), "an engine has traits for that (engine/traits.py)"


@pytest.mark.parametrize(
    "text",
    [
        "x if engine.device == 'cpu' else y",
        "engine.name != 'mindspore:cpu'",
        "SHARE[self.engine.kind]",
        "SHARE.get(setup.engine.kind)",
        "engine.kind in ('torch',)",
        "engine.name.startswith('torch')",
        "engine.name[:5]",
        "kind = self._engine.kind",
        "kind, device = engine.kind, engine.device",
        "getattr(engine, 'secret', None)",
        "isinstance(self.engine, TorchEngine)",
        "match engine.kind:\n    case 'torch': pass",
    ],
)
def test_each_way_to_decide_is_found(text):
    assert decisions(ast.parse(text))


@pytest.mark.parametrize(
    "text", ["f'{engine.name} has it'", "{'engine': engine.name}", "save(engine.name)", "part.name == 'dit'"]
)
def test_showing_a_name_is_no_decision(text):
    assert not decisions(ast.parse(text))


def test_nothing_goes_around_the_contract():
    wrong = []
    for name, module in OUTSIDE.items():
        met = {full for full in imports(module) if full.startswith("framewake.engine")}
        wrong += [f"{name} -> {full}" for full in met - OPEN]
    assert not wrong
