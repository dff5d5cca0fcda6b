"""A worker with a real pipeline at toy size: what becomes of jobs that end, stop, fail or are cancelled."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import time

import numpy as np
import pytest
import sqlalchemy
from engines_here import FIRST
from lora_files import keys_of, write
from safetensors.numpy import load_file, save_file
from toy_checkpoint import SETTINGS, write_toy

from framewake.errors import InputError
from framewake.media.video import read_metadata, read_video
from framewake.pipeline import Pipeline
from framewake.pipeline.latents import latents_path, load_latents
from framewake.service.fields import JsonVideo
from framewake.service.storage import CLIP, LATENTS, PICTURE, PREVIEW, STORY, THUMBNAIL
from framewake.service.worker import WorkerSettings


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
    assert sorted(path.name for path in folder.iterdir()) == sorted([PICTURE, CLIP, STORY, THUMBNAIL, PREVIEW])
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


def told_steps(desk):
    """Steps that the worker tells the database, as they come."""
    seen = []

    @sqlalchemy.event.listens_for(desk.store.database.engine, "before_cursor_execute")
    def executed(_connection, _cursor, statement, parameters, _context, _many):
        if statement.startswith("UPDATE jobs SET step="):
            seen.append(parameters[0])

    return seen


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
    seen = told_steps(desk)
    watcher = when(desk, job, lambda row: row.step >= 3, cancel)
    work_once(worker)
    watcher.join()
    # The report that is refused is how the worker learns of it; the beat may be quicker.
    assert max(seen) <= steps[0] + 1, "a step was computed after the cancel"
    folder = desk.storage.job(job)
    if is_removed:
        assert not folder.exists()
    else:
        assert desk.store.get(job).state == "cancelled"
        assert {path.name for path in folder.iterdir()} == {PICTURE, LATENTS, STORY}


def told_stages(desk):
    """Stages that the worker tells the database, as they come."""
    seen = []

    @sqlalchemy.event.listens_for(desk.store.database.engine, "before_cursor_execute")
    def executed(_connection, _cursor, statement, parameters, _context, _many):
        if statement.startswith("UPDATE jobs SET stage="):
            seen.append(parameters[0])

    return seen


def at_stage(desk, stage, action):
    """Do something, in another thread, as soon as the worker says that a stage begins."""
    begun = threading.Event()

    @sqlalchemy.event.listens_for(desk.store.database.engine, "after_cursor_execute")
    def executed(_connection, _cursor, statement, parameters, _context, _many):
        if statement.startswith("UPDATE jobs SET stage=") and parameters[0] == stage:
            begun.set()

    def wait():
        if begun.wait(timeout=120):
            action()

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


@pytest.mark.parametrize("stage", ["encode text", "denoise", "decode", "write"])
def test_a_job_is_cancelled_in_any_stage(desk, worker_of, picture, stage):
    job = submit(desk, picture, num_inference_steps=3)
    watcher = at_stage(desk, stage, lambda: desk.delete(job, "local"))
    work_once(worker_of(desk))
    watcher.join()
    assert desk.store.get(job).state == "cancelled"
    assert {path.name for path in desk.storage.job(job).iterdir()} <= {PICTURE, LATENTS, STORY}


@pytest.mark.parametrize("stage", ["encode text", "decode", "write"])
def test_a_job_stopped_in_any_stage_goes_on_and_is_the_same(desk, worker_of, picture, stage):
    whole, parts = submit(desk, picture), submit(desk, picture)
    worker = worker_of(desk)
    work_once(worker)
    watcher = at_stage(desk, stage, worker.stop.set)
    work_once(worker)
    watcher.join()
    folder = desk.storage.job(parts)
    if desk.store.get(parts).state == "queued":  # the clip may have been written before the worker looked
        assert latents_path(folder / CLIP).exists() == (stage != "encode text")
        work_once(worker_of(desk))
    assert (folder / CLIP).read_bytes() == (desk.storage.job(whole) / CLIP).read_bytes()
    assert not latents_path(folder / CLIP).exists()


@pytest.fixture(scope="module")
def tiled(tmp_path_factory):
    """A checkpoint whose clips are decoded in 64 tiles."""
    tiling = dataclasses.replace(SETTINGS.tiling, sample_size=16, latent_size=2, overlap=0.5)
    folder = write_toy(tmp_path_factory.mktemp("tiled"), settings=dataclasses.replace(SETTINGS, tiling=tiling))
    return Pipeline.load(folder, engine=FIRST)


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_decoding_ends_within_a_tile(desk, worker_of, picture, tiled, is_cancelled):
    whole, parts = submit(desk, picture), submit(desk, picture)
    worker = worker_of(desk, pipeline=tiled)
    work_once(worker)
    action = (lambda: desk.delete(parts, "local")) if is_cancelled else worker.stop.set
    stages = told_stages(desk)
    watcher = at_stage(desk, "decode", action)
    work_once(worker)
    watcher.join()
    assert stages[-1] == "decode", "the clip was written all the same"
    if is_cancelled:
        assert {path.name for path in desk.storage.job(parts).iterdir()} == {PICTURE, LATENTS, STORY}
        desk.store.retry(parts)
    work_once(worker_of(desk, pipeline=tiled))
    assert (desk.storage.job(parts) / CLIP).read_bytes() == (desk.storage.job(whole) / CLIP).read_bytes()


def test_writing_ends_within_a_frame(desk, worker_of, picture):
    whole, parts = submit(desk, picture), submit(desk, picture)
    worker = worker_of(desk)
    work_once(worker)

    @sqlalchemy.event.listens_for(desk.store.database.engine, "after_cursor_execute")
    def executed(_connection, _cursor, statement, parameters, _context, _many):
        if statement.startswith("UPDATE jobs SET stage=") and parameters[0] == "write":
            worker.stop.set()

    work_once(worker)
    folder = desk.storage.job(parts)
    assert desk.store.get(parts).state == "queued"
    assert {path.name for path in folder.iterdir()} == {PICTURE, LATENTS, PREVIEW, STORY}, "it was written all the same"
    sqlalchemy.event.remove(desk.store.database.engine, "after_cursor_execute", executed)
    work_once(worker_of(desk))
    assert (folder / CLIP).read_bytes() == (desk.storage.job(whole) / CLIP).read_bytes()


def test_a_cancelled_job_goes_on_when_it_is_tried_again(desk, worker_of, picture):
    whole, parts = (submit(desk, picture, num_inference_steps=150) for _ in range(2))
    worker = worker_of(desk, WorkerSettings(save_every=1000))
    work_once(worker)
    watcher = when(desk, parts, lambda row: row.step >= 3, lambda: desk.delete(parts, "local"))
    work_once(worker)
    watcher.join()
    saved = load_latents(desk.storage.job(parts) / LATENTS).step
    assert 3 <= saved < 150
    desk.store.retry(parts)
    steps = told_steps(desk)
    work_once(worker)
    assert steps[0] == saved and len(steps) <= 150 - saved + 2
    assert (desk.storage.job(parts) / CLIP).read_bytes() == (desk.storage.job(whole) / CLIP).read_bytes()
    assert not (desk.storage.job(parts) / LATENTS).exists()


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


def spoil(folder, part, change):
    """Change one weight of a checkpoint."""
    (file,) = (folder / part).glob("*.safetensors")
    weights = load_file(file)
    name = sorted(weights)[0]
    weights[name] = change(weights[name])
    save_file(weights, file)


@pytest.fixture
def secret(toy, tmp_path):
    """A checkpoint of the test's own, in a folder that nobody may read about."""
    return shutil.copytree(toy, tmp_path / "secret")


def failure(desk, worker, picture):
    """How a job fails; the worker must be able to go on."""
    job, following = submit(desk, picture), submit(desk, picture)
    work_once(worker)
    row = desk.store.get(job)
    assert row.state == "failed" and "secret" not in row.error, row.error
    assert worker.store.claim(worker.name, worker.model)[0].job == following
    return row.error_code, row.error


def test_broken_numbers_fail_a_job(desk, worker_of, picture, secret):
    spoil(secret, "transformer", lambda values: np.full_like(values, np.nan))
    code, error = failure(desk, worker_of(desk, pipeline=Pipeline.load(secret, engine=FIRST)), picture)
    assert code == "numerics_error" and "NaN appeared" in error


def test_weights_that_vanish_fail_a_job(desk, worker_of, picture, secret):
    worker = worker_of(desk, pipeline=Pipeline.load(secret, engine=FIRST))
    (secret / "transformer" / "diffusion_pytorch_model.safetensors").unlink()
    _, error = failure(desk, worker, picture)
    assert error == "the server could not make this video; its log says why."


def test_too_little_memory_fails_a_job(desk, worker_of, picture, secret):
    worker = worker_of(desk, pipeline=Pipeline.load(secret, engine=FIRST, memory=5000))
    code, error = failure(desk, worker, picture)
    assert code == "out_of_resources" and "memory" in error


def test_a_picture_that_vanished_is_a_failure_of_its_job_only(desk, worker_of, picture):
    first, second = submit(desk, picture), submit(desk, picture)
    (desk.storage.job(first) / PICTURE).unlink()
    worker = worker_of(desk)
    for _ in range(2):
        work_once(worker)
    row = desk.store.get(first)
    assert row.state == "failed" and str(desk.storage.folder) not in row.error
    assert desk.store.get(second).state == "completed"


def test_a_worker_works_until_it_is_stopped(desk, worker_of, picture):
    jobs = [submit(desk, picture, seed=seed) for seed in range(3)]
    worker = worker_of(desk, WorkerSettings(beat_seconds=0.05))
    watcher = when(desk, jobs[-1], lambda row: row.state == "completed", worker.stop.set)
    worker.run()
    watcher.join()
    assert desk.store.counts() == {"completed": 3}
    assert desk.presence.alive() == []
    frames = [read_video(desk.storage.job(job) / CLIP)[0] for job in jobs]
    assert not np.array_equal(frames[0], frames[1])
    assert os.getcwd() == str(desk.storage.folder)


def test_only_loras_that_fit_are_offered(desk_of, picture, tmp_path, caplog):
    folder = tmp_path / "offered"
    folder.mkdir()
    write(folder / "good.safetensors", keys_of("kohya", alpha=None))
    shutil.copy(folder / "good.safetensors", folder / "other.sft")
    write(folder / "strange.safetensors", {"x.lora_A.weight": np.ones((2, 2), np.float32)})
    (folder / "page.pt").write_text("<html>")
    (folder / "._good.safetensors").write_bytes(b"Mac OS X")
    (folder / "gone.safetensors").symlink_to(tmp_path / "gone")
    (folder / "notes.txt").write_text("x")
    desk = desk_of(loras=folder)
    for _ in range(2):  # told once
        assert desk.lora_names() == ["good", "other"]
    told = sorted(record.getMessage().split("/")[-1].split(maxsplit=1)[0] for record in caplog.records)
    assert told == ["gone.safetensors:", "page.pt", "strange.safetensors:"]
    job = submit(desk, picture, lora=[{"name": "other"}])
    assert "loras/other.sft:1" in str(desk.store.get(job).request)
    (folder / "page.pt").write_bytes((folder / "good.safetensors").read_bytes())
    assert desk.lora_names() == ["good", "other", "page"]


def test_a_lora_by_its_name(desk_of, worker_of, picture, tmp_path):
    folder = tmp_path / "offered"
    folder.mkdir()
    write(folder / "style.safetensors", keys_of("kohya", alpha=None))
    desk = desk_of(loras=folder)
    plain, styled = submit(desk, picture), submit(desk, picture, lora=[{"name": "style", "scale": 0.5}])
    worker = worker_of(desk, WorkerSettings(loras=folder))
    for _ in range(2):
        work_once(worker)
    assert desk.store.get(styled).state == "completed", desk.store.get(styled).error
    frames = [read_video(desk.storage.job(job) / CLIP)[0] for job in (plain, styled)]
    assert not np.array_equal(*frames)
    request = read_metadata(desk.storage.job(styled) / CLIP)["request"]
    assert request["loras"] == ["loras/style.safetensors:0.5"], "the server's folders are in the clip"
    with pytest.raises(InputError, match=r"it has style\."):
        submit(desk, picture, lora=[{"name": "../style"}])
