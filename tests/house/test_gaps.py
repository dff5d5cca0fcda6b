"""gaps.txt: read as written, and every id in it names a test file that exists."""

from __future__ import annotations

import pytest
from gaps import FILE, read_gaps
from package_source import ROOT


def test_reasons_and_ids_are_read():
    text = "# said first\n\nNo such kernel.\n  tests/a.py::b[x]\n  tests/a.py::c[x]\nToo slow.\n  tests/d.py::e\n"
    assert read_gaps(text) == {
        "tests/a.py::b[x]": "No such kernel.",
        "tests/a.py::c[x]": "No such kernel.",
        "tests/d.py::e": "Too slow.",
    }


@pytest.mark.parametrize(
    "text",
    ["  tests/a.py::test_b\n", "A reason.\n", "A reason.\n  no id\n", "A.\n  a::b\nB.\n  a::b\n", "A.\nB.\n  a::b\n"],
)
def test_a_damaged_file_is_refused(text):
    with pytest.raises(ValueError, match=r"gaps\.txt"):
        read_gaps(text)


def test_every_gap_names_a_test_file():
    missing = [name for name in read_gaps(FILE.read_text()) if not (ROOT / name.partition("::")[0]).is_file()]
    assert not missing
