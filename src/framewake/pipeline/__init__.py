"""Requests in, events and clips out."""

from framewake.pipeline.events import Event, Note, Result, StageFinished, StageStarted, Step, Tile, Written
from framewake.pipeline.jobs import Job, Output
from framewake.pipeline.run import Pipeline

__all__ = [
    "Event",
    "Job",
    "Note",
    "Output",
    "Pipeline",
    "Result",
    "StageFinished",
    "StageStarted",
    "Step",
    "Tile",
    "Written",
]
