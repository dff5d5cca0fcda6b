"""One name for one thing: no two classes of the package, and no two files of tests, are called alike."""

from __future__ import annotations

import ast
from collections import defaultdict

from package_source import ROOT, modules


def test_classes_are_called_apart():
    found: dict[str, list[str]] = defaultdict(list)
    for module in modules().values():
        if module.name.startswith("demonstration"):  # the training of the demonstration, which has words of its own
            continue
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(module.name)
    assert len(found) > 200
    assert not {name: where for name, where in found.items() if len(where) > 1}


def test_files_of_tests_are_called_apart():
    """Pytest imports them by their bare names: of two alike it runs one and fails at the other."""
    files = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(files) > 200
    assert not {name for name in files if files.count(name) > 1}
