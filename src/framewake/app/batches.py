"""``framewake animate --batch``: many clips, and with ``--resume`` the missing ones.

Beside the clips lies a record: for each line its seed and its clip's name, written before any work starts. Which clips
are made, and how far one is that was being made, is seen from the files themselves.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from framewake.app.asked import output_of
from framewake.app.options import command_line
from framewake.app.outputs import free_path
from framewake.errors import CheckpointError, FramewakeError, InputError, NumericsError, UnwritableError
from framewake.lasting import clear_abandoned, read_record, write_record
from framewake.media.mp4 import count_frames
from framewake.media.output import ENDINGS
from framewake.media.video import read_metadata
from framewake.pipeline.events import Event, Note, Result, StageStarted
from framewake.pipeline.finish import clip_frames
from framewake.pipeline.jobs import Output, Plan, placed, request_from
from framewake.pipeline.latents import SavedLatents, latents_path, load_latents, old_latents_path
from framewake.pipeline.origin import other_settings, part_sources
from framewake.pipeline.run import Pipeline
from framewake.request import Request, from_dict
from framewake.weights.checkpoint.load import Checkpoint

FORMAT = "framewake batch 1"
# What is wrong with one clip; anything else, such as a full disk, would stop the next one too.
OF_ONE_CLIP = (NumericsError, CheckpointError)


class RecordedClip(NamedTuple):
    """What the record holds of a line; ``key`` tells what it asks for from anything else."""

    key: str
    seed: int
    name: str


class BatchRun:
    """Finds a clip for each line: one that was made or begun before, or a new one.

    ``plans`` are of the clips that are still to be made, ``saved`` are their latents, and what was asked for, by
    output; ``made`` is how many clips are there already, and ``notes`` are for a person.
    Raises: InputError for a folder or a place in it that cannot be used, and a record that is damaged or of another
    checkpoint.
    """

    def __init__(
        self, given: Mapping[str, Any], lines: Sequence[tuple[Request, Plan]], checkpoint: Checkpoint, *, crf: int
    ) -> None:
        self.given, self.checkpoint, self.crf = given, checkpoint, crf
        self.folder = batch_folder(given)
        self.plans: list[Plan] = []
        self.saved: dict[Path, tuple[SavedLatents, Request]] = {}
        self.notes: list[str] = []
        self.made = 0
        self._sources = part_sources(checkpoint)
        self._entries: list[RecordedClip] = []
        self._left = self._read()
        self._taken = [self.folder / entry.name for entry in self._left]
        keys = [self._key(request, plan) for request, plan in lines]
        if not given["resume"]:
            self._begin_anew(keys)
        elif not self._left:
            self.notes.append(f"nothing of this batch was begun in {self.folder.absolute()}: beginning at its start.")
        goals = [goal for key, line in zip(keys, lines, strict=True) if (goal := self._place(key, *line)) is not None]
        for number, (plan, output) in enumerate(goals, 1):
            with numbered(number, len(goals)):
                self.plans.append(placed(plan, output, seed=plan.request.seed))
        if self.made:
            self.notes.append(f"{self.made} of {len(lines)} clips are made already.")

    def begin(self) -> None:
        """Write the record, once everything is checked: from now on the batch can go on whatever happens.

        Raises: UnwritableError, DiskFullError.
        """
        clear_abandoned(self.folder)
        others = [entry for entry in self._left if self._is_begun(entry)]  # of lines that were changed or taken out
        clips = [entry._asdict() for entry in (*others, *self._entries)]
        write_record(self._record(), {"format": FORMAT, "sources": self._sources, "clips": clips})

    def _record(self) -> Path:
        return self.folder / f".{Path(self.given['batch']).name}.framewake"

    def _read(self) -> list[RecordedClip]:
        path = self._record()
        if not path.exists():
            return []
        try:
            record = read_record(path)
            if not isinstance(record, dict) or record.get("format") != FORMAT:
                raise InputError(f"{path} was written by another version.")
            found = [RecordedClip(str(clip["key"]), int(clip["seed"]), str(clip["name"])) for clip in record["clips"]]
            if any(Path(entry.name).name != entry.name for entry in found):
                raise InputError(f"{path} names clips outside of its folder.")
        except (InputError, KeyError, TypeError, ValueError) as error:
            if not self.given["resume"]:
                return []
            raise InputError(
                f"{error} Which clips of the batch are made cannot be told: delete it, take the finished lines out of "
                "the batch file, and leave out --resume."
            ) from error
        if self.given["resume"] and record.get("sources") != self._sources:
            raise InputError(
                f"the batch in {self.folder.absolute()} was begun with other weights: name its checkpoint with "
                "--checkpoint, or leave out --resume to make all clips anew."
            )
        return found

    def _key(self, request: Request, plan: Plan) -> str:
        """What a line asks for: settings, and the content of its files, wherever they lie."""
        values = request.to_dict() | {"image": None, "loras": None, "crf": self.crf}
        values |= {"sources": plan.sources(), "has_metadata": not self.given["no_metadata"]}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def _begin_anew(self, keys: Sequence[str]) -> None:
        if any(entry.key in keys for entry in self._left):
            again = command_line(self.given, more=["--resume"])
            self.notes.append(f"this batch was begun before and begins anew; `{again}` makes what is missing of it.")
        self._left = [entry for entry in self._left if entry.key not in keys]

    def _place(self, key: str, asked: Request, plan: Plan) -> tuple[Plan, Output] | None:
        """Find or choose the clip of a line; None when it is there."""
        entry = next((entry for entry in self._left if entry.key == key), None)
        if entry is None:
            path = free_path(plan.request, self.folder, taken=self._taken)
        else:
            self._left.remove(entry)
            path = self.folder / entry.name
            asked = dataclasses.replace(asked, seed=entry.seed)
            plan = dataclasses.replace(plan, request=dataclasses.replace(plan.request, seed=entry.seed))
            if path.exists():
                others, damage = self._look(path, asked, plan)
                if not others and not damage:
                    self._entries.append(entry)
                    self.made += 1
                    return None
                if others:  # somebody's own clip by now
                    path = free_path(plan.request, self.folder, taken=self._taken)
                why = others or damage
                self.notes.append(f"{self.folder / entry.name} is not the clip that is meant ({why}): making {path}.")
        self._taken.append(path)
        self._entries.append(RecordedClip(key, plan.request.seed, path.name))
        self._find_latents(path, dataclasses.replace(asked, seed=plan.request.seed))
        return plan, output_of(self.given, path, self.crf)

    def _look(self, path: Path, asked: Request, plan: Plan) -> tuple[str, str]:
        """What differs in a clip from what is asked for, and what is damaged."""
        try:
            count, want = count_frames(path), clip_frames(plan.shape.frames, self.checkpoint.dit)
            if self.given["no_metadata"]:
                others = []
            else:
                others = other_settings(asked, from_dict(request_from(read_metadata(path))))
        except InputError as error:
            return "", str(error).rstrip(".")
        return "; ".join(others), "" if count == want else f"{count} of {want} frames are there"

    def _find_latents(self, path: Path, asked: Request) -> None:
        for file in (latents_path(path), old_latents_path(path)):
            if self.given["resume"] and file.is_file():
                try:
                    self.saved[path] = load_latents(file), asked
                except InputError as error:
                    self.notes.append(f"{str(error).rstrip('.')}: {path} begins anew.")

    def _is_begun(self, entry: RecordedClip) -> bool:
        path = self.folder / entry.name
        return path.exists() or latents_path(path).exists()


def batch_folder(given: Mapping[str, Any]) -> Path:
    """The folder of a batch's clips, made where it is missing.

    Raises: InputError.
    """
    folder = Path(given["output"] or "")
    if not folder.is_dir() and folder.suffix.lower() in ENDINGS:
        raise InputError(f"with --batch, -o names the folder for all clips, and {folder} is the name of a file.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"with --batch, -o names the folder for all clips, and {folder} cannot be one ({error.strerror})."
        ) from error
    return folder


def making(pipeline: Pipeline, batch: BatchRun, failed: list[FramewakeError]) -> Generator[Event, None, None]:
    """The clips of a batch that are still to be made, those that were begun first; what fails is put into ``failed``.

    Raises: FramewakeError for what would stop the other clips too.
    """
    rest = []
    for plan in batch.plans:
        output = plan.output
        if output is None or output.path not in batch.saved:
            rest.append(plan)
            continue
        saved, asked = batch.saved[output.path]
        try:
            yield from pipeline.resume(saved, output, request=asked, plan=plan)
            latents_path(output.path).unlink(missing_ok=True)
        except UnwritableError:
            raise
        except InputError as error:
            yield Note(f"{output.path} begins anew: {error}")
            rest.append(plan)
        except OF_ONE_CLIP as error:
            failed.append(error)
            yield Note(f"{output.path} failed, the others are made: {error}")
    while rest:
        begun = done = 0
        try:
            for event in pipeline.run_all(rest):
                begun += isinstance(event, StageStarted) and event.stage == "encode image"
                done += isinstance(event, Result)
                yield event
            return
        except OF_ONE_CLIP as error:
            if begun <= done:  # before the stages of one clip: whose fault it is cannot be told
                raise
            failed.append(error)
            output = rest[done].output
            yield Note(f"{'a clip' if output is None else output.path} failed, the others are made: {error}")
            rest = rest[done + 1 :]


@contextlib.contextmanager
def numbered(number: int, count: int) -> Iterator[None]:
    """Of several clips, errors say whose they are."""
    try:
        yield
    except FramewakeError as error:
        if count > 1:
            error.args = (f"clip {number} of {count}: {error}",)
        raise
