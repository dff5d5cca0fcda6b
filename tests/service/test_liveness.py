"""A worker that hangs is noticed and started again; one that is slow, or whose machine was stopped, is left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import httpx
import pytest
from service_process import serving
from test_serve import post, wait_for

from framewake import pulse
from framewake.service import liveness
from framewake.service.database import Database, default_url
from framewake.service.liveness import PIPE, STALLED, Listener, Stopwatch, processor_seconds
from framewake.service.storage import CLIP
from framewake.service.store import JobStore

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what a process does is seen through /proc")


def worker_of(store):
    """The process of the one running job's worker."""
    with store.database.reading() as connection:
        from sqlalchemy import select

        from framewake.service.tables import jobs

        named = connection.execute(select(jobs.c.worker).where(jobs.c.state == "in_progress")).scalar()
    return None if named is None else int(named.split(":")[1])


def test_a_stopped_worker_is_replaced_and_its_job_goes_on(toy, picture, tmp_path):
    with serving(tmp_path, toy, "--stall-seconds", "3") as server:
        store = JobStore(Database(default_url(tmp_path / "data")))
        whole = post(server, picture, num_inference_steps=150)
        wait_for(lambda: store.get(whole).state, lambda state: state == "completed")
        job = post(server, picture, num_inference_steps=150)
        wait_for(lambda: store.get(job), lambda row: row.step > 10)
        process = worker_of(store)
        os.kill(process, signal.SIGSTOP)
        wait_for(lambda: store.get(job), lambda row: row.state == "completed")
        assert not os.path.exists(f"/proc/{process}"), "it is still there"
        assert store.get(job).deaths <= 1 and store.get(job).lease == 2
        clips = [(tmp_path / "data" / "jobs" / name / CLIP).read_bytes() for name in (whole, job)]
        assert clips[0] == clips[1]
        assert "the worker hangs (nothing was heard of it" in server.log.read_text()
        assert httpx.get(f"{server.url}/health").status_code == 200
        store.database.close()


PROGRAM = """
import os, sys, threading, time
from framewake import pulse
from framewake.service.liveness import Watch
Watch(float(sys.argv[2])).start()
if sys.argv[1] == "works":
    for _ in range(40):
        time.sleep(0.1)
        pulse.beat()
elif sys.argv[1] == "deadlock":
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
elif sys.argv[1] == "busy":
    while True:
        pass
"""


ENDS = [("works", 2, 0), ("deadlock", 2, STALLED), ("busy", 2, STALLED)]


@pytest.mark.parametrize(("what", "stall", "code"), ENDS)
def test_only_work_makes_the_pulse_beat(what, stall, code):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, what, str(stall)], capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    if code:
        assert "this worker hangs" in done.stderr and 'File "<string>", line' in done.stderr


def listener(process, *, stall=1e9):
    """The listener of a process that has begun its work."""
    ours, theirs = os.pipe()
    made = Listener(process, ours, stall)
    os.write(theirs, b".")
    assert made.hangs() is None
    return made, theirs


def test_a_word_is_a_sign_of_life(monkeypatch):
    found, pipe = listener(os.getpid(), stall=0.2)
    time.sleep(0.3)
    os.write(pipe, b".")
    assert found.hangs() is None
    time.sleep(0.3)
    assert found.hangs().startswith("nothing was heard of it for 0 s")
    os.close(pipe)


def test_silence_alone_is_no_proof_while_the_processor_is_used(monkeypatch):
    """A compiler may hold Python's lock for minutes: such a worker is silent and works."""
    monkeypatch.setattr(liveness, "SILENT_SECONDS", 0.5)
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    idle = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        listeners = [listener(process.pid)[0] for process in (busy, idle)]
        wait_for(lambda: processor_seconds(busy.pid), lambda used: used > 0.2)
        wait_for(listeners[1].hangs, lambda reason: reason is not None, seconds=30)
        assert listeners[0].hangs() is None
    finally:
        busy.kill()
        idle.kill()


def test_a_start_takes_its_time():
    """Imports over a network are silent and use no processor."""
    ours, theirs = os.pipe()
    made = Listener(os.getpid(), ours, 0.1)
    time.sleep(0.3)
    assert made.hangs() is None
    os.close(theirs)


def test_zero_waits_for_ever():
    found, _ = listener(os.getpid(), stall=0)
    time.sleep(0.1)
    assert found.hangs() is None


def test_a_pause_of_the_machine_is_no_silence(monkeypatch):
    """A container that is paused, a laptop that sleeps: server and worker lived none of it."""
    now = [100.0]
    monkeypatch.setattr(liveness.time, "monotonic", lambda: now[0])
    watch = Stopwatch()
    now[0] += 2
    assert watch.look() == 2
    now[0] += 3600
    assert watch.look() == 7


def test_each_block_and_each_tensor_beats(pipeline, picture, tmp_path):
    from framewake.request import Request

    (tmp_path / "a.png").write_bytes(picture)
    before = pulse.beats()
    list(pipeline.run(Request("a", image=str(tmp_path / "a.png"), resolution="360p", seed=1, steps=3)))
    assert pulse.beats() - before >= 3 * 2, "two blocks a step"
    assert PIPE not in os.environ
