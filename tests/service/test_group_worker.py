"""A worker that is a group of processes: its videos, and what becomes of one when any of the processes ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
from engines_here import needs_torch
from lora_files import keys_of, write
from service_process import ENVIRONMENT, PROGRAM, command, serving
from sqlalchemy import update
from test_serve import post, wait_for
from test_worker import submit

from framewake.media.video import read_video
from framewake.service import tables
from framewake.service.database import Database, default_url
from framewake.service.storage import CLIP
from framewake.service.store import JobStore

pytestmark = [needs_torch, pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")]
ENGINE = ("--engine", "torch:cpu")
STEPS = 120
SECONDS = 60
LORA = '[{"name": "a", "scale": 0.5}]'


def children(process):
    """The processes that one has started, by their numbers in a group; the starter's own children have one."""
    found = {}
    for place in Path(f"/proc/{process}/task").glob("*/children"):
        for child in map(int, place.read_text().split()):
            words = Path(f"/proc/{child}/environ").read_bytes().decode(errors="replace").split("\0")
            told = dict(word.partition("=")[::2] for word in words)
            found[int(told.get("RANK", -1))] = child
    return found


def group_of(server):
    """The starter and its processes."""
    [starter] = children(server.pid).values()
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        if len(ranks := children(starter)) == 2:
            return starter, ranks
        time.sleep(0.05)
    raise AssertionError("there are no two processes")


def has_gone(process):
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.1)
    os.kill(process, signal.SIGKILL)
    return False


@pytest.fixture
def store_of():
    """The job store of a data folder."""
    opened = []

    def make(folder):
        opened.append(Database(default_url(folder)))
        return JobStore(opened[-1])

    yield make
    for database in opened:
        database.close()


def clip_of(folder, job):
    return (folder / "data" / "jobs" / job / CLIP).read_bytes()


ENDS = {
    "second killed": (1, "SIGKILL", "framewake: process 1 of 2 was ended by SIGKILL"),
    "first killed": (0, "SIGKILL", "framewake: process 0 of 2 was ended by SIGKILL"),
    "second stopped": (1, "SIGSTOP", "framewake: process 1 of 2 does not answer: it was stopped"),
    "starter killed": (None, "SIGKILL", "the worker ended (-9)"),
}


def test_videos_of_a_group_go_on_when_any_of_its_processes_ends(toy, picture, tmp_path, store_of):
    with serving(tmp_path, toy, *ENGINE, "--devices", "2", "--save-every", "2") as server:
        store = store_of(tmp_path / "data")
        wait_for(lambda: httpx.get(f"{server.url}/health").json()["devices"], lambda count: count == 2)
        whole = post(server, picture, num_inference_steps=STEPS)
        wait_for(lambda: store.get(whole).state, lambda state: state == "completed")
        for number, (rank, name, cause) in enumerate(ENDS.values(), 1):
            with store.database.writing() as connection:  # the pause after a death would only make this longer
                connection.execute(update(tables.jobs).values(due=0))
            job = post(server, picture, num_inference_steps=STEPS)
            wait_for(lambda job=job: store.get(job), lambda row: row.step > 10)
            starter, ranks = group_of(server.process)
            os.kill(starter if rank is None else ranks[rank], getattr(signal, name))
            assert all(has_gone(process) for process in (starter, *ranks.values()))
            wait_for(lambda job=job: store.get(job).lease, lambda lease: lease == 2)
            row = wait_for(lambda job=job: store.get(job), lambda row: row.state in ("completed", "failed"))
            assert row.state == "completed" and row.deaths <= 1, row.error
            said = server.log.read_text()
            assert said.count("starting another") == number and said.count(cause) == 1, said
            assert "Traceback" not in said
            assert clip_of(tmp_path, job) == clip_of(tmp_path, whole)
        starter, ranks = group_of(server.process)
    assert all(has_gone(process) for process in (starter, *ranks.values()))


def test_a_killed_server_leaves_nothing_and_another_goes_on(toy, picture, tmp_path, store_of):
    """With LoRAs by name, which the processes that follow have to find too."""
    (tmp_path / "loras").mkdir()
    write(tmp_path / "loras" / "a.safetensors", {key: x * np.float32(0.3) for key, x in keys_of("kohya").items()})
    arguments = (*ENGINE, "--loras", str(tmp_path / "loras"))
    with serving(tmp_path, toy, *arguments, "--devices", "2") as server:
        store = store_of(tmp_path / "data")
        job = post(server, picture, num_inference_steps=STEPS, lora=LORA)
        wait_for(lambda: store.get(job), lambda row: row.step > 10)
        starter, ranks = group_of(server.process)
        server.process.kill()
        assert all(has_gone(process) for process in (starter, *ranks.values()))
        assert store.get(job).state == "queued", "it was given back"
    with serving(tmp_path, toy, *arguments) as server:  # one device goes on with what two have saved
        assert httpx.get(f"{server.url}/health").json()["devices"] == 1
        wait_for(lambda: store.get(job).state, lambda state: state == "completed")
        again = post(server, picture, num_inference_steps=STEPS, lora=LORA)
        wait_for(lambda: store.get(again).state, lambda state: state == "completed")
    found, expected = (read_video(tmp_path / "data" / "jobs" / name / CLIP)[0].astype(int) for name in (job, again))
    assert np.abs(found - expected).max() <= 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_worker_without_a_server_ends_politely(toy, picture, desk, number):
    store, job = desk.store, submit(desk, picture, num_inference_steps=STEPS)
    words = ["worker", "--storage", str(desk.storage.folder), "--checkpoint", str(toy), *ENGINE, "--devices", "2"]
    worker = subprocess.Popen([*PROGRAM, *words], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: store.get(job), lambda row: row.step > 5)
        assert desk.presence.device_count(desk.presence.alive()) == 2
        ranks = children(worker.pid)
        worker.send_signal(number)
        _, said = worker.communicate(timeout=SECONDS)
    finally:
        worker.kill()
    assert worker.returncode == 0 and "saved and given back" in said, said
    assert len(ranks) == 2 and all(has_gone(process) for process in ranks.values())
    assert store.get(job).state == "queued"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_group_without_work_ends_with_the_cause(toy, desk, rank):
    words = ["worker", "--storage", str(desk.storage.folder), "--checkpoint", str(toy), *ENGINE, "--devices", "2"]
    worker = subprocess.Popen([*PROGRAM, *words], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: desk.presence.device_count(desk.presence.alive()), lambda count: count == 2)
        ranks = children(worker.pid)
        os.kill(ranks[rank], signal.SIGKILL)
        _, said = worker.communicate(timeout=SECONDS)
    finally:
        worker.kill()
    assert worker.returncode == 4 and said.count(f"process {rank} of 2 was ended by SIGKILL") == 1, said
    assert len(ranks) == 2 and all(has_gone(process) for process in ranks.values())


@pytest.mark.parametrize("words", ["0,0", "9999"])
def test_what_is_no_group_is_refused_by_server_and_worker(tmp_path, words):
    for name in (("serve", "--port", "0", "--data", str(tmp_path / "data")), ("worker", "--storage", str(tmp_path))):
        done = command(*name, *ENGINE, f"--devices={words}")
        assert done.returncode == 2 and done.stderr.count("\n") == 1 and "--devices" in done.stderr, done.stderr
    assert not (tmp_path / "data").exists()
