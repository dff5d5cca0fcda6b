"""The page of formats says what the code does."""

from __future__ import annotations

import pytest
from formats_page import PAGE, SECTIONS, page

ROWS = [(title, row) for title, rows in SECTIONS for row in rows]


def test_the_page_is_made_from_the_code():
    assert PAGE.read_text(encoding="utf-8") == page(), "write it again with scripts/formats"


@pytest.mark.parametrize(("title", "row"), ROWS, ids=[f"{title}: {row.name[:40]}" for title, row in ROWS])
def test_every_row_says_something_on_one_line(title, row):
    assert row.name and row.why.endswith((".", ")")) and "\n" not in row.name + row.why


def test_no_kind_has_two_rows():
    for title, rows in SECTIONS:
        names = [row.name for row in rows]
        assert len(set(names)) == len(names), title
