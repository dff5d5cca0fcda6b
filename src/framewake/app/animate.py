"""``framewake animate``: options into jobs, events onto the screen."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framewake.app.asked import KEPT, asked_crf, job_of, settings_of
from framewake.app.batches import BatchRun, making, numbered
from framewake.app.devices import own_group, parse_devices, variables
from framewake.app.joined import follow, leading
from framewake.app.longer import is_longer, lead_longer
from framewake.app.options import command_line, place_words
from framewake.app.render import Reporter, duration
from framewake.app.resume import go_on
from framewake.app.screen import how_to_go_on, reporter, resume_command, show, tell_draft, with_story
from framewake.app.start import start
from framewake.batch import read_batch
from framewake.console.escape import inline
from framewake.engine.contract import Engine
from framewake.errors import FramewakeError, InputError
from framewake.lasting import clear_abandoned
from framewake.media.video import read_metadata
from framewake.pipeline.checkpoint import open_whole
from framewake.pipeline.forecast import Forecast, gib, parse_memory
from framewake.pipeline.jobs import Job, Output, Plan, plan_job
from framewake.pipeline.latents import latents_path
from framewake.request import Request
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import Checkpoint


def animate(given: Mapping[str, Any]) -> int:
    """Make the clips that the options ask for, here, by processes that are started, or as one of them; the exit code.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C.
    """
    asked = None if given.get("devices") is None else parse_devices(given["devices"])
    group = own_group(asked)
    if group is not None and not group.leads:
        follow(group, named_checkpoint(given), given["engine"], memory=parse_memory(given["memory"]))
    elif group is None and asked is not None and asked.size > 1:
        command = [sys.executable, "-m", "framewake", *command_words(given)]
        return start(command, variables(asked, given["engine"]), asked.size, advice=lambda: saved_of(given))
    else:
        lead(given)
    return 0


def command_words(given: Mapping[str, Any]) -> list[str]:
    """The command that was called, ``animate`` or ``extend``, without the program's name."""
    if given.get("extends") is None:
        return shlex.split(command_line(given))[1:]
    options = shlex.split(command_line({**given, "prompt": None}))[2:]
    return ["extend", *options, "--", given["extends"], given["prompt"]]


def saved_of(given: Mapping[str, Any]) -> str:
    """How to go on with a clip that has a name and saved latents; "" for any other."""
    if given["output"] is None or not latents_path(path := Path(given["output"])).is_file():
        return ""
    output = Output(path, options=tuple(place_words(given, KEPT)))
    return f"What is saved is not lost: go on with `{resume_command(output)}`."


def lead(given: Mapping[str, Any]) -> None:
    """Make the clips, alone or as the first process of a group.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C.
    """
    memory = parse_memory(given["memory"])  # before a framework starts
    if is_longer(given):
        lead_longer(given)
        return
    if (given["from_latents"] is not None or (given["resume"] and given["batch"] is None)) and go_on(given):
        return
    like = {} if given["like"] is None else read_metadata(given["like"])
    job = None if given["batch"] is not None else job_of("animate", given, like)
    notes = []
    checkpoint = named_checkpoint(given)
    made_with = like.get("checkpoint", checkpoint.settings.name)
    if made_with != checkpoint.settings.name:
        notes.append(f"{given['like']} was made with {made_with!r}; {checkpoint.settings.name!r} gives another clip.")
    if job is None:
        animate_batch(given, like, checkpoint, notes)
        return
    plan = plan_job(job, checkpoint)
    if plan.output is not None:
        clear_abandoned(plan.output.path.parent)
    with leading(checkpoint, given["engine"], memory=memory) as pipeline:
        notes += memory_note(memory, pipeline.engine)
        screen, found = reporter(given, 1), pipeline.forecast(plan)
        tell_model(screen, checkpoint)
        screen.tell(plan_note(found) if given["verbose"] or given["json"] else plan_brief(plan, pipeline.engine, found))
        events = with_story(given, pipeline.run_all([plan]), plan.output, devices=pipeline.parts.devices)
        show(screen, notes, events, how_to_go_on([plan]), is_busy=pipeline.parts.lead.waits)
    tell_draft(screen, given, plan.output)


def named_checkpoint(given: Mapping[str, Any]) -> Checkpoint:
    """The checkpoint that the options name.

    Raises: CheckpointError, InputError.
    """
    return open_whole(given["checkpoint"] or "demo", parse_files(given["part"] or []))


def animate_batch(given: Mapping[str, Any], like: Mapping[str, Any], checkpoint: Checkpoint, notes: list[str]) -> None:
    """Make the clips of a batch; with ``--resume`` those that are missing.

    Raises: FramewakeError of any kind.
    """
    if given["story"]:
        raise InputError("--story is for a single clip: leave it out.")
    requests = read_batch(given["batch"], common=settings_of("animate", given, like))
    plans = plans_of(requests, checkpoint)
    batch = BatchRun(given, list(zip(requests, plans, strict=True)), checkpoint, crf=asked_crf(given, like))
    batch.begin()
    if not batch.plans:
        batch.notes.append("nothing is missing.")
    memory = parse_memory(given["memory"])
    failed: list[FramewakeError] = []
    count = batch.made + len(batch.plans)
    again = f"make what is missing with `{command_line(given, more=['--resume'])}`"

    def advice(done: int) -> str:
        return f"{batch.made + done} of {count} clips are made: {again}."

    screen = reporter(given, len(batch.plans))
    tell_model(screen, checkpoint)
    begin = time.monotonic()
    with leading(checkpoint, given["engine"], memory=memory) as pipeline:
        batch.notes += memory_note(memory, pipeline.engine)
        if given["verbose"]:
            for plan in batch.plans:
                screen.tell(plan_note(pipeline.forecast(plan)))
        clips = making(pipeline, batch, failed)
        show(screen, [*notes, *batch.notes], clips, advice, has_more=True, is_busy=pipeline.parts.lead.waits)
    screen.tell(batch_summary(batch, len(failed), time.monotonic() - begin))
    if failed:
        text = str(failed[0]).rstrip(".")
        failed[0].args = (f"{text}. {len(failed)} of {count} clips failed, the others are made: {again}.",)
        raise failed[0]


def plans_of(requests: Sequence[Request], checkpoint: Checkpoint) -> list[Plan]:
    """Plans of clips without a place: what can be refused is refused here, before a framework starts.

    Raises: InputError, CheckpointError, which say which clip of several it is.
    """
    plans = []
    for number, request in enumerate(requests, 1):
        with numbered(number, len(requests)):
            plans.append(plan_job(Job(request), checkpoint))
    return plans


def batch_summary(batch: BatchRun, failed: int, seconds: float) -> str:
    """What became of a batch, in a line."""
    made = f"{len(batch.plans) - failed} of {len(batch.plans)} clips made in {duration(seconds)}"
    before = f", {batch.made} made before" if batch.made else ""
    return f"{made}{before}{f', {failed} failed' if failed else ''}; all are in {inline(batch.folder)}/"


def tell_model(screen: Reporter, checkpoint: Checkpoint) -> None:
    """The one thing that surprises about the demonstration: its sizes have the names of the published ones."""
    settings = checkpoint.settings
    if settings.is_demo:
        name, side = next(iter(settings.resolutions.items()))
        screen.tell(f"Demonstration checkpoint: plain shapes, {name} is {side} px (--checkpoint: others)")


def memory_note(memory: int | None, engine: Engine) -> list[str]:
    """What to say of a limit that is none."""
    total = engine.memory()["total"]
    if memory is None or memory <= total:
        return []
    return [f"--memory {gib(memory)} is more than {engine.name} has in all ({gib(total)}), so it changes nothing."]


def plan_brief(plan: Plan, engine: Engine, found: Forecast) -> str:
    """A forecast as a line."""
    shape = plan.made
    told = f"{shape.frames} frames of {shape.width}x{shape.height} on {engine.name}"
    if found.seconds is not None:
        takes = f"{found.seconds:.0f} s" if found.seconds < 60 else duration(found.seconds)
        told += f", over {takes}: the machine is busy" if found.is_busy else f", about {takes}"
    return f"{told} (-v: more)"


def plan_note(found: Forecast) -> str:
    """A forecast as one text."""
    return "\n  ".join(["The plan:", *found.lines])
