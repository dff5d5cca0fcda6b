"""Folders without a job: interrupted hand-ins and removals are finished, everything else is put aside and kept."""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import threading

import pytest
from sqlalchemy import delete
from sqlalchemy.exc import SQLAlchemyError
from test_worker import submit, when, work_once

from framewake.errors import InputError
from framewake.lasting import process_space
from framewake.service.binding import open_place
from framewake.service.refusals import Conflict
from framewake.service.storage import CLIP, LATENTS, PICTURE, Storage
from framewake.service.store import new_id
from framewake.service.strays import adopt, remove, strays, sweep
from framewake.service.tables import jobs
from framewake.service.worker import WorkerSettings


def lose(desk, *ids):
    """As an older database does not have them."""
    with desk.store.database.writing() as connection:
        connection.execute(delete(jobs).where(jobs.c.id.in_(ids)))


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_old_strays_are_put_aside_and_told(desk, picture, caplog):
    old, young, known = (submit(desk, picture) for _ in range(3))
    lose(desk, old, young)
    folder = desk.storage.job(old)
    (folder / CLIP).write_bytes(b"clip")
    before = content(folder)
    for job in (old, known):
        os.utime(desk.storage.job(job), (1, 1))
    (desk.storage.jobs / "notes of somebody").mkdir()
    with caplog.at_level(logging.WARNING):
        desk.sweep()
    assert content(desk.storage.stray(old)) == before and not folder.exists()
    assert desk.storage.ids() == sorted([young, known]) and (desk.storage.jobs / "notes of somebody").is_dir()
    assert old in caplog.text and "framewake jobs strays" in caplog.text and str(desk.storage.aside) in caplog.text
    assert {stray.id for stray in strays(desk.storage, desk.store)} == {old, young}


def test_links_are_moved_and_never_followed(desk, tmp_path):
    treasure = tmp_path / "treasure"
    treasure.mkdir()
    (treasure / CLIP).write_bytes(b"clip")
    job, gone = new_id("video"), new_id("video")
    desk.storage.job(job).symlink_to(treasure)
    (desk.storage.jobs / f".gone-{gone}").symlink_to(treasure)
    os.utime(desk.storage.job(job), (1, 1), follow_symlinks=False)
    desk.sweep()
    assert desk.storage.stray(job).is_symlink() and content(treasure) == {CLIP: b"clip"}
    assert [path.name for path in desk.storage.jobs.iterdir()] == []


@pytest.mark.parametrize("step", ["accepted", "placed"])
def test_a_folder_that_is_being_handed_in_is_left_alone(desk, picture, step):
    """Even when a clock is far ahead, and every folder looks old: the sweep waits for what is being recorded."""
    swept = []

    def sweep_now():
        for path in desk.storage.jobs.iterdir():
            os.utime(path, (1, 1))
        thread = threading.Thread(target=lambda: (desk.sweep(), swept.append(True)))
        thread.start()
        if step == "accepted":
            thread.join(timeout=60)
        return thread

    real, threads = Storage.place, []

    class Watched(Storage):
        def place(self, folder, job):
            if step == "accepted":
                os.utime(folder, (1, 1))
            else:
                real(self, folder, job)
                threads.append(sweep_now())  # it cannot end before this transaction does
                return
            real(self, folder, job)

    desk.storage = Watched(desk.storage.folder)
    job = submit(desk, picture)
    for thread in threads:
        thread.join(timeout=60)
    assert len(swept) == len(threads)
    desk.sweep()
    assert content(desk.storage.job(job)) == {PICTURE: picture}
    assert desk.storage.aside_ids() == []


def test_unfinished_hand_ins_of_dead_servers_are_removed(desk, picture):
    mine = desk.storage.accept(new_id("video"), picture)
    number = os.fork()
    if number == 0:
        os._exit(0)
    os.waitpid(number, 0)
    space = process_space()
    others = [
        desk.storage.jobs / f".new-{place}-{process}-{new_id('video')}"
        for place, process in ((space, number), ("ffffffffff", 1), ("ffffffffff", 2))
    ]
    for folder in others:
        shutil.copytree(mine, folder)
    os.utime(mine, (1, 1))
    os.utime(others[1], (1, 1))  # of another machine, or before this one was started again
    desk.sweep()
    assert mine.is_dir() and not others[0].exists() and not others[1].exists() and others[2].is_dir()


def test_what_could_not_be_recorded_leaves_nothing(desk, picture):
    """The folder has its name already when the record fails."""

    def fail(*_):
        raise SQLAlchemyError("away")

    class Failing(Storage):
        def place(self, folder, job):
            super().place(folder, job)
            fail()

    desk.storage = Failing(desk.storage.folder)
    with pytest.raises(SQLAlchemyError):
        submit(desk, picture)
    assert list(desk.storage.jobs.iterdir()) == [] and desk.store.counts() == {}


def test_a_kill_at_any_moment_of_a_removal(desk, picture):
    """Each life ends one file operation later; afterwards the video is there whole, or nothing of it is."""
    seen = set()
    for moment in range(1, 40):
        job = submit(desk, picture)
        desk.store.cancel(job)
        for index in range(3):
            (desk.storage.job(job) / f"file{index}").write_bytes(b"x" * 1000)
        before = content(desk.storage.job(job))
        ended = killed_at(moment, lambda job=job: remove(desk.store, desk.storage, job))
        desk.sweep()
        left = {path.name for path in desk.storage.jobs.iterdir()}
        with desk.store.comparing([job]) as known:
            is_known = job in known
        assert left == ({job} if is_known else set()) and desk.storage.aside_ids() == []
        if is_known:
            assert content(desk.storage.job(job)) == before
            remove(desk.store, desk.storage, job)
        seen.add(is_known)
        if not ended:
            break
    assert seen == {True, False} and moment > 5


def killed_at(moment, action):
    """Do something in another process, which is killed at its n-th file operation. Whether it was."""
    number = os.fork()
    if number == 0:
        left = [moment]

        def count(event, _arguments):
            if event in {"os.rename", "os.remove", "os.rmdir", "os.scandir", "os.listdir", "open", "shutil.rmtree"}:
                left[0] -= 1
                if left[0] == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        try:
            action()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(number, 0)[1])


def test_leftovers_of_older_removals_are_swept(desk, picture):
    """A removal that was begun is finished where its record is gone, and taken back where it is not."""
    gone, kept = new_id("video"), submit(desk, picture)
    shutil.copytree(desk.storage.job(kept), desk.storage.jobs / f".gone-{gone}")
    desk.storage.job(kept).rename(desk.storage.jobs / f".gone-{kept}")
    desk.sweep()
    assert [path.name for path in desk.storage.jobs.iterdir()] == [kept]


def test_a_clip_is_taken_in_again(desk, worker_of, picture):
    job = submit(desk, picture, num_inference_steps=3, guidance_scale=5)
    work_once(worker_of(desk))
    row, before = desk.store.get(job), content(desk.storage.job(job))
    lose(desk, job)
    os.utime(desk.storage.job(job), (1, 1))
    desk.sweep()
    (stray,) = strays(desk.storage, desk.store)
    assert stray.prompt == "the red circle moves left" and stray.holds == (CLIP, PICTURE)
    json.dumps(stray.to_dict())
    assert adopt(desk.storage, desk.store, job, owner="local") == "completed"
    again = desk.store.get(job)
    same = ("id", "owner", "state", "model", "width", "height", "step", "steps")
    assert [getattr(again, name) for name in same] == [getattr(row, name) for name in same]
    wanted, told = json.loads(row.request), json.loads(again.request)
    assert {name for name in wanted if wanted[name] != told[name]} <= {"precision"}
    assert content(desk.storage.job(job)) == before and strays(desk.storage, desk.store) == []
    with pytest.raises(InputError, match="no such stray"):
        adopt(desk.storage, desk.store, new_id("video"), owner="local")
    with pytest.raises(Conflict, match="knows a video"):
        adopt(desk.storage, desk.store, job, owner="local")


def test_an_unfinished_video_goes_on_after_it_was_taken_in(desk, worker_of, picture):
    whole, parts = (submit(desk, picture, num_inference_steps=40) for _ in range(2))
    worker = worker_of(desk, WorkerSettings(save_every=2))
    work_once(worker)
    watcher = when(desk, parts, lambda row: row.step >= 5, worker.stop.set)
    work_once(worker)
    watcher.join()
    lose(desk, parts)
    assert (desk.storage.job(parts) / LATENTS).is_file()
    assert adopt(desk.storage, desk.store, parts, owner="local") == "queued"
    work_once(worker_of(desk))
    assert desk.store.get(parts).state == "completed"
    clips = [(desk.storage.job(job) / CLIP).read_bytes() for job in (whole, parts)]
    assert clips[0] == clips[1]


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [(None, b"", "no clip and no saved latents"), (CLIP, b"nothing", "clip"), (LATENTS, b"PK nothing", "latents")],
)
def test_a_stray_that_says_nothing_stays_where_it_is(desk, picture, name, data, words):
    job = submit(desk, picture)
    lose(desk, job)
    if name is not None:
        (desk.storage.job(job) / name).write_bytes(data)
    before = content(desk.storage.job(job))
    with pytest.raises(InputError, match=words):
        adopt(desk.storage, desk.store, job, owner="local")
    assert content(desk.storage.job(job)) == before and desk.store.counts() == {}


def test_the_commands(toy, worker_of, desk, picture, command_here):
    jobs_made = [submit(desk, picture, seed=seed) for seed in range(2)]
    worker = worker_of(desk)
    for _ in jobs_made:
        work_once(worker)
    open_place(desk.storage.folder)
    lost = submit(desk, picture)
    place = ["--data", str(desk.storage.folder)]
    assert command_here("jobs", "strays", *place).stdout == "no strays\n"
    lose(desk, lost, *jobs_made[1:])
    listed = json.loads(command_here("jobs", "strays", "--json", *place).stdout)
    assert {stray["id"] for stray in listed} == {lost, jobs_made[1]}
    assert "name the strays" in command_here("jobs", "adopt", *place).stderr
    done = command_here("jobs", "adopt", "--all", *place)
    assert f"{jobs_made[1]}: completed" in done.stdout and done.returncode == 2
    assert "1 of 2 strays were not taken in" in done.stderr and desk.storage.job(lost).is_dir()
    assert desk.store.counts() == {"completed": 2}
    assert sweep(desk.storage, desk.store) is None
