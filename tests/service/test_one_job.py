"""What is wrong with one job is that job's alone: it begins anew or fails, and the jobs behind it are made."""

from __future__ import annotations

import io
import logging

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import update
from test_worker import submit, when, work_once

from framewake.pipeline import Pipeline
from framewake.pipeline.latents import latents_path, load_latents, old_latents_path, save_latents
from framewake.service.storage import CLIP, PICTURE
from framewake.service.tables import jobs


@pytest.fixture
def stopped(desk, worker_of, picture):
    """The clip of a finished job, and the job of one like it that was stopped on its way."""
    whole, parts = (submit(desk, picture, num_inference_steps=30) for _ in range(2))
    worker = worker_of(desk)
    work_once(worker)
    watcher = when(desk, parts, lambda row: row.step >= 3, worker.stop.set)
    work_once(worker)
    watcher.join()
    return (desk.storage.job(whole) / CLIP).read_bytes(), parts


def begin_again(desk, job):
    """Put a job back into the queue as it was."""
    with desk.store.database.writing() as connection:
        connection.execute(update(jobs).where(jobs.c.id == job).values(state="queued", worker=None))


def spoilt(name, file):
    """Saved latents of which no clip may be made."""
    saved = load_latents(file)
    request = saved.metadata["request"]
    if name == "one bit":
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    elif name == "cut":
        file.write_bytes(file.read_bytes()[:-1])
    elif name == "nothing":
        file.write_bytes(b"")
    elif name == "earlier version":
        file.rename(old_latents_path(file.with_name(CLIP)))
    else:
        changed = {
            "another job": saved._replace(metadata=saved.metadata | {"request": request | {"seed": 9}}),
            "other settings": saved._replace(metadata=saved.metadata | {"request": request | {"steps": 40}}),
            "another picture": saved._replace(sources={**saved.sources, "the picture": "0"}),
            "another checkpoint": saved._replace(sources={**saved.sources, "the autoencoder": "0"}),
            "no clip": saved._replace(latents=np.zeros((1, 4, 0, 3, 3), np.float32)),
            "no request": saved._replace(metadata={}),
        }[name]
        save_latents(file, changed)


SPOILT = [
    "one bit", "cut", "nothing", "earlier version", "another job", "other settings", "another picture",
    "another checkpoint", "no clip", "no request",
]  # fmt: skip


def test_saved_latents_that_are_of_no_use_cost_nothing_but_time(desk, worker_of, stopped, caplog):
    """Whoever asks a server for a video can delete no file there: it has to be made from its beginning."""
    want, job = stopped
    clip = desk.storage.job(job) / CLIP
    saved = latents_path(clip).read_bytes()
    for name in SPOILT:
        latents_path(clip).write_bytes(saved)
        spoilt(name, latents_path(clip))
        caplog.clear()
        work_once(worker_of(desk))
        assert desk.store.get(job).state == "completed", name
        assert clip.read_bytes() == want, name
        assert "saved latents are of no use" in caplog.text, name
        assert not list(clip.parent.glob("*latents*")), name
        clip.unlink()
        begin_again(desk, job)


@pytest.mark.parametrize("what", ["cut", "empty", "of another job", "no clip"])
def test_a_clip_that_is_not_the_jobs_is_made(desk, worker_of, picture, what):
    """A file of that name is no proof: it is read, and compared with what was asked for."""
    job, other = submit(desk, picture), submit(desk, picture, seed=4)
    worker = worker_of(desk)
    for _ in range(2):
        work_once(worker)
    clip = desk.storage.job(job) / CLIP
    want = clip.read_bytes()
    of_another = (desk.storage.job(other) / CLIP).read_bytes()
    contents = {"cut": want[: len(want) * 2 // 3], "empty": b"", "of another job": of_another, "no clip": b"\xff" * 999}
    clip.write_bytes(contents[what])
    begin_again(desk, job)
    work_once(worker)
    assert desk.store.get(job).state == "completed"
    assert clip.read_bytes() == want


BROKEN = [
    "",
    "{",
    "[]",
    "null",
    "{}",
    '{"prompt": 3}',
    '{"prompt": "a", "seed": -1}',
    '{"prompt": "\\ud800"}',
    "[" * 9999,
]


def test_a_damaged_row_is_one_jobs_failure(desk, worker_of, picture):
    damaged = {submit(desk, picture): text for text in BROKEN}
    intact = submit(desk, picture)
    with desk.store.database.writing() as connection:
        for job, text in damaged.items():
            connection.execute(update(jobs).where(jobs.c.id == job).values(request=text))
    worker = worker_of(desk)
    for _ in range(len(damaged) + 1):
        work_once(worker)
    assert {desk.store.get(job).state for job in damaged} == {"failed"}
    assert desk.store.get(intact).state == "completed"


@pytest.mark.parametrize("how", ["one bit", "another job's", "gone"])
def test_no_clip_is_made_from_a_picture_that_was_not_handed_in(desk, worker_of, picture, how):
    """Also where the damage can be decoded: a picture is what its owner sent, or it is none."""
    as_bmp = io.BytesIO()
    Image.open(io.BytesIO(picture)).save(as_bmp, "BMP")
    job, intact = submit(desk, as_bmp.getvalue()), submit(desk, picture)
    file = desk.storage.job(job) / PICTURE
    if how == "gone":
        file.unlink()
    else:
        content = bytearray(file.read_bytes() if how == "one bit" else picture)
        content[-1] ^= how == "one bit"
        file.write_bytes(content)
    worker = worker_of(desk)
    for _ in range(2):
        work_once(worker)
    row = desk.store.get(job)
    assert row.state == "failed" and "not the one that was handed in" in row.error
    assert desk.store.get(intact).state == "completed"
    file.write_bytes(as_bmp.getvalue())
    desk.store.retry(job)
    work_once(worker)
    assert desk.store.get(job).state == "completed"


class Panic(BaseException):
    """As tokenizers raise it over a damaged file: no Exception at all."""


class Panicking(Pipeline):
    """A pipeline that raises over one seed what nobody expects."""

    error: BaseException = Panic("a \ud800 \0 text")

    def run_all(self, jobs):
        if jobs[0].request.seed == 13:
            raise self.error
        return super().run_all(jobs)


@pytest.mark.parametrize(
    "error", [Panic("a \ud800 \0 text"), RecursionError(), AssertionError(), StopIteration(), EOFError()]
)
def test_whatever_one_job_raises_the_next_is_made(desk, worker_of, picture, pipeline, error, caplog):
    # Half a letter in a captured log cannot be sent from one process of the tests to another.
    caplog.set_level(logging.CRITICAL + 1, logger="framewake.worker")
    panicking = Panicking(pipeline.checkpoint, pipeline.engine)
    panicking.error = error
    broken, intact = submit(desk, picture, seed=13), submit(desk, picture)
    worker = worker_of(desk, pipeline=panicking)
    for _ in range(2):
        work_once(worker)
    assert [desk.store.get(job).state for job in (broken, intact)] == ["failed", "completed"]
    assert "server could not make this video" in desk.store.get(broken).error


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_who_ends_the_process_is_heard(desk, worker_of, picture, pipeline, error):
    panicking = Panicking(pipeline.checkpoint, pipeline.engine)
    panicking.error = error()
    submit(desk, picture, seed=13)
    with pytest.raises(error):
        work_once(worker_of(desk, pipeline=panicking))


def test_deaths_count_where_a_job_comes_no_further(desk, worker_of, picture):
    """One that kills its workers dies at one place again and again; kills from outside come anywhere."""
    job = submit(desk, picture, num_inference_steps=4)
    for place, left in [
        (("denoise", 2), 0),  # it goes on to later steps
        (("denoise", 4), 0),  # and to later stages
        (("encode text", 0), 0),
        (("write", 4), 3),  # the last one: nothing is further
        (("x", "y"), 0),  # damaged: nothing is known
    ]:
        with desk.store.database.writing() as connection:
            row = {"state": "queued", "worker": None, "stage": place[0], "step": place[1], "deaths": 3}
            connection.execute(update(jobs).where(jobs.c.id == job).values(row))
        work_once(worker_of(desk))
        assert (desk.store.get(job).state, desk.store.get(job).deaths) == ("completed", left), place
        (desk.storage.job(job) / CLIP).unlink()
