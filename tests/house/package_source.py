"""The package and the folder demonstration/ as text: modules, their imports, their functions."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "framewake"
TRAINING = ROOT / "demonstration"


class Module(NamedTuple):
    """One file. ``name`` is "nn.rope" for nn/rope.py, "nn" for nn/__init__.py and "" for the package's own; files of
    demonstration/ have names that begin with "demonstration"."""

    name: str
    path: Path
    text: str
    tree: ast.Module


class Function(NamedTuple):
    """One function. ``name`` is "nn.rope.rotate" or "models.vae.CausalVAE.decode"."""

    name: str
    node: ast.FunctionDef | ast.AsyncFunctionDef
    is_method: bool
    is_public: bool  # reached by public names only, and not inside another function


@cache
def modules() -> dict[str, Module]:
    """Every file of both by its name."""
    found = {}
    for path in (*sorted(PACKAGE.rglob("*.py")), *sorted(TRAINING.rglob("*.py"))):
        parts = place_of(path).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found[name] = Module(name, path, text, ast.parse(text))
    return found


def place_of(path: Path) -> Path:
    """A file's place as the maps say it: below the package, or below the root where it is not of the package."""
    return path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT)


def imports(module: Module) -> Iterator[str]:
    """Full names that a file imports anywhere, also inside functions: "framewake.nn.rope", "numpy"."""
    known = modules()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module.path}:{node.lineno}: relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield full if full.removeprefix("framewake.") in known else node.module
        elif _is_late_import(node):
            yield str(node.args[0].value)  # type: ignore[attr-defined]


def _is_late_import(node: ast.AST) -> bool:
    """``import_module("name")``."""
    if not isinstance(node, ast.Call) or not node.args or not isinstance(node.args[0], ast.Constant):
        return False
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    return called == "import_module"


def functions(module: Module) -> Iterator[Function]:
    """Every function and method of a file, inner ones too."""
    yield from _functions(module.tree, module.name, is_public=True, is_class=False)


def _functions(node: ast.AST, name: str, *, is_public: bool, is_class: bool) -> Iterator[Function]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            full = f"{name}.{child.name}"
            yield Function(full, child, is_class, is_public and not child.name.startswith("_"))
            yield from _functions(child, full, is_public=False, is_class=False)
        elif isinstance(child, ast.ClassDef):
            public = is_public and not child.name.startswith("_")
            yield from _functions(child, f"{name}.{child.name}", is_public=public, is_class=True)
        else:
            yield from _functions(child, name, is_public=is_public, is_class=is_class)
