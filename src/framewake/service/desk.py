"""The desk: where jobs are submitted, looked up and cancelled, by API, page and commands alike."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

from sqlalchemy import Row
from sqlalchemy.exc import SQLAlchemyError

from framewake.errors import FramewakeError, InputError, about, nearest
from framewake.pipeline.adapters import offered_loras
from framewake.pipeline.drafts import Drafts, check_drafts
from framewake.pipeline.jobs import Job, plan_job
from framewake.service.fields import VideoSettings, about_fields, check_model, fields_again, request_of
from framewake.service.guard import Limits, Rate
from framewake.service.outlook import Advisor
from framewake.service.pictures import check_pixels
from framewake.service.presence import Presence
from framewake.service.refusals import Conflict, NotFound
from framewake.service.repeats import Once
from framewake.service.storage import CLIP, PICTURE, Storage, digest_of
from framewake.service.store import JobStore, NewJob, new_id
from framewake.service.strays import remove, sweep
from framewake.service.tables import FINAL, WAITING
from framewake.service.worker import LORAS
from framewake.weights.checkpoint.load import Checkpoint


class Desk:
    """Everything that can be done with videos; ``owner`` None stands for the server's own people."""

    def __init__(
        self, store: JobStore, storage: Storage, checkpoint: Checkpoint, *, limits: Limits, loras: Path | None = None
    ) -> None:
        self.store = store
        self.storage = storage
        self.checkpoint = checkpoint
        self.limits = limits
        self.loras = loras
        self.presence = Presence(store)
        self.advisor = Advisor(checkpoint, self.presence)
        self.rate = Rate(limits.per_minute)

    @property
    def model(self) -> str:
        """The served checkpoint."""
        return self.checkpoint.settings.name

    def lora_names(self) -> list[str]:
        """LoRA files that may be asked for by name."""
        return list(self._offered())

    def _offered(self) -> dict[str, str]:
        return {} if self.loras is None else offered_loras(self.loras, self.checkpoint)

    @about_fields()
    def submit(
        self,
        given: VideoSettings,
        owner: str,
        *,
        picture: bytes | None,
        callback: str | None = None,
        once: Once | None = None,
        job: str | None = None,
        extends: str | None = None,
    ) -> Row[Any]:
        """Check everything and put a video into the queue under the id ``job``, or find what the request made before.

        Raises: InputError, Refused, ResourceError.
        """
        check_model(given.model, self.model)
        if picture is not None:
            with about("image"):
                check_pixels(picture, self.limits.pixels)
        job = job or new_id("video")
        folder = self.storage.accept(job, picture)
        try:
            path = None if picture is None else str(folder / PICTURE)
            request = request_of(given, self.checkpoint.settings, picture=path)
            names = self._lora_files(given)
            request = dataclasses.replace(request, loras=tuple(f"{self.loras}/{name}" for name in names))
            plan = plan_job(Job(request, keeps_size=extends is not None), self.checkpoint)
            check_drafts(Drafts(stop=given.draft), plan.request.steps)
            outlook = self.advisor.outlook(plan)
            stored = dataclasses.replace(
                plan.request,
                image=None if picture is None else PICTURE,
                loras=tuple(f"{LORAS}/{name}" for name in names),
            )
            new = NewJob(
                job,
                owner,
                self.model,
                stored.to_dict(),
                plan.made.width,
                plan.made.height,
                callback=callback,
                notes=outlook.notes,
                seconds=outlook.seconds,
                picture=None if picture is None else digest_of(picture),
                draft=given.draft,
                draft_size=given.draft_size,
                extends=extends,
            )
            row = self.store.submit(
                new, most_queued=self.limits.queued, once=once, before_end=lambda: self.storage.place(folder, job)
            )
        except BaseException:
            self._take_back(folder, job)
            raise
        if row.id != job:
            self._take_back(folder, job)
        return row

    def _take_back(self, folder: Path, job: str) -> None:
        """Remove what was not handed in after all; where the database cannot say, the sweep will find it."""
        shutil.rmtree(folder, ignore_errors=True)
        if self.storage.job(job).exists():
            with contextlib.suppress(SQLAlchemyError, FramewakeError), self.store.comparing([job]) as known:
                if not known:
                    self.storage.hide(job)
            self.storage.erase(job)

    def ended_clip(self, job: str, owner: str) -> tuple[dict[str, Any], bytes]:
        """The fields that made a finished video, for one that goes on from it with the next seed, and its clip.

        Raises: NotFound, Conflict when it is not finished.
        """
        row = self.store.get(job, owner)
        if row.state != "completed":
            raise Conflict(f"the video is {row.state}: only a completed one can go on.")
        try:
            return fields_again(json.loads(row.request)), (self.storage.job(job) / CLIP).read_bytes()
        except OSError as error:
            raise NotFound("there is no such file of this video.") from error

    def delete(self, job: str, owner: str | None) -> Row[Any] | None:
        """Cancel a video that has not ended, and return it; forget any other, and return None.

        Raises: NotFound.
        """
        if self.store.get(job, owner).state not in FINAL:
            return self.cancel(job, owner)
        remove(self.store, self.storage, job, owner=owner)
        return None

    def cancel(self, job: str, owner: str | None) -> Row[Any]:
        """Cancel a video that has not ended, and return it.

        Raises: NotFound, Conflict when it has ended.
        """
        is_waiting = self.store.get(job, owner).state in WAITING
        row = self.store.cancel(job, owner)
        if is_waiting:  # otherwise its worker clears what it is just writing
            with contextlib.suppress(OSError):  # what stays is cleared when the job is removed
                self.storage.clear(job)
        return row

    def sweep(self) -> None:
        """What a crash has left is tidied up."""
        sweep(self.storage, self.store)

    def _lora_files(self, given: VideoSettings) -> list[str]:
        """File names with weights, as ``Request.loras`` wants them."""
        names, known = [], self._offered()
        for lora in given.lora or []:
            if lora.name not in known:
                offered = f"it has {', '.join(known)}" if known else "it has none"
                text = f"the server has no LoRA {lora.name!r}: {offered}.{nearest(lora.name, known)}"
                raise InputError(text, about="loras")
            names.append(f"{known[lora.name]}:{lora.scale:g}")
        return names
