"""Where a benchmark's results go: rows into docs/measurements/NAME.md, everything into results/."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import pytest

BENCHES = Path(__file__).parents[1] / "scripts" / "benches"
CLIP = """# clip

What it is.

| a | b |
|---|---|
| 1 | 2 |

What was tried.
"""
STARTUP = """# startup

| a |
|---|
"""


@pytest.fixture
def record(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCHES))
    module = importlib.import_module("measuring.record")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "NOTES", tmp_path / "measurements")
    module.NOTES.mkdir()
    (module.NOTES / "clip.md").write_text(CLIP)
    (module.NOTES / "startup.md").write_text(STARTUP)
    return module


def pages(record) -> list[str]:
    """What both files hold."""
    assert sorted(path.name for path in record.NOTES.iterdir()) == ["clip.md", "startup.md"]
    return [(record.NOTES / name).read_text() for name in ("clip.md", "startup.md")]


def test_rows_go_below_the_last_one_of_their_table(record):
    record.note(["| 3 | 4 |", "| 5 | 6 |"], "clip")
    assert pages(record) == [CLIP.replace("| 1 | 2 |\n", "| 1 | 2 |\n| 3 | 4 |\n| 5 | 6 |\n"), STARTUP]


def test_an_empty_table_gets_its_first_row(record):
    record.note(["| 7 |"], "startup")
    assert pages(record) == [CLIP, STARTUP + "| 7 |\n"]


def test_other_text_goes_to_the_end_of_the_file(record):
    record.note(["", "More words."], "clip")
    assert pages(record) == [CLIP + "\nMore words.\n", STARTUP]


@pytest.mark.parametrize("name", ["other", "start"])
def test_a_missing_file_is_named(record, name):
    with pytest.raises(SystemExit, match=rf"/measurements/{name}\.md does not exist: describe the benchmark there"):
        record.note(["| 1 |"], name)
    assert pages(record) == [CLIP, STARTUP]


def test_a_record_has_machine_and_versions_and_replaces_the_last_one(record, tmp_path):
    for seconds in (1, 2):
        record.write("clip", {"seconds": seconds}, ["| 3 | 4 |"], has_notes=seconds == 2)
    assert [path.name for path in (tmp_path / "results").iterdir()] == ["bench-clip.json"]
    found = json.loads((tmp_path / "results" / "bench-clip.json").read_text())
    assert found["seconds"] == 2 and found["machine"] and found["versions"]["numpy"] != "not installed"
    assert pages(record)[0].count("| 3 | 4 |") == 1


def test_a_record_that_cannot_be_written_leaves_the_last_one(record):
    with pytest.raises(UnicodeEncodeError):
        record.note(["| \ud800 |"], "clip")
    assert (record.NOTES / "clip.md").read_text() == CLIP
