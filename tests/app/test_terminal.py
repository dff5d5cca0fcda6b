"""What a person sees on a terminal, narrow or wide: a real one, which tells how wide it is."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys

import pytest
from engines_here import FIRST

from framewake.media.video import read_metadata, read_video

pty = pytest.importorskip("pty")
termios = pytest.importorskip("termios")

BARS = "Reading the picture"


class Shown:
    """What a program has written to a terminal."""

    def __init__(self, code, raw):
        self.code = code
        # What steers the terminal goes, and so does what was drawn over.
        self.text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw.decode()).replace("\r\n", "\n")
        before, bars, _ = self.text.partition(BARS)
        lines = before.splitlines()
        self.before = [line for line in (lines[:-1] if bars else lines) if line.strip()]
        self.after = self.text.rpartition("\r")[2].splitlines()


@pytest.fixture
def terminal(tmp_path, toy):
    """Run framewake on a terminal of so many columns, in an empty folder."""

    def run(columns, *arguments, stop_at=None):
        main, side = pty.openpty()
        termios.tcsetwinsize(side, (40, columns)) if hasattr(termios, "tcsetwinsize") else set_size(side, columns)
        environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
        environment |= {"TERM": "xterm", "FRAMEWAKE_ENGINE": FIRST, "FRAMEWAKE_CHECKPOINT": str(toy)}
        command = [sys.executable, "-m", "framewake", *map(str, arguments)]
        streams = {"stdin": side, "stdout": side, "stderr": side}
        process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **streams)
        os.close(side)
        raw = read_all(main, process, stop_at)
        os.close(main)
        return Shown(process.wait(), raw)

    return run


def set_size(side, columns):
    """As ``tcsetwinsize``, which Python 3.10 lacks."""
    import fcntl
    import struct

    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))


def read_all(main, process, stop_at):
    raw = b""
    while True:
        try:
            piece = os.read(main, 1 << 16)
        except OSError:  # nobody writes to it any more
            return raw
        if not piece:
            return raw
        raw += piece
        if stop_at is not None and stop_at in raw:
            process.send_signal(signal.SIGINT)
            stop_at = None


def lines_that_break_words(lines, columns):
    return [line for line in lines if len(line) > columns and "`" not in line]


def test_the_first_clip(terminal, tmp_path):
    shown = terminal(80, "demo", "-o", "first.webp")
    assert shown.code == 0, shown.text
    assert len(shown.before) == 3, shown.before
    start, model, plan = shown.before
    assert start.startswith("framewake ") and start.endswith(" is starting ...")
    assert "720p is 128 px" in model and shown.text.count("128 px") == 1
    assert re.fullmatch(rf"33 frames of 128x128 on {FIRST}, (about|over) .* \(-v: more\)", plan)
    assert not lines_that_break_words(shown.before + shown.after, 80)
    assert read_metadata(tmp_path / "first.webp")["request"]["image"] == "demo/red-circle"
    frames = read_video(tmp_path / "first.webp")[0].astype(int)
    red = (frames[..., 0] - frames[..., 1:].max(-1)) > 60
    where = [red[index].nonzero()[1].mean() for index in (0, -1)]
    assert where[1] > where[0] + 16  # it moved right


@pytest.mark.parametrize("columns", [80, 200])
def test_the_whole_plan_on_demand(terminal, picture, columns):
    shown = terminal(columns, "animate", picture, "x", "--resolution", "360p", "-v", "-o", "clip.webp")
    assert shown.code == 0 and "The plan:" in shown.before
    assert any(line.startswith("  peak ") for line in shown.before)
    assert not lines_that_break_words(shown.before, columns)


def test_the_doctor_begins_at_once_and_fits(terminal):
    shown = terminal(80, "doctor", "--engine", FIRST)
    assert shown.code == 0 and shown.before[0].endswith(" is starting ...")
    assert not lines_that_break_words(shown.before, 80)
    assert re.search(r"^  numpy {9}\d", shown.text, re.M)  # its columns stay


def test_a_wide_terminal_is_used(terminal):
    longest = {}
    for columns in (80, 200):
        shown = terminal(columns, "animate", "--help")
        longest[columns] = max(map(len, shown.text.splitlines()))
    assert longest[80] <= 80 < longest[200] <= 200
    error = terminal(200, "animate", "a picture that is not there/and has a long name.png", "x").before[-1]
    assert len(error) > 80 and error.endswith("Check the path of the picture.")


def test_help_fits_into_80_columns(call, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = [(), ("demo",), ("animate",), ("plan",), ("serve",), ("worker",), ("doctor",), ("info",), ("quality",)]
    commands += [("lora", name) for name in ("info", "convert", "merge", "train")]
    commands += [("checkpoints", name) for name in ("convert", "download", "list", "verify")]
    for command in commands:
        shown = call(*command, "--help")
        assert shown.code == 0 and "Usage" in shown.out
        assert not [line for line in shown.out.splitlines() if len(line) > 80], command


def test_a_mistake_is_told_between_words(terminal):
    shown = terminal(80, "animate", "gone.png", "the red circle moves right and then some more of it")
    assert shown.code == 2
    assert not lines_that_break_words(shown.before, 80)


def test_a_command_that_goes_on_can_be_copied(terminal, picture, tmp_path):
    name = "a-clip-with-a-name-that-is-long-enough-to-fill-most-of-a-line-of-this-terminal.webp"
    words = ["animate", picture, "x", "--resolution", "360p", "--steps", "1000", "-o", name]
    stopped = terminal(80, *words, stop_at=b" of 1000")
    assert stopped.code == 130, stopped.text
    lines = [line for line in stopped.text.splitlines() if "--resume" in line]
    assert len(lines) == 1  # the terminal breaks it where it must, and copies it whole
    command = lines[0].partition("`")[2].partition("`")[0]
    assert shlex.split(command)[:5] == ["framewake", "animate", "--resume", "-o", name]


def test_a_batch_ends_with_a_summary(terminal, picture, tmp_path):
    lines = [{"prompt": "x", "image": str(picture), "seed": seed, "resolution": "360p"} for seed in (1, 2)]
    (tmp_path / "many.jsonl").write_text("\n".join(map(json.dumps, lines)))
    shown = terminal(80, "animate", "--batch", "many.jsonl", "-o", "clips")
    assert shown.code == 0
    assert re.search(r"^2 of 2 clips made in .* s; all are in clips/$", shown.text, re.M), shown.text
    (tmp_path / "clips" / "x-seed2.mp4").unlink()
    again = terminal(80, "animate", "--batch", "many.jsonl", "-o", "clips", "--resume")
    assert re.search(r"^1 of 1 clips made in .* s, 1 made before; all are in clips/$", again.text, re.M), again.text


@pytest.mark.parametrize(
    ("typed", "word", "found"),
    [
        ("framewake ani", 1, ["animate"]),
        ("framewake lora tr", 2, ["train"]),
        ("framewake animate --resu", 2, ["--resume"]),
    ],
)
def test_a_shell_can_complete_what_is_typed(typed, word, found):
    asked = {"_FRAMEWAKE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(word)}
    command = [sys.executable, "-m", "framewake"]
    done = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=True)
    assert done.stdout.split() == found
