"""The commands as they are called: arguments in, exit code and text out."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from engines_here import FIRST
from toy_checkpoint import write_picture, write_toy

from framewake.app import cli, original


class Answer(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    return write_picture(tmp_path_factory.mktemp("pictures") / "picture.png")


@pytest.fixture
def call(toy, tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder, with the toy checkpoint and torch as defaults."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FRAMEWAKE_CHECKPOINT", str(toy))
    monkeypatch.setenv("FRAMEWAKE_ENGINE", FIRST)

    def run(*arguments, program=cli.main):
        with pytest.raises(SystemExit) as left:
            program([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Answer(left.value.code, captured.out, captured.err)

    return run


@pytest.fixture
def call_original(call, toy):
    """Run the original's command line on the toy checkpoint."""

    def run(*arguments):
        return call(*arguments, "--model-base", toy, program=original.main)

    return run
