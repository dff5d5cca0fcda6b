"""Every flag that a message names exists on some command."""

from __future__ import annotations

import ast
import dataclasses
import re
from pathlib import Path

import pytest

import framewake
from framewake.app.original_flags import parser
from framewake.request import Request

typer = pytest.importorskip("typer")
PACKAGE = Path(framewake.__file__).parent
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])")
# Of other programs that a message tells to run.
OTHERS = {
    "--local-dir": "hf download",
    "--merge": "llama-gguf-split",
    "--create-dirs": "curl",
    "--include": "hf download",
    "--revision": "hf download",
    "--force-reinstall": "pip install",
    "--index-url": "pip install",
    "--share": "python -m demonstration",
}


def options():
    """Every option of every command, and of the original's program."""
    from framewake.app.commands import app

    found, left = set(), [typer.main.get_command(app)]
    while left:
        command = left.pop()
        left += getattr(command, "commands", {}).values()
        for parameter in command.params:
            found |= {*parameter.opts, *parameter.secondary_opts}
    for action in parser()._actions:
        found |= set(action.option_strings)
    # A setting of one choice is declared, and no command offers it.
    declared = {field.metadata["setting"].flag for field in dataclasses.fields(Request)}
    return found | declared | {"--help", "--version"}


def named():
    """Flags in texts of the package, with their places; the flags' own definitions are among them."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                for flag in FLAG.findall(node.value):
                    yield flag, f"{path.relative_to(PACKAGE)}:{node.lineno}"


def test_flags_that_messages_name_exist():
    known = options() | set(OTHERS)
    found = list(named())
    assert len(found) > 200
    wrong = {place: flag for flag, place in found if flag not in known}
    assert not wrong


def test_help_names_every_file_that_part_takes():
    from framewake.app.options import PART
    from framewake.weights.checkpoint.hunyuan import COMPONENTS

    flags = {flag for row in COMPONENTS.values() for flag in row.flags}
    words = set(re.findall(r"[a-z-]+", PART.annotation.__metadata__[0].help))
    assert flags <= words
