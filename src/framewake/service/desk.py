"""The desk: where jobs are handed in, looked at and cancelled. API, page and commands all stand before it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from sqlalchemy import Row

from framewake.errors import InputError, about, nearest
from framewake.pipeline.jobs import Job, plan_job
from framewake.service.fields import VideoSettings, check_model, request_of
from framewake.service.guard import Limits, Rate
from framewake.service.pictures import check_pixels
from framewake.service.presence import Presence
from framewake.service.storage import PICTURE, Storage
from framewake.service.store import JobStore, NewJob, new_id
from framewake.service.tables import FINAL
from framewake.service.worker import LORAS
from framewake.weights.load import Checkpoint


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
        self.rate = Rate(limits.per_minute)

    @property
    def model(self) -> str:
        """The served checkpoint."""
        return self.checkpoint.settings.name

    def lora_names(self) -> list[str]:
        """LoRA files that may be asked for by name."""
        return [] if self.loras is None else sorted(path.stem for path in self.loras.glob("*.safetensors"))

    def submit(
        self, given: VideoSettings, owner: str, *, picture: bytes | None, callback: str | None = None
    ) -> Row[Any]:
        """Check everything and put a video into the queue.

        Raises: InputError, Refused, ResourceError.
        """
        check_model(given.model, self.model)
        if picture is not None:
            with about("image"):
                check_pixels(picture, self.limits.pixels)
        job = new_id("video")
        folder = self.storage.accept(job, picture)
        is_taken = False
        try:
            path = None if picture is None else str(folder / PICTURE)
            request = request_of(given, self.checkpoint.settings, picture=path)
            names = self._lora_files(given)
            request = dataclasses.replace(request, loras=tuple(f"{self.loras}/{name}" for name in names))
            plan = plan_job(Job(request), self.checkpoint)
            stored = dataclasses.replace(
                plan.request,
                image=None if picture is None else PICTURE,
                loras=tuple(f"{LORAS}/{name}" for name in names),
            )
            new = NewJob(job, owner, self.model, stored.to_dict(), plan.shape.width, plan.shape.height, callback)
            row = self.store.submit(new, most_queued=self.limits.queued)
            is_taken = True
            return row
        finally:
            if not is_taken:
                self.storage.drop(job)

    def delete(self, job: str, owner: str | None) -> Row[Any] | None:
        """Cancel a video that has not ended, and return it; forget any other, and return None.

        Raises: NotFound.
        """
        row = self.store.get(job, owner)
        if row.state not in FINAL:
            is_waiting = row.state == "queued"
            row = self.store.cancel(job, owner)
            if is_waiting:  # otherwise its worker clears what it is just writing
                self.storage.clear(job)
            return row
        self.store.remove(job, owner)
        self.storage.drop(job)
        return None

    def sweep(self) -> None:
        """Remove folders that a crash has left without a job."""
        strays = self.storage.strays()
        known: set[str] = set()
        for begin in range(0, len(strays), 500):
            known |= self.store.known(strays[begin : begin + 500])
        for job in set(strays) - known:
            self.storage.drop(job)

    def _lora_files(self, given: VideoSettings) -> list[str]:
        """File names with weights, as ``Request.loras`` wants them."""
        names, known = [], self.lora_names()
        for lora in given.lora or []:
            if lora.name not in known:
                offered = f"it has {', '.join(known)}" if known else "it has none"
                text = f"the server has no LoRA {lora.name!r}: {offered}.{nearest(lora.name, known)}"
                raise InputError(text, about="loras")
            names.append(f"{lora.name}.safetensors:{lora.scale:g}")
        return names
