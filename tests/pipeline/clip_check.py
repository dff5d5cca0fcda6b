"""One of several processes that make clips together. Run as ``clip_check.py ENGINE CHECKPOINT JOBS``.

JOBS is a file of JSON: a list of {"request": ..., "output": ..., "stop": step or null, "resume": file or null}. The
first process writes the latents of a stopped run beside the output, and the frames of a finished one.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from framewake import engine as engines
from framewake.pipeline import Output, Pipeline, Result, Step
from framewake.pipeline.latents import load_latents
from framewake.request import from_dict


def main(name: str, checkpoint: str, jobs: str) -> None:
    pipeline = Pipeline.load(checkpoint, engine=engines.join(name))
    if pipeline.engine.rank() > 0:
        pipeline.follow()
    else:
        for job in json.loads(Path(jobs).read_text()):
            make(pipeline, job)
        pipeline.close()
    engines.leave()


def make(pipeline: Pipeline, job: dict) -> None:
    output = Output(job["output"])
    if job.get("resume"):
        events = pipeline.resume(load_latents(Path(job["resume"])), output)
    else:
        events = pipeline.run(from_dict(job["request"]), output)
    for event in events:
        if isinstance(event, Step) and event.index == job.get("stop"):
            events.close()
        elif isinstance(event, Result):
            np.save(job["output"] + ".npy", event.frames)


if __name__ == "__main__":
    main(*sys.argv[1:])
