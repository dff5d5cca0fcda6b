"""What stands in one place is asked for there: how a model works, and what its condition means."""

from __future__ import annotations

import ast
import dataclasses

from package_source import modules

from framewake.models.manner import Manner

MANNERS = {field.name for field in dataclasses.fields(Manner)}


def nodes(kind):
    return [(name, node) for name, module in modules().items() for node in ast.walk(module.tree) if type(node) is kind]


def test_models_get_no_settings_after_they_are_made():
    stored = [(name, node) for name, node in nodes(ast.Attribute) if isinstance(node.ctx, ast.Store)]
    found = [f"{name}:{node.lineno}" for name, node in stored if node.attr in MANNERS]
    assert stored and not found, "hand in a Manner with the call"


def test_nobody_compares_the_name_of_a_condition():
    compared = [(name, node) for name, node in nodes(ast.Compare) if name != "config"]
    found = [
        f"{name}:{node.lineno}"
        for name, node in compared
        if isinstance(node.left, ast.Attribute)
        and node.left.attr == "condition"
        and any(isinstance(other, ast.Constant) and isinstance(other.value, str) for other in node.comparators)
    ]
    assert compared and not found, "ask the configuration what follows from it"
