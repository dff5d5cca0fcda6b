"""A worker with a real pipeline at toy size: what becomes of jobs that end, stop, fail or are cancelled."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from lora_files import keys_of, write

from framewake.errors import InputError, NumericsError, ResourceError
from framewake.media.video import read_metadata, read_video
from framewake.pipeline.latents import latents_path, load_latents
from framewake.service.fields import JsonVideo
from framewake.service.storage import CLIP, PICTURE, PREVIEW, THUMBNAIL
from framewake.service.worker import Settings


def submit(desk, picture, **fields):
    given = JsonVideo(**({"prompt": "the red circle moves left", "resolution": "360p", "seed": 3} | fields))
    return desk.submit(given, "local", picture=picture).id


def work_once(worker):
    worker.work(*worker.store.claim(worker.name, worker.model))


def when(desk, job, condition, action):
    """Do something as soon as a job has come so far."""

    def watch():
        for _ in range(20_000):
            if condition(desk.store.get(job)):
                action()
                return
            time.sleep(0.003)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_job_becomes_a_clip(desk, worker_of, picture):
    job = submit(desk, picture)
    work_once(worker_of(desk))
    row, folder = desk.store.get(job), desk.storage.job(job)
    assert row.state == "completed" and row.step == row.steps == 2 and row.ended >= row.started
    assert sorted(path.name for path in folder.iterdir()) == sorted([PICTURE, CLIP, THUMBNAIL, PREVIEW])
    assert read_video(folder / CLIP)[0].shape == (5, 64, 64, 3)
    metadata = read_metadata(folder / CLIP)
    assert metadata["request"]["image"] == PICTURE, "the server's folders are in the clip"
    assert str(desk.storage.folder) not in str(metadata)


@pytest.mark.parametrize("cut", [3, 7])
def test_a_stopped_job_goes_on_and_is_the_same(desk, worker_of, picture, cut):
    whole, parts = submit(desk, picture, num_inference_steps=40), submit(desk, picture, num_inference_steps=40)
    worker = worker_of(desk)
    work_once(worker)
    watcher = when(desk, parts, lambda row: row.step >= cut, worker.stop.set)
    work_once(worker)
    watcher.join()
    row = desk.store.get(parts)
    assert row.state == "queued" and desk.store.position(row) == 1
    saved = load_latents(latents_path(desk.storage.job(parts) / CLIP))
    assert cut <= saved.step < 40
    work_once(worker_of(desk))
    clips = [(desk.storage.job(job) / CLIP).read_bytes() for job in (whole, parts)]
    assert clips[0] == clips[1]
    assert not latents_path(desk.storage.job(parts) / CLIP).exists()


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_cancelled_job_stops_within_a_step(desk, worker_of, picture, is_removed):
    job = submit(desk, picture, num_inference_steps=1000)
    steps = []

    def cancel():
        desk.delete(job, "local")
        steps.append(desk.store.get(job).step)
        if is_removed:
            desk.delete(job, "local")

    worker = worker_of(desk)
    watcher = when(desk, job, lambda row: row.step >= 3, cancel)
    seen = []
    report = worker.store.report
    worker.store.report = lambda lease, values: (report(lease, values), seen.append(values.get("step")))
    work_once(worker)
    watcher.join()
    assert max(step for step in seen if step) <= steps[0], "a step was reported after the cancel"
    folder = desk.storage.job(job)
    if is_removed:
        assert not folder.exists()
    else:
        assert desk.store.get(job).state == "cancelled"
        assert [path.name for path in folder.iterdir()] == [PICTURE]


def test_a_retried_job_is_made(desk, worker_of, picture):
    job = submit(desk, picture)
    desk.delete(job, "local")
    desk.store.retry(job)
    work_once(worker_of(desk))
    assert desk.store.get(job).state == "completed"


def test_a_clip_that_is_there_is_not_made_again(desk, worker_of, picture):
    """The worker died between the clip and the word that it is made."""
    first, second = submit(desk, picture), submit(desk, picture)
    work_once(worker_of(desk))
    made = desk.storage.job(first) / CLIP
    made.rename(desk.storage.job(second) / CLIP)
    before = (desk.storage.job(second) / CLIP).stat()
    work_once(worker_of(desk))
    after = (desk.storage.job(second) / CLIP).stat()
    assert desk.store.get(second).state == "completed"
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert (desk.storage.job(second) / THUMBNAIL).is_file()


def test_damaged_latents_cost_time_only(desk, worker_of, picture):
    job = submit(desk, picture)
    latents_path(desk.storage.job(job) / CLIP).write_bytes(b"PK nothing")
    work_once(worker_of(desk))
    assert desk.store.get(job).state == "completed"


class Broken:
    """A pipeline that fails as real ones do."""

    def __init__(self, pipeline, error):
        self.pipeline, self.checkpoint, self.engine, self.error = pipeline, pipeline.checkpoint, pipeline.engine, error

    def run(self, request, output):
        for event in self.pipeline.run(request, output):
            yield event
            raise self.error


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (NumericsError("NaN appeared at step 1."), "numerics_error", "NaN appeared"),
        (RuntimeError("cuda broke at /srv/secret/model.bin"), "runtime_error", "its log says why"),
        (ResourceError("no memory for /srv/secret/x", bytes_needed=2, bytes_free=1), "out_of_resources", "for x"),
    ],
)
def test_a_failed_job_says_why_without_paths(desk, worker_of, picture, error, code, words):
    job = submit(desk, picture)
    worker = worker_of(desk)
    worker.pipeline = Broken(worker.pipeline, error)
    work_once(worker)
    row = desk.store.get(job)
    assert row.state == "failed" and row.error_code == code
    assert words in row.error and "secret" not in row.error


def test_a_full_disk_pauses_a_job(desk, worker_of, picture):
    job = submit(desk, picture)
    worker = worker_of(desk)
    worker.pipeline = Broken(worker.pipeline, ResourceError("no room", bytes_needed=2, bytes_free=1))
    worker.storage.least_free = 2**62
    work_once(worker)
    row = desk.store.get(job)
    assert row.state == "queued" and row.due > time.time() + 10
    assert not worker.storage.has_room()


def test_a_worker_works_until_it_is_stopped(desk, worker_of, picture):
    jobs = [submit(desk, picture, seed=seed) for seed in range(3)]
    worker = worker_of(desk, Settings(beat_seconds=0.05))
    watcher = when(desk, jobs[-1], lambda row: row.state == "completed", worker.stop.set)
    worker.run()
    watcher.join()
    assert desk.store.counts() == {"completed": 3}
    assert desk.presence.alive() == []
    frames = [read_video(desk.storage.job(job) / CLIP)[0] for job in jobs]
    assert not np.array_equal(frames[0], frames[1])
    assert os.getcwd() == str(desk.storage.folder)


def test_a_lora_by_its_name(desk_of, worker_of, picture, tmp_path):
    folder = tmp_path / "offered"
    folder.mkdir()
    write(folder / "style.safetensors", keys_of("kohya", alpha=None))
    desk = desk_of(loras=folder)
    plain, styled = submit(desk, picture), submit(desk, picture, lora=[{"name": "style", "scale": 0.5}])
    worker = worker_of(desk, Settings(loras=folder))
    for _ in range(2):
        work_once(worker)
    assert desk.store.get(styled).state == "completed", desk.store.get(styled).error
    frames = [read_video(desk.storage.job(job) / CLIP)[0] for job in (plain, styled)]
    assert not np.array_equal(*frames)
    request = read_metadata(desk.storage.job(styled) / CLIP)["request"]
    assert request["loras"] == ["loras/style.safetensors:0.5"], "the server's folders are in the clip"
    with pytest.raises(InputError, match="it has style"):
        submit(desk, picture, lora=[{"name": "../style"}])
