"""kill -9 at any moment: the job goes on and the mp4 is, byte for byte, what an undisturbed run gives."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

from sqlalchemy import update
from test_worker import submit

from framewake.media.video import read_video
from framewake.pipeline.drafts import draft_path
from framewake.pipeline.latents import latents_path, load_latents
from framewake.service import tables
from framewake.service.storage import CLIP, PICTURE, PREVIEW, STORY, THUMBNAIL

# The whole measurement takes minutes: FRAMEWAKE_KILLS=30.
KILLS = int(os.environ.get("FRAMEWAKE_KILLS", "6"))
SEED = int(os.environ.get("FRAMEWAKE_KILLS_SEED", "1"))
STEPS = 30


class Resuming(threading.Thread):
    """Somebody who looks at drafts and lets their videos go on, at once."""

    def __init__(self, desk):
        super().__init__(daemon=True)
        self.desk, self.ended, self.drafts = desk, threading.Event(), {}

    def run(self):
        while not self.ended.wait(0.02):
            for row in self.desk.store.page(None, after=None, limit=100, order="asc"):
                if row.state == "paused":
                    draft = draft_path(self.desk.storage.job(row.id) / CLIP, row.drafted)
                    self.drafts.setdefault(row.drafted, set()).add(draft.read_bytes())
                    self.desk.store.go_on(row.id)


def check_files(folder: Path, want: bytes) -> None:
    """What people can see is whole at any time."""
    clip = folder / CLIP
    for draft in folder.glob("clip.draft-*.mp4"):
        assert read_video(draft)[0].shape == (5, 64, 64, 3)
    if clip.exists():
        assert clip.read_bytes() == want
    if latents_path(clip).exists():
        load_latents(latents_path(clip))


def test_nothing_is_lost(desk_of, database_url, toy, picture):
    desk = desk_of(database_url)
    jobs = [submit(desk, picture, num_inference_steps=STEPS)]
    command = [sys.executable, str(Path(__file__).with_name("killed_worker.py")), database_url]
    command += [str(desk.storage.folder), str(toy), str(KILLS), str(SEED)]
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]  # what the tests share
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, text=True, env=environment, **pipes)
    assert process.stdout.readline() == "undisturbed 0\n"
    want = (desk.storage.job(jobs[0]) / CLIP).read_bytes()
    jobs += [submit(desk, picture, num_inference_steps=STEPS, draft=draft) for draft in (None, 11, 20)]
    resuming = Resuming(desk)
    resuming.start()
    lives, stages = [], []
    while not lives or not lives[-1].startswith("last"):
        with desk.store.database.writing() as connection:  # the pauses after deaths would only make this longer
            connection.execute(update(tables.jobs).values(due=0))
        process.stdin.write("go\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, lives
        lives.append(line.strip())
        stages += [desk.store.get(job).stage for job in jobs if desk.store.get(job).state == "in_progress"]
        for job in jobs:
            check_files(desk.storage.job(job), want)
        if not lives[-1].startswith("last") and desk.store.counts().get("queued", 0) == 0:  # enough work for all kills
            jobs.append(submit(desk, picture, num_inference_steps=STEPS, draft=len(jobs)))
    process.stdin.close()
    assert process.wait() == 0
    resuming.ended.set()
    resuming.join()
    assert lives[-1] == "last 0"
    assert {11, 20} <= set(resuming.drafts) and all(len(found) == 1 for found in resuming.drafts.values())
    assert lives.count("killed") >= KILLS * 0.8, lives
    print(f"killed in: {stages}")  # noqa: T201 - how the kills were spread
    assert set(stages) & {"decode", "write"}, f"no life ended after the denoising: {stages}"
    rows = [desk.store.get(job) for job in jobs]
    assert {row.state for row in rows} == {"completed"}, [(row.state, row.error) for row in rows]
    desk.sweep()  # as the server does: a life may have ended while it tried whether it can write
    assert {path.name for path in (desk.storage.folder / "jobs").iterdir()} == set(jobs)
    for job in jobs:
        folder = desk.storage.job(job)
        assert (folder / CLIP).read_bytes() == want, f"{job} is not what an undisturbed run gives"
        others = {path.name for path in folder.iterdir() if not path.name.startswith("clip.draft-")}
        assert others <= {PICTURE, CLIP, THUMBNAIL, PREVIEW, STORY}
        assert read_video(folder / CLIP)[0].shape == (5, 64, 64, 3)
