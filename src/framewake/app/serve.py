"""``framewake serve`` and ``framewake worker``."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from framewake.app.access import asked_keys, asked_site
from framewake.app.devices import own_group, parse_devices, variables
from framewake.app.listen import address_of, listen
from framewake.app.start import start
from framewake.app.stopping import SIGNALS
from framewake.console import logs
from framewake.console.streams import tell_start
from framewake.demo import LORAS
from framewake.errors import FramewakeError, InputError
from framewake.network import forget_proxies
from framewake.packages import need

DATABASE = "FRAMEWAKE_DATABASE"
log = logging.getLogger("framewake.serve")


def serve(given: Mapping[str, Any]) -> None:
    """Run the API, and a worker beside it, until a signal comes.

    Raises: InputError for settings that are not safe, CheckpointError, EngineError.
    """
    begin = time.perf_counter()
    packages = ["fastapi", "uvicorn", "sqlalchemy", "multipart", "httpx", "prometheus_client", "av"]
    if given["devices"] is not None:
        variables(parse_devices(given["devices"]), given["engine"])  # what is wrong with them is told now
    need("framewake serve", *packages, *([] if given["no_page"] else ["gradio"]))
    sockets = listen(given["host"], given["port"])
    address = address_of(given["host"], sockets)
    keys = asked_keys(given)
    site = asked_site(given, has_keys=bool(keys))
    forget_proxies()  # Gradio would look for them while it is imported, and fail over those it cannot use
    tell_start(f"{address} answers in some seconds")
    from framewake.pipeline.checkpoint import open_whole
    from framewake.service.api import Access, create_app
    from framewake.service.binding import open_place
    from framewake.service.desk import Desk
    from framewake.service.fetch import Guarded
    from framewake.service.guard import Limits
    from framewake.service.store import JobStore
    from framewake.service.webhooks import Sender, read_secret

    checkpoint = open_whole(given["checkpoint"] or "demo")
    os.umask(0o077)  # pictures, clips and prompts are nobody else's business
    storage, database = open_place(Path(given["data"]), given["database"])
    limits = Limits(
        upload_bytes=given["max_upload_mb"] * 10**6,
        pixels=given["max_megapixels"] * 10**6,
        queued=given["max_queued"],
        per_minute=given["max_per_minute"],
    )
    loras = lora_folder(given["loras"], is_demo=checkpoint.settings.is_demo)
    desk = Desk(JobStore(database), storage, checkpoint, limits=limits, loras=loras)
    callbacks = Guarded(allows=lambda _: True) if given["allow_private_callbacks"] else Guarded()
    access = Access(keys, site, Guarded() if given["allow_image_urls"] else None, callbacks)
    sender = Sender(database, read_secret(storage.folder), callbacks)
    beside = _beside(given, desk, sender)
    start_logging()
    desk.lora_names()  # what cannot be offered is told now
    app = create_app(desk, access, background=beside, has_page=not given["no_page"])
    what = "API" if given["no_page"] else "page and API"
    seconds = time.perf_counter() - begin
    log.info(
        "%s serves %s (%s, ready after %.1f s); data in %s",
        address, desk.model, what, seconds, storage.folder,
    )  # fmt: skip
    if given["public"]:
        log.warning("everybody who reaches this server may use it, and sees, stops and removes everybody's videos")
    elif site.hosts and not keys:
        log.warning("there are no keys: whoever reaches the proxy uses this server, unless the proxy asks who it is")
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # A closed terminal is a polite end too; uvicorn knows of two others only.
        signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    run_server(app, sockets, proxies=site.proxies)


def _beside(given: Mapping[str, Any], desk: Any, sender: Any) -> Any:
    """What runs beside the API of ``desk``: webhooks, and where they are asked for a worker and a bound on videos."""
    from framewake.service.api import Background
    from framewake.service.database import default_url
    from framewake.service.supervisor import Supervisor
    from framewake.service.trimming import Trimmer

    start, stop = [desk.sweep, sender.start], [sender.stop, desk.store.database.close]
    folder = desk.storage.folder
    if given["keep"]:
        trimmer = Trimmer(desk, given["keep"])
        start, stop = [*start, trimmer.start], [trimmer.stop, *stop]
    if not given["no_worker"]:
        url = given["database"] or default_url(folder)
        arguments = worker_arguments(given, folder, desk.loras)
        supervisor = Supervisor(arguments, {DATABASE: url}, stall_seconds=given["stall_seconds"])
        start, stop = [*start, supervisor.start], [supervisor.stop, *stop]
    return Background(start, stop)


def run_server(app: Any, sockets: list[socket.socket], *, proxies: Sequence[str]) -> None:
    """Answer at the sockets until a signal comes; what ``proxies`` say of a request's origin is believed.

    Raises: FramewakeError when the application does not start.
    """
    import uvicorn

    from framewake.service.connections import IDLE_SECONDS, PIECE, Connections, most_connections

    connections = Connections(most_connections())
    config = uvicorn.Config(
        connections.watching(app),
        http=connections.make,  # type: ignore[arg-type]
        ws="none",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        forwarded_allow_ips=list(proxies),
        backlog=1024,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=3,
        h11_max_incomplete_event_size=PIECE,
    )
    server = uvicorn.Server(config)
    with contextlib.suppress(KeyboardInterrupt):  # an end like any other
        server.run(sockets=sockets)
    if not server.started:
        raise FramewakeError("the server could not start; the lines above say why.")


def lora_folder(name: str | None, *, is_demo: bool) -> Path | None:
    """The folder of --loras; with the demonstration, what ships with it is offered when none is named.

    Raises: InputError when it is none.
    """
    if name is None and is_demo:
        return LORAS
    if name is not None and not Path(name).is_dir():
        raise InputError(f"--loras {name} is no folder: make it, and put the LoRA files into it.")
    return None if name is None else Path(name).resolve()


def worker_arguments(given: Mapping[str, Any], folder: Path, loras: Path | None) -> list[str]:
    """The command line of the worker beside the API; the database's address goes through the environment."""
    arguments = ["--storage", str(folder), "--engine", given["engine"], "--save-every", str(given["save_every"])]
    arguments += ["--stall-seconds", str(given["stall_seconds"])]
    for name in ("checkpoint", "devices"):
        if given.get(name) is not None:
            arguments += [f"--{name}", given[name]]
    return arguments if loras is None else [*arguments, "--loras", str(loras)]


def work(given: Mapping[str, Any]) -> int:
    """Run a worker until a signal comes: here, as processes that are started for it, or as one of them; the exit code.

    Raises: InputError, CheckpointError, EngineError; PeerError where another process of the group has ended.
    """
    need("framewake worker", "sqlalchemy", "av")
    from framewake.app.joined import follow, leading
    from framewake.pipeline.checkpoint import find_checkpoint, open_whole
    from framewake.service.liveness import PIPE

    asked = None if given["devices"] is None else parse_devices(given["devices"])
    group = own_group(asked)
    if not Path(given["storage"]).is_dir():  # made anew, it would be a queue that nobody hands anything in to
        raise InputError(f"--storage {given['storage']} is no folder: name the data folder of framewake serve.")
    if group is None and asked is not None and asked.size > 1:
        pipe = os.environ.get(PIPE, "")
        passed = [int(pipe)] if pipe.isdecimal() else []
        command = [sys.executable, *sys.orig_argv[1:]]
        return start(command, variables(asked, given["engine"]), asked.size, passed=passed, is_endless=True)
    start_logging()
    checkpoint = open_whole(find_checkpoint(given["checkpoint"] or "demo").resolve())
    if group is not None and not group.leads:
        follow(group, checkpoint, given["engine"])
        return 0
    with leading(checkpoint, given["engine"]) as pipeline:
        _work_on(pipeline, given)
    return 0


def _work_on(pipeline: Any, given: Mapping[str, Any]) -> None:
    from framewake.service.binding import open_place
    from framewake.service.liveness import Watch
    from framewake.service.store import JobStore
    from framewake.service.worker import Worker, WorkerSettings

    os.umask(0o077)
    storage, database = open_place(Path(given["storage"]), given["database"])
    loras = lora_folder(given["loras"], is_demo=pipeline.checkpoint.settings.is_demo)
    worker = Worker(JobStore(database), storage, pipeline, WorkerSettings(given["save_every"], loras=loras))
    for name in SIGNALS:
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: worker.stop.set())
    if given["attached"]:
        threading.Thread(target=_wait_for_end, args=(worker.stop,), daemon=True).start()
    try:
        worker.run(Watch(given["stall_seconds"]))
    finally:
        database.close()


def _wait_for_end(stop: threading.Event) -> None:
    """Ends the worker when the process that started it is gone."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    stop.set()


def start_logging() -> None:
    """The log of server and worker."""
    logs.start_logging("%(levelname)s %(name)s: %(message)s")
    for name in ("httpx", "torch"):  # which tells of each request, and of its own caches at the end
        logging.getLogger(name).setLevel(logging.WARNING)
