"""MindSpore's threads on a CPU: none more than asked for, and asleep while they have nothing to do."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys

import pytest

pytestmark = [
    pytest.mark.skipif(importlib.util.find_spec("mindspore") is None, reason="mindspore is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="threads are found in /proc"),
]

LOOK = '''
import time
from pathlib import Path
import numpy as np
from framewake import engine as engines

engine = engines.get("mindspore:cpu")
x = engine.asarray(np.ones((64, 48, 16), np.float32))
threads = [t for t in Path("/proc/self/task").iterdir() if (t / "comm").read_text().strip().endswith("Thread_0")]
assert len(threads) == 2, threads

def switches():
    words = [line.split() for t in threads for line in (t / "status").read_text().splitlines()]
    return sum(int(word[1]) for word in words if word[0].endswith("ctxt_switches:"))

def spent():
    return sum(int((t / "schedstat").read_text().split()[0]) for t in threads)

def waited():
    """Nanoseconds that they computed behind an operation, until they were asleep."""
    before = spent()
    engine.silu(x)
    while any((t / "stat").read_text().rpartition(")")[2].split()[0] != "S" for t in threads):
        time.sleep(0.01)
    return spent() - before

def left_alone():
    engine.silu(x)
    time.sleep(0.5)
    before = switches()
    for _ in range(50):
        engine.silu(x)
    return before == switches()

'''


def told(words: str, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"} | variables
    command = [sys.executable, "-c", f"{LOOK}print({words})"]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.strip()


def test_threads_without_work_sleep():
    """They would turn for 50 ms of a core's time after every operation, and turn for one."""
    assert told("max(waited() for _ in range(5)) < 20_000_000") == "True"


@pytest.mark.parametrize(("asked", "is_left_alone"), [("1", "True"), ("2,1", "False")])
def test_an_operation_takes_as_many_threads_as_were_asked_for(asked, is_left_alone):
    assert told("left_alone()", OMP_NUM_THREADS=asked) == is_left_alone
