"""Clips as durable tasks, for clients that know the protocol's extension for them: a task is a video of the queue.

Source: the extension io.modelcontextprotocol/tasks of 2026-07-28 (SEP-2663).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from typing import Any

from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY, RequestParams
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from framewake.agents.calls import Calls, place_of
from framewake.agents.tools import look
from framewake.errors import FramewakeError, InputError

EXTENSION = "io.modelcontextprotocol/tasks"
POLL_MS = 2000


class TaskParams(RequestParams):
    """What tasks/get, tasks/cancel and tasks/update name; answers to questions, which a clip never has, are ignored."""

    task_id: str


def knows_tasks(context: Any) -> bool:
    """Whether the client of this request may be given a task."""
    capabilities = context.session.client_capabilities
    declared = None if capabilities is None else capabilities.extensions
    return context.protocol_version in MODERN_PROTOCOL_VERSIONS and EXTENSION in (declared or {})


def created(video: Mapping[str, Any]) -> dict[str, Any]:
    """A new video as the answer to the call that made it."""
    return {"resultType": "task", **_task(video)}


def _task(video: Mapping[str, Any]) -> dict[str, Any]:
    status = {"cancelled": "cancelled", "completed": "completed", "failed": "completed"}.get(video["status"], "working")
    updated = video["completed_at"] if status != "working" else None
    return {
        "taskId": video["id"],
        "status": status,
        "statusMessage": _message(video),
        "createdAt": _when(video["created_at"]),
        "lastUpdatedAt": _when(time.time() if updated is None else updated),
        "ttlMs": None,
        "pollIntervalMs": POLL_MS,
    }


def _message(video: Mapping[str, Any]) -> str:
    if video["status"] == "queued":
        return f"number {video['queue_position']} in the queue"
    if video["status"] != "in_progress":
        return str(video["status"])
    left = "" if video["seconds_left"] is None else f", about {video['seconds_left']:.0f} s left"
    return f"step {video['step']} of {video['num_inference_steps']}{left}"


def _when(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds").replace("+00:00", "Z")


class Tasks:
    """The methods of the extension over the API."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls

    async def get(self, context: Any, given: TaskParams) -> dict[str, Any]:
        """A task as it is now, with the answer of look_at_clip when it has ended."""
        video = await self._of(context, given.task_id)
        task = {"resultType": "complete", **_task(video)}
        if task["status"] == "completed":
            with _told():
                result = await look(self.calls, {"id": given.task_id})
            task["result"] = result.model_dump(by_alias=True, mode="json", exclude_none=True)
        return task

    async def cancel(self, context: Any, given: TaskParams) -> dict[str, Any]:
        """Stop a task; one that has ended stays as it is."""
        video = await self._of(context, given.task_id)
        if video["status"] in ("queued", "in_progress", "paused"):
            with _told(), contextlib.suppress(InputError):  # it has ended in the meantime
                await self.calls.ask("POST", f"{place_of(given.task_id)}/cancel")
        return {"resultType": "complete"}

    async def update(self, context: Any, given: TaskParams) -> dict[str, Any]:
        """Nothing is ever asked of a client, so there is nothing to take."""
        await self._of(context, given.task_id)
        return {"resultType": "complete"}

    async def _of(self, context: Any, task: str) -> dict[str, Any]:
        if not knows_tasks(context):
            needed: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
            raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, f"the client did not declare {EXTENSION}.", needed)
        with _told():
            return await self.calls.ask("GET", place_of(task))


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """Our errors as those of the protocol."""
    try:
        yield
    except FramewakeError as error:
        code = INVALID_PARAMS if isinstance(error, InputError) else INTERNAL_ERROR
        raise MCPError(code, str(error)) from error
