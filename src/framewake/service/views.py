"""A job as the API shows it."""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Row

from framewake.service.tables import FINAL, STATES

# Share of the work that lies before the last step; decoding takes most of the rest.
DENOISING = 90
LAST_TIME = 253402300800  # the end of the year 9999
AFTER = {"decode": 92, "write": 98}


class Problem(BaseModel):
    """Why a video failed."""

    code: str
    message: str


class Video(BaseModel):
    """A video and how far it is.

    Times are Unix seconds. ``seconds_left`` is for all that is left to do, decoding and writing with it; while a video
    waits, for making it, without the others before it. ``draft`` is the step of the newest draft, ``pauses_after`` the
    step behind which the video pauses with one, 0 for the next. ``notes`` are sentences that a person should read.
    """

    model_config = ConfigDict(allow_inf_nan=False)  # JSON has neither
    id: str
    object: Literal["video"] = "video"
    model: str
    status: Literal["queued", "in_progress", "paused", "completed", "failed", "cancelled"]
    progress: int
    stage: str | None
    step: int
    num_inference_steps: int
    seconds_left: float | None
    queue_position: int | None
    draft: int | None = None
    pauses_after: int | None = None
    created_at: int
    started_at: int | None
    completed_at: int | None
    expires_at: int | None = None
    prompt: str
    negative_prompt: str | None
    size: str
    resolution: str
    seconds: str
    num_frames: int
    fps: float
    seed: int
    guidance_scale: float
    true_cfg_scale: float
    flow_shift: float
    stability: bool
    lora: list[str]
    notes: list[str]
    error: Problem | None
    remixed_from_video_id: str | None = None


class VideoList(BaseModel):
    """A page of videos."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """What DELETE did: a video that had not ended is cancelled and stays in the list, another is gone."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool
    status: str


class Failure(BaseModel):
    """The inside of an error."""

    message: str
    type: str
    code: str
    param: str | None = None


class ErrorBody(BaseModel):
    """An error as every endpoint answers it."""

    error: Failure


def progress(row: Row[Any]) -> int:
    """Percent of a job's work that is done."""
    if row.state == "completed":
        return 100
    if row.state == "in_progress" and row.stage in AFTER:
        return AFTER[row.stage]
    return row.step * DENOISING // max(row.steps, 1)


def video(row: Row[Any], position: int | None) -> Video:
    """A job for people and programs; of a damaged record what can be told, so that no list fails because of it."""
    try:
        return _video(row, position)
    except (ValueError, TypeError, LookupError, ArithmeticError, AttributeError, RecursionError):
        return _damaged(row)


def settings_of(row: Row[Any]) -> dict[str, Any]:
    """The settings that a job was handed in with; none where its record is damaged."""
    try:
        found = json.loads(row.request)
    except (ValueError, TypeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _damaged(row: Row[Any]) -> Video:
    def number(value: Any) -> int:
        return int(value) if isinstance(value, int | float) and 0 <= value < LAST_TIME else 0

    state: Any = row.state if row.state in STATES else "failed"
    return Video(
        id=str(row.id).encode(errors="replace").decode(),
        model=str(row.model).encode(errors="replace").decode(),
        status=state,
        progress=100 if state == "completed" else 0,
        stage=None,
        step=number(row.step),
        num_inference_steps=number(row.steps),
        seconds_left=None,
        queue_position=None,
        created_at=number(row.created),
        started_at=None,
        completed_at=number(row.ended) if state in FINAL else None,
        prompt="",
        negative_prompt=None,
        size=f"{number(row.width)}x{number(row.height)}",
        resolution="",
        seconds="0",
        num_frames=0,
        fps=0,
        seed=0,
        guidance_scale=0,
        true_cfg_scale=0,
        flow_shift=0,
        stability=False,
        lora=[],
        notes=[],
        error=Problem(code="damaged_record", message="the record of this video is damaged, and cannot be shown whole."),
    )


def _time(value: float) -> int:
    if not 0 <= value < LAST_TIME:
        raise ValueError("no time that a calendar has")
    return int(value)


def _video(row: Row[Any], position: int | None) -> Video:
    request = json.loads(row.request)
    problem = None if row.error is None else Problem(code=row.error_code or "error", message=row.error)
    return Video(
        id=row.id,
        model=row.model,
        status=row.state,
        progress=progress(row),
        stage=row.stage if row.state == "in_progress" else None,
        step=min(row.step, request["steps"]),  # without those in which it is enlarged
        num_inference_steps=request["steps"],
        seconds_left=None if row.seconds_left is None else round(row.seconds_left, 1),
        queue_position=position,
        draft=row.drafted,
        pauses_after=row.draft,
        created_at=_time(row.created),
        started_at=None if row.started is None else _time(row.started),
        completed_at=None if row.ended is None else _time(row.ended),
        prompt=request["prompt"],
        negative_prompt=request["negative_prompt"],
        size=f"{row.width}x{row.height}",
        resolution=request["resolution"],
        seconds=f"{request['frames'] / request['fps']:.4g}",
        num_frames=request["frames"],
        fps=request["fps"],
        seed=request["seed"],
        guidance_scale=request["embedded_guidance"],
        true_cfg_scale=request["guidance_scale"],
        flow_shift=request["flow_shift"],
        stability=request["is_stable"],
        lora=[text.partition("/")[2] for text in request.get("loras", [])],
        notes=json.loads(row.notes) if row.notes else [],
        error=problem,
        remixed_from_video_id=row.extends,
    )
