"""The tools: what an agent can do with clips, each one or two calls of the API."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mcp_types import CallToolResult, ImageContent, TextContent, Tool, ToolAnnotations

from framewake.agents.calls import Calls, place_of
from framewake.errors import FramewakeError, InputError, nearest, said
from framewake.lasting import written_whole
from framewake.media.picture import header_size, picture_path
from framewake.service.fields import VideoSettings
from framewake.setting import shown

PICTURE = "input_reference"
MOST_PICTURE_BYTES = 20 * 2**20
# Fields of POST /v1/videos that an agent is told of; the server takes the others too.
OFFERED = {
    "prompt": "string",
    "resolution": "string",
    "num_frames": "integer",
    "num_inference_steps": "integer",
    "seed": "integer",
    "draft": "integer",
    "crop": "string",
    "stability": "boolean",
    "negative_prompt": "string",
    "true_cfg_scale": "number",
    "cache": "string",
    "super_resolution": "boolean",
}
# What an agent is told of a video; the structured answer has everything.
TOLD = (
    *("id", "status", "progress", "step", "num_inference_steps", "seconds_left", "queue_position"),
    *("draft", "pauses_after", "prompt", "size", "num_frames", "fps", "seed", "notes", "error"),
)
ID = {"id": {"type": "string", "description": "As make_clip gave it: video_ and 32 digits."}}


class Action(NamedTuple):
    """A tool with what it does."""

    tool: Tool
    run: Callable[[Calls, Mapping[str, Any]], Awaitable[CallToolResult]]


async def make(calls: Calls, given: Mapping[str, Any]) -> CallToolResult:
    """Put a clip into the queue."""
    return shown_video(await submit(calls, given))


async def submit(calls: Calls, given: Mapping[str, Any]) -> dict[str, Any]:
    """The video that the arguments of make_clip ask for, in the queue.

    Raises: FramewakeError.
    """
    picture = given.get(PICTURE)
    fields = dict(given) if picture is None else {**given, PICTURE: _picture(picture)}
    return await calls.ask("POST", "/v1/videos", given=fields)


def _picture(given: Any) -> str:
    """A picture as the API takes it. A file is opened here, and only a picture or a clip leaves this machine."""
    if not isinstance(given, str) or not given:
        raise InputError(f"{PICTURE} is {shown(given)}: expected the path of a file, or an http(s) or data URL.")
    if given.startswith(("http://", "https://", "data:")):
        return given
    try:
        with picture_path(given).open("rb") as file:
            data = file.read(MOST_PICTURE_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{PICTURE} {shown(given)} cannot be read ({said(error)}).") from error
    if len(data) > MOST_PICTURE_BYTES:
        raise InputError(f"{PICTURE} {shown(given)} has more than {MOST_PICTURE_BYTES:,} bytes: make it smaller.")
    header_size(data, given)
    return "data:application/octet-stream;base64," + base64.b64encode(data).decode()


async def look(calls: Calls, given: Mapping[str, Any]) -> CallToolResult:
    """How far a clip is, with a picture of it."""
    place = place_of(given.get("id"))
    video = await calls.ask("GET", place)
    variant, media = ("thumbnail", "image/jpeg") if video["status"] == "completed" else ("preview", "image/png")
    picture = None
    with contextlib.suppress(FramewakeError):  # before the first step there is none
        picture = await calls.file(f"{place}/content", {"variant": variant})
    return shown_video(video, picture, media=media)


async def list_clips(calls: Calls, given: Mapping[str, Any]) -> CallToolResult:
    """The newest clips."""
    found = await calls.ask("GET", "/v1/videos", given={"limit": given.get("limit", 20)})
    videos = found.get("data") or []
    text = "\n".join(json.dumps(_told(video), ensure_ascii=False) for video in videos) or "no clips"
    return CallToolResult(content=[TextContent(text=text)], structured_content=found)


async def cancel(calls: Calls, given: Mapping[str, Any]) -> CallToolResult:
    """Stop a clip that has not ended."""
    return shown_video(await calls.ask("POST", f"{place_of(given.get('id'))}/cancel"))


async def pause(calls: Calls, given: Mapping[str, Any]) -> CallToolResult:
    """Pause a clip, with a draft where it is being made."""
    return shown_video(await calls.ask("POST", f"{place_of(given.get('id'))}/pause"))


async def resume(calls: Calls, given: Mapping[str, Any]) -> CallToolResult:
    """Let a paused clip go on."""
    return shown_video(await calls.ask("POST", f"{place_of(given.get('id'))}/resume"))


async def save(calls: Calls, given: Mapping[str, Any]) -> CallToolResult:
    """Write a clip, or the draft of a paused one, to a file of this machine."""
    path = Path(str(given.get("path", ""))).expanduser()
    if path.suffix.lower() != ".mp4" or not path.is_absolute():
        raise InputError(f"path is {shown(given.get('path'))}: expected a whole path that ends in .mp4.")
    if path.exists():
        raise InputError(f"{path} is there already: name another file.")
    place = place_of(given.get("id"))
    is_paused = (await calls.ask("GET", place))["status"] == "paused"
    clip = await calls.file(f"{place}/content", {"variant": "draft"} if is_paused else None)
    with written_whole(path, len(clip)) as part:
        part.write_bytes(clip)
    return CallToolResult(content=[TextContent(text=str(path))], structured_content={"path": str(path)})


def _told(video: Mapping[str, Any]) -> dict[str, Any]:
    return {name: video[name] for name in TOLD if video.get(name) not in (None, [])}


def shown_video(video: dict[str, Any], picture: bytes | None = None, *, media: str = "") -> CallToolResult:
    """A video as the answer of a tool, an error where it has failed."""
    content: list[Any] = [TextContent(text=json.dumps(_told(video), ensure_ascii=False))]
    if picture is not None:
        content.append(ImageContent(data=base64.b64encode(picture).decode(), mime_type=media))
    return CallToolResult(content=content, structured_content=video, is_error=video["status"] == "failed")


def refused(error: FramewakeError) -> CallToolResult:
    """An error as the answer of a tool, for the agent to read."""
    return CallToolResult(content=[TextContent(text=str(error))], is_error=True)


def _schema(properties: Mapping[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required)}


def _made_of() -> dict[str, Any]:
    described = {
        name: {"type": kind, "description": VideoSettings.model_fields[name].description}
        for name, kind in OFFERED.items()
    }
    text = "The picture that the clip starts from: the path of a file, demo/red-circle, or an http(s) or "
    text += "data URL."
    lora = {"type": "object", "properties": {"name": {"type": "string"}, "scale": {"type": "number"}}}
    loras = {"type": "array", "items": lora, "description": VideoSettings.model_fields["lora"].description}
    return {PICTURE: {"type": "string", "description": text}, **described, "lora": loras}


def _action(name: str, text: str, schema: dict[str, Any], run: Any, *, is_reading: bool = False) -> Action:
    hints = ToolAnnotations(read_only_hint=is_reading, destructive_hint=False, open_world_hint=False)
    tool = Tool(name=name, description=text, input_schema=schema, annotations=hints)
    return Action(tool, run)


MAKE = "make_clip"
_ACTIONS = (
    _action(
        MAKE,
        "Make a clip in which the picture does what the prompt says. Takes seconds to hours: the answer is a clip in "
        "the queue, and look_at_clip tells how far it is. What is left out is the model's own choice.",
        _schema(_made_of(), "prompt"),
        make,
    ),
    _action(
        "look_at_clip",
        "How far a clip is, with a picture: of the newest step while it is made, of its middle when it is finished.",
        _schema(ID, "id"),
        look,
        is_reading=True,
    ),
    _action(
        "list_clips",
        "The newest clips of the queue, finished ones too.",
        _schema({"limit": {"type": "integer", "minimum": 1, "maximum": 100, "default": 20}}),
        list_clips,
        is_reading=True,
    ),
    _action(
        "pause_clip",
        "Pause a clip: it keeps what is done and no longer holds the device. One that is being made gets a draft of "
        "what is expected by then: look_at_clip shows it, save_clip saves it.",
        _schema(ID, "id"),
        pause,
    ),
    _action("resume_clip", "Let a paused clip go on from where it is, to the same clip.", _schema(ID, "id"), resume),
    _action("cancel_clip", "Stop a clip that has not ended, within a step.", _schema(ID, "id"), cancel),
    _action(
        "save_clip",
        "Write a finished clip, or the draft of a paused one, to a new mp4 file on this machine.",
        _schema(ID | {"path": {"type": "string", "description": "Whole path of a new file, NAME.mp4."}}, "id", "path"),
        save,
    ),
)
ACTIONS = {action.tool.name: action for action in _ACTIONS}


def action_of(name: str) -> Action:
    """A tool by its name.

    Raises: InputError.
    """
    if name not in ACTIONS:
        raise InputError(f"there is no tool {name!r}.{nearest(name, ACTIONS)} There are: {', '.join(ACTIONS)}.")
    return ACTIONS[name]
