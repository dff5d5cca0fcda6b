"""Lines on a terminal end between words."""

from __future__ import annotations

import io

import pytest

from framewake.console.wrapping import fitted


class Screen(io.StringIO):
    """A terminal that does not tell how wide it is: COLUMNS does."""

    def isatty(self):
        return True


TEXT = "Nothing is lost: go on with `framewake animate --resume -o bounce.mp4 --engine torch:cpu --memory 8GB`."


@pytest.mark.parametrize("width", [40, 60, 79, 80, 81, 200])
def test_words_and_commands_stay_whole(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = fitted(TEXT, Screen(), indent="  ").split("\n")
    assert " ".join(line.strip() for line in lines) == TEXT
    assert any(line.count("`") == 2 for line in lines) and not any(line.count("`") == 1 for line in lines)
    assert all(len(line) <= width for line in lines if "`" not in line)
    assert (len(lines) == 1) == (width == 200)


def test_what_is_no_terminal_gets_one_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "20")
    assert fitted(TEXT, io.StringIO()) == TEXT == fitted(TEXT, None)


def test_chinese_signs_take_two_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "10")
    assert fitted("红色圆圈 移动", Screen()) == "红色圆圈\n移动"
    assert fitted("abcd efgh", Screen()) == "abcd efgh"


def test_lines_keep_how_they_begin(monkeypatch):
    monkeypatch.setenv("COLUMNS", "12")
    assert fitted("  a     1.0", Screen(), indent="  ") == "  a     1.0"
    assert fitted("The plan:\n  one two three", Screen(), indent="  ") == "The plan:\n  one two\n    three"
