"""How the package is written: names, docstrings, comments."""

from __future__ import annotations

import ast
import io
import re
import tokenize

from package_source import ROOT, Function, Module, functions, modules

import framewake

MOST_PUBLIC_NAMES = 12
FORBIDDEN_FILES = {"utils", "util", "helpers", "helper", "common", "misc", "base"}

# In a class or function that is another's implementation, the documentation stands there.
CONTRACT_CLASSES = re.compile(r"engine\.(torch|mindspore)\.\w+\.\w+\.")

UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
BANNER = re.compile(r"#\s*([-=#*~_])\1{4,}")
DATE = re.compile(r"\b(19|20)\d\d-\d\d-\d\d\b")

# Names that take **: a wrapper hands on what it was given.
KEYWORD_BAGS = {
    "engine.torch.cpu.TorchCpu.compile.call": "has the signature of the function that it compiles",
    "engine.torch.cuda.TorchCuda.compile.call": "has the signature of the function that it compiles",
    "engine.mindspore.ascend.MindsporeEngine.compile.call": "has the signature of the function that it compiles",
    "app.options.with_parameters.command": "its signature is made from the settings of a request",
}


def comments(module: Module) -> list[str]:
    tokens = tokenize.generate_tokens(io.StringIO(module.text).readline)
    return [f"{t.start[0]}: {t.string}" for t in tokens if t.type == tokenize.COMMENT]


def is_undocumented(function: Function) -> bool:
    node = function.node
    is_overload = any("overload" in ast.unparse(d) for d in node.decorator_list)
    is_property = any("property" in ast.unparse(d) for d in node.decorator_list)
    needs_none = not function.is_public or is_overload or CONTRACT_CLASSES.match(function.name)
    # A property of one expression says what it is by its name.
    return not needs_none and not (is_property and len(node.body) == 1) and ast.get_docstring(node) is None


def test_few_public_names():
    assert len(framewake.__all__) <= MOST_PUBLIC_NAMES
    missing = [name for name in framewake.__all__ if not hasattr(framewake, name)]
    assert not missing


def test_public_things_are_documented():
    missing = []
    for module in modules().values():
        missing += [f.name for f in functions(module) if is_undocumented(f)]
        for node in module.tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and ast.get_docstring(node) is None:
                missing.append(f"{module.name}.{node.name}")
        # A package's own file may be empty.
        if module.tree.body and ast.get_docstring(module.tree) is None:
            missing.append(str(module.path))
    assert not missing


def test_comments_say_reasons_only():
    rules = (UNFINISHED, BANNER, DATE)
    found = [f"{m.name}:{text}" for m in modules().values() for text in comments(m)]
    assert found and not [text for text in found if any(rule.search(text) for rule in rules)]


def test_no_file_is_a_drawer():
    names = {path.stem for root in ("src", "demonstration", "tests", "scripts") for path in (ROOT / root).rglob("*.py")}
    assert not names & FORBIDDEN_FILES


def test_no_bags_of_keywords():
    found = {f.name for m in modules().values() for f in functions(m) if f.node.args.kwarg is not None}
    assert found == set(KEYWORD_BAGS)


def test_nothing_prints():
    found = []
    for module in modules().values():
        calls = [n.func for n in ast.walk(module.tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)]
        found += [f"{module.name}:{n.lineno}" for n in calls if n.id in ("print", "breakpoint")]
    assert not found
