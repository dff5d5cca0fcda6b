"""``framewake animate``: options into jobs, events onto the screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from framewake import engine as engines
from framewake.app.asked import asked_crf, jobs_of, requests_of
from framewake.app.batches import BatchRun, making
from framewake.app.launch import refuse_copies
from framewake.app.options import command_line
from framewake.app.resume import go_on
from framewake.app.screen import how_to_go_on, reporter, show
from framewake.engine.contract import Engine
from framewake.errors import FramewakeError
from framewake.lasting import clear_abandoned
from framewake.media.video import read_metadata
from framewake.pipeline.checkpoint import open_whole
from framewake.pipeline.forecast import Forecast, gib, parse_memory
from framewake.pipeline.jobs import Job, plan_job
from framewake.pipeline.run import Pipeline
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import Checkpoint


def animate(given: Mapping[str, Any]) -> None:
    """Make the clips that the options ask for.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C.
    """
    refuse_copies()
    memory = parse_memory(given["memory"])  # before a framework starts
    if (given["from_latents"] is not None or (given["resume"] and given["batch"] is None)) and go_on(given):
        return
    like = {} if given["like"] is None else read_metadata(given["like"])
    jobs = [] if given["batch"] is not None else jobs_of("animate", given, like)
    notes = []
    if given["checkpoint"] is None:
        notes.append("no checkpoint was named, so the small embedded demonstration checkpoint is used (--checkpoint).")
    checkpoint = open_whole(given["checkpoint"] or "demo", parse_files(given["part"] or []))
    made_with = like.get("checkpoint", checkpoint.settings.name)
    if made_with != checkpoint.settings.name:
        notes.append(f"{given['like']} was made with {made_with!r}; {checkpoint.settings.name!r} gives another clip.")
    if given["batch"] is not None:
        animate_batch(given, like, checkpoint, notes)
        return
    check_jobs(jobs, checkpoint)
    for job in jobs:
        if job.output is not None:
            clear_abandoned(job.output.path.parent)
    pipeline = Pipeline(checkpoint, engines.get(given["engine"]), memory=memory)
    notes += [*memory_note(memory, pipeline.engine), plan_note(pipeline.forecast(jobs[0]))]
    show(reporter(given, 1), notes, pipeline.run_all(jobs), how_to_go_on(jobs))


def animate_batch(given: Mapping[str, Any], like: Mapping[str, Any], checkpoint: Checkpoint, notes: list[str]) -> None:
    """Make the clips of a batch; with ``--resume`` those that are missing.

    Raises: FramewakeError of any kind.
    """
    requests = requests_of("animate", given, like)
    check_jobs([Job(request) for request in requests], checkpoint)
    batch = BatchRun(given, requests, checkpoint, crf=asked_crf(given, like))
    check_jobs(batch.jobs, checkpoint)
    batch.begin()
    if not batch.jobs:
        batch.notes.append("nothing is missing.")
    memory = parse_memory(given["memory"])
    pipeline = Pipeline(checkpoint, engines.get(given["engine"]), memory=memory)
    batch.notes += memory_note(memory, pipeline.engine)
    failed: list[FramewakeError] = []
    count = batch.made + len(batch.jobs)
    again = f"make what is missing with `{command_line(given, more=['--resume'])}`"

    def advice(done: int) -> str:
        return f"{batch.made + done} of {count} clips are made: {again}."

    screen = reporter(given, len(batch.jobs))
    show(screen, [*notes, *batch.notes], making(pipeline, batch, failed), advice, has_more=True)
    if failed:
        text = str(failed[0]).rstrip(".")
        failed[0].args = (f"{text}. {len(failed)} of {count} clips failed, the others are made: {again}.",)
        raise failed[0]


def check_jobs(jobs: Sequence[Job], checkpoint: Checkpoint) -> None:
    """Everything that can be refused is refused here, before a framework starts; of several, the number is said.

    Raises: InputError, CheckpointError.
    """
    for number, job in enumerate(jobs, 1):
        try:
            plan_job(job, checkpoint)
        except FramewakeError as error:
            if len(jobs) > 1:
                error.args = (f"clip {number} of {len(jobs)}: {error}",)
            raise


def memory_note(memory: int | None, engine: Engine) -> list[str]:
    """What to say of a limit that is none."""
    total = engine.memory()["total"]
    if memory is None or memory <= total:
        return []
    return [f"--memory {gib(memory)} is more than {engine.name} has in all ({gib(total)}), so it changes nothing."]


def plan_note(found: Forecast) -> str:
    """A forecast as one text."""
    return "\n  ".join(["The plan:", *found.lines])
