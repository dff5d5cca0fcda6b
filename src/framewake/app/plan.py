"""``framewake plan``: what a clip will take on this machine, without making it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from framewake import engine as engines
from framewake.app.animate import memory_note, plan_note, plans_of
from framewake.app.asked import asked_crf, job_of, settings_of
from framewake.app.devices import parse_devices
from framewake.batch import read_batch
from framewake.console.wrapping import fitted
from framewake.errors import InputError, ResourceError
from framewake.media.video import read_metadata
from framewake.pipeline.checkpoint import open_whole
from framewake.pipeline.forecast import Forecast, about, parse_memory
from framewake.pipeline.jobs import Plan, plan_job
from framewake.pipeline.longer import count_frames
from framewake.pipeline.run import Pipeline
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import Checkpoint


def plan(given: Mapping[str, Any]) -> None:
    """Print the forecast of every clip that the options ask for; nothing is loaded, nothing is made.

    Raises: FramewakeError of any kind; ResourceError when a clip cannot fit.
    """
    if given["from_latents"] is not None or given["resume"]:
        raise InputError("plan looks at clips that are still to be made: leave out --from-latents and --resume.")
    memory = parse_memory(given["memory"])
    devices = 1 if given["devices"] is None else parse_devices(given["devices"]).size
    like = {} if given["like"] is None else read_metadata(given["like"])
    job, requests = None, []
    if given["batch"] is None:
        job = job_of("plan", given, like)
    else:
        asked_crf(given, like)
        requests = read_batch(given["batch"], common=settings_of("plan", given, like))
    checkpoint = open_whole(given["checkpoint"] or "demo", parse_files(given["part"] or []))
    # A batch's folder need not be there yet.
    plans = plans_of(requests, checkpoint) if job is None else [plan_job(job, checkpoint)]
    pipeline = Pipeline(checkpoint, engines.get(given["engine"]), memory=memory)
    for note in memory_note(memory, pipeline.engine):
        sys.stderr.write(fitted(f"Note: {note}", sys.stderr) + "\n")
    for each in plans:
        alone = one_device(pipeline, each) if devices > 1 else None
        pipeline.parts.devices = devices  # which are not started for this
        found = pipeline.forecast(each)
        if given["json"]:
            record = {
                "device_peak": found.device_peak,
                "host_peak": found.host_peak,
                "seconds_per_step": found.step_seconds,
                "seconds": found.seconds,
                "placements": {name: place._asdict() for name, place in found.placements.items()},
                "lines": list(found.lines),
            }
            if devices > 1:
                record |= {"devices": devices, "seconds_alone": None if alone is None else alone.seconds}
                record["links"] = None if found.links is None else found.links._asdict()
            sys.stdout.write(json.dumps(record) + "\n")
        else:
            note = plan_note(found) + ("" if devices == 1 else f"\n  {beside(alone)}")
            note += f"\n  {in_a_row(found, 1 + len(given['then']), each, checkpoint)}" if given["then"] else ""
            sys.stdout.write(fitted(note, sys.stdout, indent="  ") + "\n")


def one_device(pipeline: Pipeline, plan: Plan) -> Forecast | None:
    """The forecast of a clip that one device makes, None where it does not fit."""
    pipeline.parts.devices = 1
    try:
        return pipeline.forecast(plan)
    except ResourceError:
        return None


def in_a_row(found: Forecast, count: int, plan: Plan, checkpoint: Checkpoint) -> str:
    """The line that says what several segments like this one take."""
    frames = count_frames([plan] * count, checkpoint)
    time = "" if found.seconds is None else f", about {about(count * found.seconds)} in all"
    return f"{count} segments like this, one after another: {frames} frames{time}, and the memory of one"


def beside(alone: Forecast | None) -> str:
    """The line that sets several devices against one."""
    if alone is None:
        return "one device alone: it does not fit"
    if alone.step_seconds is None or alone.seconds is None:
        return "one device alone: its time is unknown"
    return f"one device alone: about {about(alone.step_seconds)} a step, {about(alone.seconds)} in all"
