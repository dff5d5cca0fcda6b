"""A forked child of a process that has computed is told so, instead of waiting for threads that it does not have."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import os, signal, sys
from framewake.errors import EngineError
from framewake.pipeline import Pipeline
from framewake.request import Request

pipeline = Pipeline.load(sys.argv[1], engine=sys.argv[2])
request = Request("it moves", image=sys.argv[3], resolution="360p", seed=1, steps=1)

def child():
    number = os.fork()
    if number == 0:
        code = 1
        signal.alarm(120)
        try:
            list(pipeline.run(request))
            code = 0
        except EngineError as error:
            assert "spawn" in str(error)
            code = 4
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(number, 0)[1])

print(child(), child())
list(pipeline.run(request))
print(child())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows cannot fork")
def test_a_fork_after_the_first_clip_is_refused(toy, engine, picture):
    command = [sys.executable, "-c", PROGRAM, str(toy), engine.name, str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    before = ["4", "4"] if engine.kind == "mindspore" else ["0", "0"]  # its threads start with the engine
    assert done.stdout.split() == [*before, "4"], done.stderr[-2000:]
