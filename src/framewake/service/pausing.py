"""Pausing a job: what becomes of its record when somebody wants it, takes it back, or when its draft is there."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Row

from framewake.service.refusals import Conflict
from framewake.service.tables import FINAL

NOW = 0  # as the step behind which a job is to pause: the next one


def pausing(row: Row[Any]) -> dict[str, Any]:
    """A waiting job pauses at once; a running one is to end with a draft behind its next step.

    Raises: Conflict when it has ended, or has no step left.
    """
    if row.state in FINAL:
        raise Conflict(f"the video is {row.state} already.")
    if row.state == "in_progress" and row.stage in ("enlarge", "decode", "write"):
        raise Conflict("the last step that a video can pause behind is done: it is being finished.")
    return {"draft": NOW} if row.state == "in_progress" else {"state": "paused"}


def going_on(row: Row[Any]) -> dict[str, Any]:
    """A paused job waits again, at its old place; a running one that is to pause will not.

    Raises: Conflict for any other.
    """
    if row.state == "paused":
        return {"state": "queued", "due": 0}
    if row.state == "in_progress" and row.draft is not None:
        return {"draft": None}
    raise Conflict(f"the video is {row.state}: only a paused one can go on.")


def held(row: Row[Any], step: int) -> dict[str, Any]:
    """The draft after a step is there: the job is paused, or waits again where nobody wants that any more."""
    state = "queued" if row.draft is None else "paused"
    cleared = {name: None for name in ("worker", "seconds_left", "draft")}
    return {"state": state, "step": step, "drafted": step, "deaths": 0, "due": 0, **cleared}
