"""The server of the Model Context Protocol: tools and tasks over one queue, for one client on stdin and stdout."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, ListToolsResult

from framewake import __version__
from framewake.agents.calls import Calls
from framewake.agents.tasks import EXTENSION, TaskParams, Tasks, created, knows_tasks
from framewake.agents.tools import ACTIONS, MAKE, action_of, refused, submit
from framewake.console.foreign import translated
from framewake.errors import FramewakeError

INSTRUCTIONS = (
    "framewake makes clips: one picture and one sentence that says what happens in it. make_clip puts one into a queue "
    "that survives restarts; look_at_clip tells how far it is and shows it; save_clip writes it to a file."
)


def make_server(calls: Calls, *, wake: Callable[[], None] = lambda: None) -> Server[Any]:
    """A server over ``calls``; ``wake`` is called before a clip is made, for whoever makes it."""

    async def list_tools(_context: Any, _given: Any) -> ListToolsResult:
        tools = [action.tool for action in ACTIONS.values()]
        with contextlib.suppress(FramewakeError):  # a server that is away just now has the same tools
            told = await _told_of_model(calls)
            tools[0] = tools[0].model_copy(update={"description": f"{tools[0].description} {told}"})
        return ListToolsResult(tools=tools)

    async def call_tool(context: Any, given: Any) -> Any:
        arguments = given.arguments or {}
        try:
            action = action_of(given.name)
            if given.name == MAKE:
                wake()
                if knows_tasks(context):
                    return created(await submit(calls, arguments))
            return await action.run(calls, arguments)
        except FramewakeError as error:
            return refused(error)
        except Exception as error:  # whatever a library has raised becomes a sentence, with its traceback in a file
            raise MCPError(INTERNAL_ERROR, str(translated(error))) from error

    server: Server[Any] = Server(
        "framewake",
        version=__version__,
        instructions=INSTRUCTIONS,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
    )
    tasks = Tasks(calls)
    for method in ("get", "cancel", "update"):
        server.add_request_handler(f"tasks/{method}", TaskParams, getattr(tasks, method))
    server.extensions[EXTENSION] = {}
    return server


async def _told_of_model(calls: Calls) -> str:
    (model,) = (await calls.ask("GET", "/v1/models"))["data"]
    loras = f" LoRAs: {', '.join(model['loras'])}." if model["loras"] else ""
    return (
        f"The model is {model['id']}: resolutions {', '.join(model['resolutions'])}, {model['frames']} frames at "
        f"{model['fps']} per second and {model['steps']} steps where nothing else is said.{loras}"
    )


async def serve_stdio(server: Server[Any]) -> None:
    """Serve one client on stdin and stdout until it leaves."""
    async with stdio_server() as (reading, writing):
        await server.run(reading, writing, server.create_initialization_options())
