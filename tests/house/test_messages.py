"""How errors and notes are worded: they stand behind "framewake: " on one line, or in a list of several."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

from package_source import modules

from framewake import errors

NOTES = {"Note"}  # events that are shown in the same places
NAMES = re.compile(r"(API|LoRA|MindSpore)\b")  # what has a capital letter in the middle of a sentence too
COMMAND = re.compile(r"(Run|Make it first): [^.]*$")  # at the end, to be copied: a full stop would come along
FRAGMENTS = {"weights.reading.pickle_values"}  # its Refused becomes a part of another message


def kinds() -> set[str]:
    """Names of every error of framewake, and of notes."""
    found = {name for name, value in vars(errors).items() if isinstance(value, type)} | NOTES
    classes = [
        node for module in modules().values() for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)
    ]
    while True:
        more = {each.name for each in classes if any(isinstance(b, ast.Name) and b.id in found for b in each.bases)}
        if more <= found:
            return found
        found |= more


def pieces(node: ast.expr) -> list[str | None]:
    """A message in order: what is written out, and None for what is filled in."""
    if isinstance(node, ast.JoinedStr):
        return [str(part.value) if isinstance(part, ast.Constant) else None for part in node.values]
    return [node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None]


def messages() -> Iterator[tuple[str, list[str | None]]]:
    """Every message that is written where its error or note is made, with its place."""
    known = kinds()
    for module in (each for each in modules().values() if each.name not in FRAGMENTS):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in known and node.args:
                yield f"{module.name}:{node.lineno}", pieces(node.args[0])


def test_messages_begin_in_the_middle_of_a_sentence():
    found = [(place, parts[0]) for place, parts in messages() if parts[0]]
    assert len(found) > 200
    assert not [pair for pair in found if pair[1][0].isupper() and not NAMES.match(pair[1])]


def test_messages_end_with_a_full_stop_or_with_a_command():
    found = [(place, parts[-1]) for place, parts in messages() if parts[-1]]
    assert len(found) > 200
    whole = (".", "?", ".)")
    assert not [pair for pair in found if not pair[1].endswith(whole) and not COMMAND.search(pair[1])]
