"""Commands that the documents quote are commands: each is parsed as it would be when somebody typed it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from engines_here import FIRST

typer = pytest.importorskip("typer")

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")])
FENCE = re.compile(r"^```[a-z]*\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`(framewake [^`]+)`")
ENDS = ("|", ">", "2>&1", "&", "&&", ";")  # of a command, for a shell
OURS = ("framewake", ".venv/bin/framewake")


def blocks(text):
    """Every line of a shell that a document shows, those that go on put together."""
    for block in FENCE.findall(text):
        yield from block.replace("\\\n", " ").split("\n")


def calls(line):
    """The words behind each framewake on a line."""
    words = shlex.split(line, comments=True)
    while any(word in OURS for word in words):
        words = words[min(index for index, word in enumerate(words) if word in OURS) + 1 :]
        end = next((index for index, word in enumerate(words) if word in ENDS), len(words))
        yield words[:end]
        words = words[end:]


def parse(words):
    """Find the command and parse its options, as typer does; nothing is run."""
    context, command = None, typer.main.get_command(app())
    while True:
        context = command.make_context("framewake", list(words), parent=context)
        if not hasattr(command, "commands"):
            return
        held = vars(context)  # click before 8.2 has the first without its underline
        words = [*held.get("_protected_args", held.get("protected_args", [])), *context.args]
        if not words:
            return
        _, command, words = command.resolve_command(context, words)


def app():
    from framewake.app.commands import app

    return app


def quoted():
    """Document and line of everything that begins with our name in a block."""
    for path in DOCUMENTS:
        for line in blocks(path.read_text(encoding="utf-8")):
            if re.match(r"(\.venv/bin/)?framewake\b(?! )?", line.strip()) or "&& .venv/bin/framewake" in line:
                yield path.relative_to(ROOT).as_posix(), line.strip()


COMMANDS = sorted(set(quoted()))


@pytest.mark.parametrize("wrong", ["animat a.png x", "animate a.png x --framess 33", "lora trim a", "info a.mp4 b.mp4"])
def test_what_is_no_command_cannot_be_quoted(wrong):
    with pytest.raises(typer.BadParameter.__mro__[2]):
        parse(wrong.split())


def test_documents_quote_commands():
    assert len(COMMANDS) > 30 and {"README.md", "README.zh.md"} <= {name for name, _ in COMMANDS}


@pytest.mark.parametrize(("document", "line"), COMMANDS)
def test_a_quoted_command_can_be_typed(document, line):
    for words in calls(line):
        parse(words)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_sentences_exist_with_their_options(document):
    commands = names(typer.main.get_command(app()))
    for text in INLINE.findall(document.read_text(encoding="utf-8")):
        words = re.findall(r"[\w.-]+", text)[1:]
        if not words or words[0].startswith("-") or not words[0].islower():
            continue
        found = commands.get(" ".join(words[:2])) or commands.get(words[0])
        assert found, f"no such command: {text}"
        flags = re.findall(r"(?<!\S)(--[a-z-]+)", text)
        assert set(flags) <= found | {"--help"}, text


def names(command, before=""):
    """Each command's flags by its words; a group has those of all its commands."""
    found = {}
    for name, inner in getattr(command, "commands", {}).items():
        below = names(inner, f"{before}{name} ")
        flags = {flag for each in inner.params for flag in (*each.opts, *each.secondary_opts)}
        found |= below | {f"{before}{name}": flags.union(*below.values())}
    return found


def test_the_python_that_documents_show_makes_a_clip(tmp_path, monkeypatch):
    shown = re.compile(r"^```python\n(from framewake import .*?)^```", re.M | re.S)
    texts = {path: shown.findall(path.read_text(encoding="utf-8")) for path in DOCUMENTS}
    programs = {program for found in texts.values() for program in found}
    assert len(programs) == 1 and sum(map(len, texts.values())) == 3
    monkeypatch.chdir(tmp_path)
    quick = programs.pop().replace('red-circle")', 'red-circle", steps=2, resolution="360p", frames=5)')
    exec(compile(quick.replace("torch:cpu", FIRST), "README.md", "exec"), {})
    assert (tmp_path / "clip.mp4").stat().st_size > 0
