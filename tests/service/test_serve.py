"""The server as a program: refusals at the start, restarts after kill -9, polite ends, the jobs commands."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import httpx
import pytest
from engines_here import FIRST
from service_process import command, serving, start
from test_worker import submit

from framewake.media.video import read_video
from framewake.service.database import Database, default_url
from framewake.service.storage import CLIP
from framewake.service.store import JobStore

LONG = {"prompt": "the red circle moves left", "resolution": "360p", "seed": "3"}


def post(server, picture, **fields):
    files = {"input_reference": ("x.png", picture)}
    data = LONG | {name: str(value) for name, value in fields.items()}
    return httpx.post(f"{server.url}/v1/videos", data=data, files=files, timeout=60).raise_for_status().json()["id"]


def wait_for(ask, condition, seconds=120):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = ask()
        if condition(found):
            return found
        time.sleep(0.05)
    raise AssertionError(f"still {found} after {seconds} s")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "0.0.0.0"], "needs a key"),
        (["--host", "0.0.0.0", "--api-key", "short"], "16 or more"),
        (["--checkpoint", "/nowhere/at/all"], "no such checkpoint"),
        (["--database", "nonsense"], "not understood"),
        (["--data", "/proc/nothing"], "another folder"),
    ],
)
def test_refusals_at_the_start(toy, tmp_path, arguments, words):
    given = ["--checkpoint", str(toy), "--data", str(tmp_path / "data"), *arguments]
    done = command("serve", *given)
    assert done.returncode in (2, 3) and words in done.stderr and done.stderr.count("\n") == 1


def test_a_killed_server_goes_on(toy, picture, tmp_path):
    """kill -9 of the server and of its worker in the middle of a clip; then a new server on the same folder."""
    server = start(tmp_path, toy)
    server.wait_for_worker()
    whole = post(server, picture, num_inference_steps=30)
    store = JobStore(Database(default_url(tmp_path / "data")))
    wait_for(lambda: store.get(whole).state, lambda state: state == "completed")
    cut = post(server, picture, num_inference_steps=1000)
    row = wait_for(lambda: store.get(cut), lambda row: row.step > 8)
    worker = int(row.worker.split(":")[1])
    server.process.kill()
    os.kill(worker, signal.SIGKILL)
    server.process.wait()
    step = store.get(cut).step
    with serving(tmp_path, toy) as again:
        row = wait_for(lambda: store.get(cut), lambda row: row.lease == 2 and row.step > step)
        assert row.step < 1000, "the run began anew or was over before it could be seen"
        body = httpx.delete(f"{again.url}/v1/videos/{cut}").json()
        assert body["status"] == "cancelled"
        clip = httpx.get(f"{again.url}/v1/videos/{whole}/content").content
        assert clip == (tmp_path / "data" / "jobs" / whole / CLIP).read_bytes()
    store.database.close()


def test_a_polite_end_saves_the_job(toy, picture, tmp_path):
    server = start(tmp_path, toy)
    server.wait_for_worker()
    job = post(server, picture, num_inference_steps=1000)
    store = JobStore(Database(default_url(tmp_path / "data")))
    row = wait_for(lambda: store.get(job), lambda row: row.step > 3)
    server.process.terminate()
    server.process.wait(timeout=60)
    ended = store.get(job)
    store.database.close()
    assert ended.state == "queued" and ended.deaths == 0 and ended.step >= row.step
    names = {path.name for path in (tmp_path / "data" / "jobs" / job).iterdir()}
    assert "clip.mp4.latents.safetensors" in names and CLIP not in names


def test_a_worker_outlives_no_server(toy, tmp_path):
    server = start(tmp_path, toy)
    server.wait_for_worker()
    store = JobStore(Database(default_url(tmp_path / "data")))
    from framewake.service.presence import Presence

    worker = int(Presence(store).alive()[0].id.split(":")[1])
    server.process.kill()
    server.process.wait()
    wait_for(lambda: Path(f"/proc/{worker}").exists(), lambda lives: not lives, seconds=30)
    store.database.close()


def test_two_workers_of_other_programs_share_postgresql(toy, picture, desk_of, postgres_url):
    """framewake worker --database URL --storage DIR, twice, without a server."""
    import subprocess

    from service_process import ENVIRONMENT, PROGRAM

    desk = desk_of(postgres_url)
    jobs = [submit(desk, picture, seed=seed, num_inference_steps=20) for seed in range(8)]
    place = ["--database", postgres_url, "--storage", str(desk.storage.folder)]
    line = [*PROGRAM, "worker", *place, "--checkpoint", str(toy), "--engine", FIRST]
    workers = [subprocess.Popen(line, env=ENVIRONMENT, stderr=subprocess.DEVNULL) for _ in range(2)]
    wait_for(desk.store.counts, lambda counts: counts == {"completed": 8}, seconds=180)
    for worker in workers:
        worker.terminate()
    assert [worker.wait(timeout=60) for worker in workers] == [0, 0]
    assert all(desk.store.get(job).lease == 1 for job in jobs), "a job was made twice"
    assert all(len(read_video(desk.storage.job(job) / CLIP)[0]) == 5 for job in jobs)


def test_the_jobs_commands(picture, desk, command_here, tmp_path):
    job = submit(desk, picture)
    place = ["--data", str(desk.storage.folder)]
    assert job in command_here("jobs", "list", *place).stdout
    assert json.loads(command("jobs", "show", job, "--json", *place).stdout)["status"] == "queued"
    assert "cancelled" in command_here("jobs", "cancel", job, *place).stdout
    assert "queued" in command_here("jobs", "retry", job, *place).stdout
    refused = command_here("jobs", "rm", job, *place)
    assert refused.returncode != 0 and "cancel it first" in refused.stderr
    command_here("jobs", "cancel", job, *place)
    assert "removed" in command_here("jobs", "rm", job, *place).stdout
    assert not desk.storage.job(job).exists()
    assert command_here("jobs", "show", job, *place).returncode != 0
    assert command_here("jobs", "list", "--data", str(tmp_path / "nothing")).returncode == 2


def test_the_jobs_commands_on_a_server(toy, picture, command_here, tmp_path):
    server = start(tmp_path, toy, "--no-worker")
    wait_for(lambda: command_here("jobs", "list", "--server", server.url), lambda done: done.returncode == 0)
    job = post(server, picture)
    place = ["--server", server.url]
    assert job in command_here("jobs", "list", *place).stdout
    assert "cancelled" in command_here("jobs", "cancel", job, *place).stdout
    assert "queued" in command_here("jobs", "retry", job, *place).stdout
    assert command_here("jobs", "rm", job, *place).returncode == 2
    assert command_here("jobs", "cancel", job, *place).returncode == 0
    assert "removed" in command_here("jobs", "rm", job, *place).stdout
    server.process.terminate()
    server.process.wait(timeout=30)
