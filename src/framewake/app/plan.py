"""``framewake plan``: what a clip will take on this machine, without making it."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from framewake import engine as engines
from framewake.app.animate import memory_note, plan_note, plans_of
from framewake.app.asked import asked_crf, job_of, settings_of
from framewake.batch import read_batch
from framewake.console.wrapping import fitted
from framewake.errors import InputError
from framewake.media.video import read_metadata
from framewake.pipeline.checkpoint import open_whole
from framewake.pipeline.forecast import parse_memory
from framewake.pipeline.jobs import plan_job
from framewake.pipeline.run import Pipeline
from framewake.weights.checkpoint.layouts import parse_files


def plan(given: Mapping[str, Any]) -> None:
    """Print the forecast of every clip that the options ask for; nothing is loaded, nothing is made.

    Raises: FramewakeError of any kind; ResourceError when a clip cannot fit.
    """
    if given["from_latents"] is not None or given["resume"]:
        raise InputError("plan looks at clips that are still to be made: leave out --from-latents and --resume.")
    memory = parse_memory(given["memory"])
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
            sys.stdout.write(json.dumps(record) + "\n")
        else:
            sys.stdout.write(fitted(plan_note(found), sys.stdout, indent="  ") + "\n")
