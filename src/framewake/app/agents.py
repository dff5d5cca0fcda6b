"""``framewake mcp``: the queue as tools for agents, on stdin and stdout."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framewake.packages import need

if TYPE_CHECKING:
    from framewake.agents.calls import Calls


def serve_agents(given: Mapping[str, Any]) -> None:
    """Serve one agent until it leaves.

    Raises: InputError, CheckpointError, EngineError for packages that are missing.
    """
    need("framewake mcp", "mcp", "httpx", "pydantic")
    import anyio

    from framewake.agents.calls import Calls
    from framewake.agents.protocol import make_server, serve_stdio
    from framewake.app.serve import start_logging

    start_logging()
    if given["server"] is not None:
        anyio.run(serve_stdio, make_server(Calls(given["server"], key=given["api_key"])))
        return
    with _place(given) as (calls, wake):
        anyio.run(serve_stdio, make_server(calls, wake=wake))


@contextlib.contextmanager
def _place(given: Mapping[str, Any]) -> Iterator[tuple[Calls, Callable[[], None]]]:
    """The queue of a data folder, and a call that starts a worker for it unless there is one, as of framewake serve."""
    need("framewake mcp", "fastapi", "uvicorn", "sqlalchemy", "multipart", "prometheus_client", "av")
    from framewake.agents.calls import Calls
    from framewake.app.serve import DATABASE, lora_folder, worker_arguments
    from framewake.pipeline.checkpoint import open_whole
    from framewake.service.api import Access, create_app
    from framewake.service.binding import open_place
    from framewake.service.database import default_url
    from framewake.service.desk import Desk
    from framewake.service.guard import Limits
    from framewake.service.store import JobStore
    from framewake.service.supervisor import Supervisor

    checkpoint = open_whole(given["checkpoint"] or "demo")
    os.umask(0o077)
    storage, database = open_place(Path(given["data"]), given["database"])
    loras = lora_folder(given["loras"], is_demo=checkpoint.settings.is_demo)
    desk = Desk(JobStore(database), storage, checkpoint, limits=Limits(), loras=loras)
    url = {DATABASE: given["database"] or default_url(storage.folder)}
    arguments = worker_arguments(given, storage.folder, loras)
    started: list[Supervisor] = []

    def wake() -> None:
        if not started and not desk.presence.alive():
            started.append(Supervisor(arguments, url, stall_seconds=given["stall_seconds"]))
            started[0].start()

    try:
        desk.sweep()
        yield Calls(f"the queue in {storage.folder}", app=create_app(desk, Access())), wake
    finally:
        for supervisor in started:
            supervisor.stop()
        database.close()
