"""Where a benchmark's rows go in docs/measurements.md."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[1] / "scripts" / "benches"
NOTES = """# Measurements

## clip

What it is.

| a | b |
|---|---|
| 1 | 2 |

What was tried.

## startup

| a |
|---|
"""


@pytest.fixture
def demo_clip(monkeypatch, tmp_path):
    description = importlib.util.spec_from_file_location("demo_clip", BENCHES / "demo_clip.py")
    module = importlib.util.module_from_spec(description)
    description.loader.exec_module(module)
    monkeypatch.setattr(module, "NOTES", tmp_path / "measurements.md")
    module.NOTES.write_text(NOTES)
    return module


def test_rows_go_below_the_last_one_of_their_table(demo_clip):
    demo_clip.note(["| 3 | 4 |", "| 5 | 6 |"], "## clip\n")
    assert demo_clip.NOTES.read_text() == NOTES.replace("| 1 | 2 |\n", "| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n")


def test_an_empty_table_gets_its_first_row(demo_clip):
    demo_clip.note(["| 7 |"], "## startup\n")
    assert demo_clip.NOTES.read_text() == NOTES + "| 7 |\n"


def test_other_text_goes_to_the_end_of_its_section(demo_clip):
    demo_clip.note(["", "More words."], "## clip\n")
    assert demo_clip.NOTES.read_text() == NOTES.replace("What was tried.\n", "What was tried.\n\nMore words.\n")


def test_a_missing_section_is_told(demo_clip):
    with pytest.raises(SystemExit, match="no section '## other"):
        demo_clip.note(["| 1 |"], "## other\n")
