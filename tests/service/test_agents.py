"""``framewake mcp`` with the client of the protocol's own package: in this process, over stdio, against a server."""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any, Literal

import pytest
from engines_here import FIRST
from PIL import Image
from service_process import ENVIRONMENT, PROGRAM, command, serving
from test_worker import work_once

pytest.importorskip("mcp", reason="the extra framewake[mcp] is not installed")

import anyio
from mcp import Client, MCPError
from mcp.client.extension import ClaimContext, ClientExtension, ResultClaim
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp_types import CallToolResult, Request, RequestParams, Result
from pydantic import TypeAdapter

from framewake.agents.calls import Calls
from framewake.agents.protocol import make_server
from framewake.media.video import read_metadata, read_video
from framewake.service.api import Access, create_app

WISH = {"prompt": "the red circle moves right", "resolution": "360p", "num_frames": 5, "num_inference_steps": 2}
PICTURED = WISH | {"input_reference": "demo/red-circle"}
TASKS = "io.modelcontextprotocol/tasks"


@pytest.fixture
def place(picture, tmp_path):
    path = tmp_path / "given.png"
    path.write_bytes(picture)
    return str(path)


@pytest.fixture
def talk(desk):
    """Runs what a client says to the tools over a desk in this process; ``worker`` makes what waits."""

    def run(say, **options):
        server = make_server(Calls("the queue", app=create_app(desk, Access())))

        async def talking():
            async with Client(server, **options) as client:
                return await say(client)

        return anyio.run(talking)

    return run


def text_of(answer):
    return answer.content[0].text


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_clip_is_made_looked_at_listed_and_saved(talk, desk, worker_of, place, tmp_path, mode):
    worker, target = worker_of(desk), tmp_path / "clip.mp4"

    async def say(client):
        made = await client.call_tool("make_clip", WISH | {"input_reference": place, "seed": 3})
        assert not made.is_error, text_of(made)
        video = made.structured_content["id"]
        waiting = await client.call_tool("look_at_clip", {"id": video})
        assert waiting.structured_content["status"] == "queued" and len(waiting.content) == 1
        await anyio.to_thread.run_sync(work_once, worker)
        looked = await client.call_tool("look_at_clip", {"id": video})
        assert looked.structured_content["status"] == "completed" and looked.content[1].mime_type == "image/jpeg"
        shown = Image.open(io.BytesIO(base64.b64decode(looked.content[1].data)))
        listed = await client.call_tool("list_clips", {"limit": 5})
        assert [entry["id"] for entry in listed.structured_content["data"]] == [video]
        saved = await client.call_tool("save_clip", {"id": video, "path": str(target)})
        assert text_of(saved) == str(target)
        again = await client.call_tool("save_clip", {"id": video, "path": str(target)})
        assert again.is_error and "is there already" in text_of(again)
        return shown.size, video

    size, video = talk(say, mode=mode)
    frames, _ = read_video(target)
    assert frames.shape[:3] == (5, size[1], size[0])
    assert desk.store.get(video).owner == "local"


def test_a_clip_is_cancelled_and_never_removed(talk, desk, worker_of, place):
    worker = worker_of(desk)

    async def say(client):
        first = (await client.call_tool("make_clip", WISH | {"input_reference": place})).structured_content["id"]
        await anyio.to_thread.run_sync(work_once, worker)
        late = await client.call_tool("cancel_clip", {"id": first})
        assert late.is_error and "completed already" in text_of(late)
        second = (await client.call_tool("make_clip", WISH | {"input_reference": place})).structured_content["id"]
        stopped = await client.call_tool("cancel_clip", {"id": second})
        assert stopped.structured_content["status"] == "cancelled"
        return first, second

    first, second = talk(say)
    assert (desk.store.get(first).state, desk.store.get(second).state) == ("completed", "cancelled")


def test_a_clip_is_paused_looked_at_and_goes_on(talk, desk, worker_of, place, tmp_path):
    worker, target = worker_of(desk), tmp_path / "draft.mp4"

    async def say(client):
        made = await client.call_tool(
            "make_clip", WISH | {"input_reference": place, "num_inference_steps": 4, "draft": 2}
        )
        video = {"id": made.structured_content["id"]}
        await anyio.to_thread.run_sync(work_once, worker)
        looked = await client.call_tool("look_at_clip", video)
        assert '"status": "paused"' in text_of(looked) and looked.content[1].mime_type == "image/png"
        assert not (await client.call_tool("save_clip", video | {"path": str(target)})).is_error
        resumed = await client.call_tool("resume_clip", video)
        assert resumed.structured_content["status"] == "queued"
        paused = await client.call_tool("pause_clip", video)
        assert paused.structured_content["status"] == "paused"

    talk(say)
    assert read_metadata(target)["draft"]["step"] == 2


@pytest.mark.parametrize(
    ("tool", "given", "words"),
    [
        ("make_clip", {}, "prompt is empty"),
        ("make_clip", WISH | {"input_reference": "/nowhere/at.png"}, "cannot be read"),
        ("make_clip", WISH | {"input_reference": __file__}, "test_agents.py"),
        ("make_clip", WISH | {"input_reference": 7}, "expected the path"),
        ("make_clip", PICTURED | {"num_frames": 6}, "frames"),
        ("make_clip", WISH | {"num_frame": 5}, "num_frames"),
        ("make_clip", PICTURED | {"lora": [{"name": "trails"}]}, "no LoRA"),
        ("look_at_clip", {}, "expected the id"),
        ("look_at_clip", {"id": "../../etc"}, "expected the id"),
        ("list_clips", {"limit": 0}, "limit"),
        ("save_clip", {"id": "video_0", "path": "clip.mp4"}, "whole path"),
        ("paint_clip", {}, "there is no tool"),
    ],
)
def test_mistakes_are_one_sentence(talk, tool, given, words):
    async def say(client):
        return await client.session.call_tool(tool, given)

    answer = talk(say)
    text = text_of(answer)
    assert answer.is_error and words in text and "\n" not in text and "Traceback" not in text


def test_the_tools_say_what_the_model_can_do(talk, desk):
    async def say(client):
        return (await client.list_tools()).tools

    tools = {tool.name: tool for tool in talk(say)}
    changing = ["pause_clip", "resume_clip", "cancel_clip"]
    assert list(tools) == ["make_clip", "look_at_clip", "list_clips", *changing, "save_clip"]
    assert desk.model in tools["make_clip"].description
    described = tools["make_clip"].input_schema["properties"]
    assert described["prompt"]["description"] and tools["make_clip"].input_schema["required"] == ["prompt"]


class Handle(Result):
    """A task instead of a result."""

    result_type: Literal["task"] = "task"
    task_id: str
    status: str
    ttl_ms: int | None
    poll_interval_ms: int


class Named(RequestParams):
    task_id: str


class Asked(Request[Named, str]):
    pass


class Known(ClientExtension):
    """A client that knows tasks and keeps their handles."""

    identifier = TASKS

    def __init__(self):
        self.handles: list[Handle] = []

    def claims(self):
        async def keep(handle: Handle, _context: ClaimContext) -> CallToolResult:
            self.handles.append(handle)
            return CallToolResult(content=[])

        return [ResultClaim(result_type="task", model=Handle, resolve=keep)]


def test_a_clip_is_a_durable_task(talk, desk, worker_of, place):
    worker, known = worker_of(desk), Known()

    async def ask(client, method, task):
        request = Asked(method=f"tasks/{method}", params=Named(task_id=task))
        return await client.session.send_request(request, TypeAdapter(dict[str, Any]))

    async def begin(client):
        for _ in range(2):
            await client.call_tool("make_clip", WISH | {"input_reference": place})
        first, second = (handle.task_id for handle in known.handles)
        assert known.handles[0].status == "working" and known.handles[0].ttl_ms is None
        assert (await ask(client, "get", first))["statusMessage"] == "number 1 in the queue"
        assert (await ask(client, "cancel", second))["resultType"] == "complete"
        return first, second

    async def end(client):
        cancelled = await ask(client, "get", second)
        assert cancelled["status"] == "cancelled" and "result" not in cancelled
        done = await ask(client, "get", first)
        assert done["status"] == "completed" and done["result"]["content"][1]["type"] == "image"
        assert (await ask(client, "cancel", first))["resultType"] == "complete"
        with pytest.raises(MCPError, match="no such video"):
            await ask(client, "get", "video_" + "0" * 32)
        return done

    first, second = talk(begin, extensions=[known])
    work_once(worker)
    done = talk(end, extensions=[known])  # another client, another server: the queue remembers
    assert done["createdAt"] <= done["lastUpdatedAt"] and desk.store.get(first).state == "completed"

    async def ignorant(client):
        with pytest.raises(MCPError, match="did not declare"):
            await ask(client, "get", first)
        return await client.call_tool("make_clip", WISH | {"input_reference": place})

    assert talk(ignorant).structured_content["status"] == "queued"


def over_stdio(arguments, say, folder):
    parameters = StdioServerParameters(command=PROGRAM[0], args=[*PROGRAM[1:], "mcp", *arguments], env=ENVIRONMENT)

    async def talking():
        with (folder / "log").open("w") as log:
            async with Client(stdio_client(parameters, errlog=log)) as client:
                with anyio.fail_after(240):
                    return await say(client)

    try:
        return anyio.run(talking)
    finally:
        sys.stdout.write((folder / "log").read_text())


async def made_whole(client, picture, target):
    video = (await client.call_tool("make_clip", WISH | {"input_reference": picture})).structured_content["id"]
    while True:
        answer = await client.call_tool("look_at_clip", {"id": video})
        if answer.structured_content["status"] not in ("queued", "in_progress"):
            break
        await anyio.sleep(0.3)
    assert answer.structured_content["status"] == "completed", text_of(answer)
    return await client.call_tool("save_clip", {"id": video, "path": str(target)})


def test_over_stdio_with_a_queue_of_its_own(toy, place, tmp_path):
    target, data = tmp_path / "own.mp4", tmp_path / "data"
    arguments = ["--data", str(data), "--checkpoint", str(toy), "--engine", FIRST]
    saved = over_stdio(arguments, lambda client: made_whole(client, place, target), tmp_path)
    assert not saved.is_error and len(read_video(target)[0]) == 5
    assert command("jobs", "list", "--data", str(data)).stdout.count("completed") == 1


def test_over_stdio_with_a_running_server(toy, place, tmp_path):
    key, target = "k" * 24, tmp_path / "served.mp4"
    with serving(tmp_path, toy, "--api-key", key) as server:
        arguments = ["--server", server.url, "--api-key", key]
        saved = over_stdio(arguments, lambda client: made_whole(client, place, target), tmp_path)
        assert not saved.is_error and len(read_video(target)[0]) == 5

        async def strange(client):
            return await client.call_tool("list_clips", {})

        refused = over_stdio(["--server", server.url, "--api-key", "o" * 24], strange, tmp_path)
        assert refused.is_error and "API key is needed" in text_of(refused)
    away = over_stdio(["--server", server.url], strange, tmp_path)
    assert away.is_error and "does not answer" in text_of(away)


def test_a_wrong_folder_ends_the_program_with_a_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    done = command("mcp", "--data", str(Path(tmp_path) / "file" / "data"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
