"""What a library raises is one line, a code and a file with the traceback, whatever it is."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys

import pytest

HEAD = """
import errno, os, signal, sys, threading
from framewake.console.ending import run_program
class Strange(BaseException):
    def __str__(self): raise ValueError
class OutOfMemoryError(RuntimeError): pass
def deep(): return deep()
def work():
"""


def ended(tmp_path, code, *arguments, **variables):
    """A program of ours that does this."""
    whole = HEAD + f"    {code}\nrun_program('framewake', work, has_json='--json' in sys.argv)"
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), **variables}
    command = [sys.executable, "-c", whole, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)


@pytest.mark.parametrize(
    ("code", "exit_code", "words"),
    [
        ("{}['\\x1b[1m\\n']", 1, ["failed that should not have: KeyError"]),
        ("1 / 0", 1, ["ZeroDivisionError: division by zero"]),
        ("deep()", 1, ["RecursionError"]),
        ("raise Strange", 1, ["Strange"]),
        ("raise ValueError('first\\nsecond')", 1, ["ValueError: first second"]),
        ("bytearray(10**18)", 5, ["memory ran out", "fewer frames"]),
        ("raise OutOfMemoryError('CUDA')", 5, ["memory ran out: CUDA"]),
        ("open('gone/\\x1b.png')", 2, ["gone/\\u001b.png: No such file or directory", "check the path"]),
        ("open('.', 'w')", 2, ["Is a directory"]),
        ("open('a' * 300)", 2, ["File name too long", "shorter name"]),
        ("os.symlink('b', 'a'); os.symlink('a', 'b'); open('a')", 2, ["a: Too many levels of symbolic links"]),
        ("raise PermissionError(errno.EACCES, 'Permission denied', 'x')", 2, ["x: Permission denied"]),
        ("raise OSError(errno.EROFS, 'Read-only file system', 'x')", 2, ["x: Read-only file system"]),
        ("raise OSError(errno.ENOSPC, 'No space left on device', 'x')", 5, ["x: No space left", "free some space"]),
        ("raise OSError(errno.EMFILE, 'Too many open files')", 5, ["Too many open files", "ulimit -n"]),
        ("raise ConnectionResetError(errno.ECONNRESET, 'Connection reset by peer')", 1, ["Connection reset"]),
        ("import no_such_package", 4, ["no_such_package is not installed. Run: pip install no_such_package"]),
        ("raise ModuleNotFoundError(name='httpx')", 4, ['[web]"']),
        ("raise ImportError('libGL.so.1: cannot open', name='cv2.cv2')", 4, ["cv2 is installed but does not start"]),
    ],
)
def test_an_error_of_a_library(tmp_path, code, exit_code, words):
    done = ended(tmp_path, code)
    assert done.returncode == exit_code, done.stderr
    assert done.stdout == "" and done.stderr.count("\n") == 1 and done.stderr.startswith("framewake: ")
    assert all(letter.isprintable() for letter in done.stderr[:-1])
    for word in words:
        assert word in done.stderr
    (kept,) = (tmp_path / "state" / "framewake").iterdir()
    assert str(kept) in done.stderr and "Traceback" in kept.read_text() and stat.S_IMODE(kept.stat().st_mode) == 0o600


def test_the_traceback_goes_where_it_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "temporary").mkdir()
    other = {"XDG_STATE_HOME": str(tmp_path / "file"), "TMPDIR": str(tmp_path / "temporary")}
    done = ended(tmp_path, "1 / 0", **other)
    (kept,) = (tmp_path / "temporary").iterdir()
    assert done.returncode == 1 and str(kept) in done.stderr
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); 1 / 0"
    done = ended(tmp_path, limited)
    assert done.returncode == 1 and "could not be kept, it ends in <string>, line " in done.stderr


def test_a_file_holds_no_key_and_old_ones_go(tmp_path):
    for number in range(30):
        (tmp_path / "state" / "framewake").mkdir(parents=True, exist_ok=True)
        (tmp_path / "state" / "framewake" / f"error-20200101-0000{number:02}-x.txt").write_text("")
    done = ended(tmp_path, "1 / 0", "--api-key", "secret1", "--api-key=secret2", "--database", "secret3")
    newest = re.search(r"traceback is in (.*\.txt)", done.stderr)[1]
    with open(newest) as file:
        text = file.read()
    assert "--api-key ... --api-key=... --database ..." in text and "secret" not in text
    assert len(list((tmp_path / "state" / "framewake").iterdir())) == 20


def test_json_has_the_error_as_an_event(tmp_path):
    done = ended(tmp_path, "raise ValueError('\\u202e')", "--json")
    assert done.stdout.startswith('{"event": "error", "kind": "FramewakeError", "message": "something failed')
    assert "\\u202e" in done.stdout and '"exit_code": 1}' in done.stdout


def test_a_thread_that_fails_is_one_line(tmp_path):
    code = "t = threading.Thread(target=deep); t.start(); t.join()"
    done = ended(tmp_path, code)
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert "beside the work, something failed: RecursionError" in done.stderr


def test_what_fails_while_an_object_goes_is_one_line(tmp_path):
    done = ended(tmp_path, "type('A', (), {'__del__': lambda self: 1 / 0})()")
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert "while clearing up, something failed: ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("code", ["signal.raise_signal(signal.SIGINT)", "raise KeyboardInterrupt"])
def test_ctrl_c_anywhere(tmp_path, code):
    done = ended(tmp_path, code)
    assert (done.returncode, done.stderr) == (130, "framewake: stopped.\n")


def test_ctrl_c_while_python_ends_shows_nothing(tmp_path):
    code = "import atexit; atexit.register(lambda: signal.raise_signal(signal.SIGINT))"
    done = ended(tmp_path, code)
    assert (done.returncode, done.stderr) == (0, "")
