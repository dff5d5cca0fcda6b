"""A worker: takes jobs from the queue one after another, on one engine with one checkpoint."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from framewake import pulse
from framewake.errors import DiskFullError, FramewakeError, PeerError
from framewake.lasting import clear_abandoned
from framewake.media.video import read_video
from framewake.pipeline.events import (
    Draft,
    Drafting,
    Event,
    Note,
    Result,
    Stage,
    StageStarted,
    Step,
    Tile,
    Written,
)
from framewake.pipeline.forecast import busy_since, taken
from framewake.pipeline.latents import latents_path
from framewake.pipeline.run import Pipeline
from framewake.pipeline.story import telling
from framewake.service.binding import is_bound
from framewake.service.database import DatabaseBroken, is_broken, reason
from framewake.service.devices import Forecaster, device_facts
from framewake.service.liveness import Watch
from framewake.service.making import (
    Goal,
    all_steps,
    begun,
    goal_of,
    is_made,
    last_place,
    told_step,
    waiting_draft,
    without_deaths,
)
from framewake.service.pausing import NOW
from framewake.service.pictures import write_preview, write_thumbnail
from framewake.service.presence import Presence, worker_name
from framewake.service.progress import LEAST, Remaining, without_done
from framewake.service.refusals import NotFound, public_error, without_paths
from framewake.service.storage import CLIP, PREVIEW, THUMBNAIL, Storage
from framewake.service.store import MOST_DEATHS, JobStore, Lease, LeaseLost

log = logging.getLogger("framewake.worker")

BEAT_SECONDS = 2.0
IDLE_SECONDS = 0.3
PREVIEW_SECONDS = 0.5
TELL_SECONDS = 0.2  # between two words to the database about a file that is being written
PAUSE_SECONDS = 30.0  # before a job is tried again that found the disk full
AWAY_SECONDS, WARN_SECONDS = 1.0, 60.0  # between two questions to a database that does not answer, and two warnings
LOAD_CHANGE = 0.1  # of the processors' share that other programs take
LORAS = "loras"  # a link in a job's folder, so that no path of the server gets into a clip

# Not what is wrong with a job: somebody wants this process to end.
ENDS = (KeyboardInterrupt, SystemExit, GeneratorExit)


class FolderMissing(FramewakeError):
    """A job's folder is not where it should be."""


class Stopped(Exception):
    """The worker was asked to end."""


@dataclass(frozen=True)
class WorkerSettings:
    """How a worker works. Units: ``save_every`` in steps."""

    save_every: int = 5
    beat_seconds: float = BEAT_SECONDS
    pause_seconds: float = PAUSE_SECONDS
    loras: Path | None = None


class Worker:
    """One process that makes clips. It changes its working folder to that of the job."""

    def __init__(
        self, store: JobStore, storage: Storage, pipeline: Pipeline, settings: WorkerSettings | None = None
    ) -> None:
        self.store = store
        self.storage = storage
        self.pipeline = pipeline
        self.settings = settings or WorkerSettings()
        self.presence = Presence(store)
        self.name = worker_name()
        self.stop = threading.Event()
        self._lease: Lease | None = None
        self._lost = threading.Event()
        self._warned = -WARN_SECONDS
        self._is_pausing = False
        self._facts: dict[str, Any] | None = None
        self._load = taken()
        self._left = Remaining()

    @property
    def model(self) -> str:
        """The name of the checkpoint: only jobs for it are taken."""
        return self.pipeline.checkpoint.settings.name

    def run(self, watch: Watch | None = None) -> None:
        """Work until ``stop`` is set; the job at hand is saved and given back within a step.

        ``watch`` ends this process when the work hangs.
        Raises: PeerError where this process is one of several, and they can work together no more.
        """
        self._insist(self._beat)
        self._describe()
        if watch is not None:
            watch.start()
        beating = threading.Thread(target=self._keep_beating, daemon=True)
        beating.start()
        while not self.stop.is_set():
            pulse.beat()
            taken = self._insist(self._next)
            if taken is None:
                self.stop.wait(IDLE_SECONDS)
                continue
            self.work(*taken)
            self.pipeline.parts.lead.check()
        beating.join(timeout=5)
        with contextlib.suppress(SQLAlchemyError):
            self.presence.leave(self.name)

    def _next(self) -> tuple[Lease, Row[Any]] | None:
        self.presence.bury()
        return self.store.claim(self.name, self.model) if self.storage.has_room() else None

    def _insist(self, action: Callable[[], Any]) -> Any:
        """Ask the database until it answers: it may be starting, locked for long, or on a full disk.

        A worker that is asked to end asks once more and then goes, with None: its job is taken over.

        Raises: DatabaseBroken where that would not help.
        """
        while True:
            pulse.beat()
            is_last = self.stop.is_set()
            try:
                return action()
            except SQLAlchemyError as error:
                if is_broken(error):
                    raise DatabaseBroken(f"the database cannot be used any more ({reason(error)}).") from error
                self._warn_of(error)
            if is_last:
                return None
            self.stop.wait(AWAY_SECONDS)

    def work(self, lease: Lease, job: Row[Any]) -> None:
        """Make one clip, whatever becomes of it."""
        self._lost.clear()
        self._lease = lease
        log.info("%s: begun, claim %d", lease.job, lease.number)
        try:
            step = self._make(lease, job)
            if step is None:
                self._insist(lambda: self.store.end(lease, "completed"))
                log.info("%s: completed", lease.job)
            else:
                self._insist(lambda: self.store.hold(lease, step))
                log.info("%s: paused after step %d, with a draft", lease.job, step)
        except LeaseLost:
            self._tidy(lease)
        except Stopped:
            self._give_back(lease)
        except (DatabaseBroken, PeerError):  # another process of this worker's: whoever comes next takes the job over
            raise
        except FolderMissing as error:
            self._wait_for_folder(lease, job, error)
        # One job's data may raise anything, also a panic in Rust, which is no Exception: it is that job's failure.
        except BaseException as error:
            if isinstance(error, ENDS):
                raise
            if isinstance(error, DiskFullError) or getattr(error, "errno", None) == errno.ENOSPC:
                self._pause(lease, error)
            elif not self.storage.job(lease.job).is_dir():  # a disk was taken away meanwhile
                self._wait_for_folder(lease, job, error)
            else:
                self._fail(lease, error)
        finally:
            self._lease = None
            os.chdir(self.storage.folder)

    # --- one job

    def _make(self, lease: Lease, job: Row[Any]) -> int | None:
        """Make the clip; the value is the step of the draft with which the job pauses before that, if it does."""
        folder = self.storage.job(lease.job)
        if not folder.is_dir():
            raise FolderMissing("the files of this video are not in the data folder.")
        os.umask(0o077)  # pictures and clips are nobody else's business
        os.chdir(folder)  # every path in requests, clips and errors is relative to it
        clear_abandoned(Path())
        if self.settings.loras is not None and not Path(LORAS).is_symlink():
            Path(LORAS).symlink_to(self.settings.loras)
        if not is_made(self.pipeline, job):  # a worker may have died between the clip and the word that it is made
            self._is_pausing = job.draft == NOW
            held = waiting_draft(job)
            if held is not None:
                return held
            Path(PREVIEW).unlink(missing_ok=True)
            every = self.settings.save_every
            goal = goal_of(self.pipeline, job, save_every=every, is_asked=lambda: self._is_pausing)
            made, step = begun(self.pipeline, goal)
            events = telling(made, Path(CLIP), devices=self.pipeline.parts.devices, is_resumed=True)
            self._left = Remaining(self._stages(goal, step))
            self._report(lease, {"step": step, **all_steps(goal)})
            with contextlib.closing(events):
                held = self._follow(events, lease, goal)
            if held is not None:
                return held
        if not Path(THUMBNAIL).is_file() or not Path(THUMBNAIL).stat().st_size:
            write_thumbnail(Path(THUMBNAIL), read_video(Path(CLIP))[0])
        latents_path(Path(CLIP)).unlink(missing_ok=True)
        return None

    def _stages(self, goal: Goal, step: int) -> Mapping[Stage, float]:
        """Seconds by stage behind a step, by what was measured when this worker began; nothing where it is unknown."""
        if self._facts is None or isinstance(goal.plan, FramewakeError):
            return {}
        try:
            found = Forecaster(self.pipeline.checkpoint).forecast(goal.plan, self._facts)
            return without_done(found.stages, goal.plan, step)
        except FramewakeError:  # the run itself says so, or goes on from saved latents where nothing has to fit
            return {}

    def _follow(self, events: Iterator[Event], lease: Lease, goal: Goal) -> int | None:
        shown = told = 0.0
        held: int | None = None
        last = last_place(goal.job)
        left = self._left
        for event in events:
            pulse.beat()
            left.follow(event)
            if not isinstance(event, Result):  # with it, all is done
                self._check()
            match event:
                case Note(text):
                    log.info("%s: %s", lease.job, text)
                    self._note(lease, without_paths(text))
                case StageStarted(stage):
                    values = {"stage": stage, "seconds_left": left.seconds(), **without_deaths(last, stage, 0)}
                    self._report(lease, values)
                case Step(index):
                    if time.monotonic() - shown > PREVIEW_SECONDS:
                        write_preview(Path(PREVIEW), event.preview)
                        shown = time.monotonic()
                    self._report(lease, {"seconds_left": left.seconds(), **told_step(goal, last, left.stage, index)})
                case Tile():
                    self._report(lease, {"seconds_left": left.seconds()})
                case Draft(step):
                    write_preview(Path(PREVIEW), event.frames[len(event.frames) // 2])
                    held = step if event.is_end else held
                case Written() | Drafting():
                    if time.monotonic() - told > TELL_SECONDS:
                        self._report(lease, {"seconds_left": left.seconds()})
                        told = time.monotonic()
                case Result():
                    self._report(lease, {"step": event.metadata["request"]["steps"], "seconds_left": LEAST})
                    write_thumbnail(Path(THUMBNAIL), event.frames)  # reading a long clip again takes seconds
        return held

    def _check(self) -> None:
        """Whether to go on.

        Raises: LeaseLost, Stopped, DiskFullError.
        """
        if self._lost.is_set():
            raise LeaseLost("the job is no longer ours.")
        if self.stop.is_set():
            raise Stopped
        self.storage.check_reserve()

    def _report(self, lease: Lease, values: Mapping[str, Any]) -> None:
        """Progress is worth no work: a database that is away is told later.

        Raises: LeaseLost.
        """
        found = self._try(lambda: self.store.report(lease, values))
        self._is_pausing = self._is_pausing if found is None else found

    def _note(self, lease: Lease, text: str) -> None:
        self._try(lambda: self.store.note(lease, text))

    def _try(self, action: Callable[[], bool | None]) -> bool | None:
        try:
            return action()
        except SQLAlchemyError as error:
            self._warn_of(error)
            return None

    def _give_back(self, lease: Lease) -> None:
        with contextlib.suppress(LeaseLost):
            self._insist(lambda: self.store.release(lease))
            log.info("%s: saved and given back", lease.job)

    def _pause(self, lease: Lease, error: BaseException) -> None:
        """The disk is full: the job waits, with what it has saved."""
        log.warning("%s: waiting for room on the disk: %s", lease.job, error)
        with contextlib.suppress(LeaseLost):
            self._insist(lambda: self.store.release(lease, seconds=self.settings.pause_seconds))

    def _wait_for_folder(self, lease: Lease, job: Row[Any], error: BaseException) -> None:
        """Another worker may have the folder, or a disk come back: only after a while the job fails."""
        deaths = job.deaths if isinstance(job.deaths, int) else 0
        if self._insist(lambda: is_bound(self.storage, self.store.database)):
            deaths += 1
        if deaths >= MOST_DEATHS:
            self._fail(lease, error)
            return
        log.error("%s: its folder is not in %s; waiting for it", lease.job, self.storage.folder)
        with contextlib.suppress(LeaseLost):
            self._insist(lambda: self.store.release(lease, seconds=self.settings.pause_seconds, deaths=deaths))

    def _fail(self, lease: Lease, error: BaseException) -> None:
        log.error("%s: failed", lease.job, exc_info=error)
        code, message = public_error(error)
        told = message.encode("utf-8", "replace").decode().replace("\0", " ")  # what databases cannot keep
        try:
            self._insist(lambda: self.store.end(lease, "failed", code=code[:60], error=told))
        except LeaseLost:
            self._tidy(lease)

    def _tidy(self, lease: Lease) -> None:
        """Somebody cancelled or removed the job while its files were being written."""
        log.info("%s: stopped, no longer ours", lease.job)
        os.chdir(self.storage.folder)
        try:
            row = self._insist(lambda: self.store.get(lease.job))
            if row is not None and row.state == "cancelled":
                with contextlib.suppress(OSError):  # what stays is cleared when the job is removed
                    self.storage.clear(lease.job)
        except NotFound:  # removed: its folder was taken away, but what was being written may have kept it
            self.storage.erase(lease.job)

    # --- signs of life

    def _beat(self) -> None:
        self.presence.beat(self.name, model=self.model, engine=self.pipeline.engine.name)

    def _describe(self) -> None:
        """Tell what this device is like, so that the page can say what a video will take."""
        try:
            self._facts = device_facts(self.pipeline)
            self.presence.describe(self.name, self._facts)
        except Exception as error:  # noqa: BLE001 - a forecast's figures are worth no worker
            log.warning("nothing is known of this device's speed: %s", error)

    def _tell_load(self) -> None:
        """Tell how much of the processors other programs take, when that has changed: forecasts say it."""
        before, self._load = self._load, taken()
        if self._facts is None or not self._facts["traits"]["is_host"]:
            return
        busy, told = busy_since(before), self._facts["rates"].get("busy_now", 0.0)
        if abs(busy - told) > LOAD_CHANGE:
            self._facts["rates"]["busy_now"] = busy
            self.presence.describe(self.name, self._facts)

    def _keep_beating(self) -> None:
        """Long steps are no reason to lose a job; a cancelled one is noticed here too."""
        while not self.stop.wait(self.settings.beat_seconds):
            try:
                self._beat()
                self._tell_load()
                lease = self._lease
                if lease is not None:
                    left = self._left.seconds()
                    self.store.report(lease, {} if left is None else {"seconds_left": left})
            except LeaseLost:
                if self._lease == lease:
                    self._lost.set()
            except Exception as error:  # noqa: BLE001 - without beats, a living worker is taken for dead
                self._warn_of(error)

    def _warn_of(self, error: BaseException) -> None:
        """Say now and then that the database does not answer."""
        if time.monotonic() - self._warned > WARN_SECONDS:
            self._warned = time.monotonic()
            log.warning("the database does not answer; work goes on: %s", reason(error))
