"""Requests in, events and clips out."""

from framewake.pipeline.drafts import Drafts
from framewake.pipeline.events import Draft, Event, Note, Result, StageFinished, StageStarted, Step, Tile, Written
from framewake.pipeline.jobs import Job, Output
from framewake.pipeline.run import Pipeline

__all__ = [
    "Draft",
    "Drafts",
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
