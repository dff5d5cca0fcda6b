"""scripts/setup does nothing twice, and notices when what it made has moved; pip is a stand-in that is told of."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEEDED = ("pyproject.toml", "scripts/setup", "constraints", "tests/text/vocabularies.txt")
# Answers as Python where it is asked for something, and writes down what it would have installed.
PYTHON = f"""#!/bin/sh
case "$1 $2" in
  "-m venv")
    rm -rf .venv; mkdir -p .venv/bin .venv/lib; cp "$MADE_OF" .venv/bin/python
    echo "#!$(pwd -P)/.venv/bin/python" > .venv/bin/pip; echo made >> "$TOLD" ;;
  "-m pip") case "$*" in *--version*) ;; *" -e "*) echo installed >> "$TOLD" ;; esac ;;
  "-m compileall") ;;
  *) exec '{sys.executable}' "$@" ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "a checkout"
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        copy(ROOT / name, folder / name)
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    return folder


def setup(folder: Path) -> list[str]:
    """What it does in a folder."""
    told, python = folder.parent / "told", folder.parent / "python"
    told.write_text("")
    names = {"TOLD": told, "MADE_OF": python, "FRAMEWAKE_PYTHON": python, "FRAMEWAKE_TORCH": "torch"}
    environment = os.environ | {name: str(path) for name, path in names.items()}
    command = ["bash", folder / "scripts/setup", "torch"]
    subprocess.run(command, env=environment, cwd=folder.parent, check=True, capture_output=True)
    return told.read_text().split()


def test_what_was_made_is_made_again_only_where_it_has_moved(checkout):
    assert setup(checkout) == ["made", "installed"]
    assert setup(checkout) == []
    moved = checkout.rename(checkout.with_name("moved"))
    assert setup(moved) == ["made", "installed"] and setup(moved) == []
    copy = shutil.copytree(moved, moved.with_name("copy"))
    assert setup(copy) == ["made", "installed"] and setup(copy) == setup(moved) == []


def test_an_environment_that_two_checkouts_share_runs_the_one_that_asks(checkout):
    setup(checkout)
    other = shutil.copytree(checkout, checkout.with_name("other"), ignore=shutil.ignore_patterns(".venv"))
    (other / ".venv").symlink_to(checkout / ".venv")
    assert setup(other) == ["installed"] and setup(other) == []
    assert setup(checkout) == ["installed"] and setup(checkout) == []


def test_a_checkout_that_is_reached_by_two_names_is_one(checkout):
    setup(checkout)
    link = checkout.with_name("link")
    link.symlink_to(checkout)
    assert setup(link) == []
