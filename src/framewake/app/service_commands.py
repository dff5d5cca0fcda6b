"""The commands of the service and their options."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from framewake.app.options import filled, local, whole_from

Checkpoint = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        parser=filled("--checkpoint"),
        metavar="PATH",
        envvar="FRAMEWAKE_CHECKPOINT",
        help="Checkpoint folder; the embedded demonstration by default.",
    ),
]
Engine = Annotated[
    str, typer.Option("--engine", metavar="NAME", envvar="FRAMEWAKE_ENGINE", help="As in framewake animate.")
]
Data = Annotated[
    str,
    typer.Option("--data", parser=local("--data"), metavar="DIR", help="Folder for the queue and the videos."),
]
Url = Annotated[
    str | None,
    typer.Option(
        "--database",
        parser=filled("--database", "a URL"),
        metavar="URL",
        envvar="FRAMEWAKE_DATABASE",
        help="postgresql://USER:PASSWORD@HOST/NAME for several machines; SQLite in the data folder by default.",
    ),
]
Loras = Annotated[
    str | None,
    typer.Option("--loras", parser=local("--loras"), metavar="DIR", help="LoRA files that users may choose by name."),
]
Server = Annotated[
    str | None,
    typer.Option(
        "--server",
        parser=filled("--server", "a URL"),
        metavar="URL",
        help="The address of a running server, instead of a folder.",
    ),
]
Key = Annotated[
    str | None, typer.Option("--api-key", metavar="KEY", envvar="FRAMEWAKE_API_KEY", help="Key for the server.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on stdout, for programs.")]
Job = Annotated[str, typer.Argument(metavar="ID", help="A video's id, such as video_0123...")]


def _whole(flag: str, text: str, *, minimum: int, maximum: int | None = None) -> Any:
    span = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
    return typer.Option(flag, parser=whole_from(flag, minimum, maximum=maximum), metavar="N", help=f"{text} ({span}).")


StallSeconds = Annotated[
    int,
    _whole(
        "--stall-seconds",
        "A worker that finishes nothing for so long, not even a block of a model, is restarted; 0: never",
        minimum=0,
    ),
]
SaveEvery = Annotated[int, _whole("--save-every", "Steps between saved states of a running video", minimum=1)]
AllowHost = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-host", metavar="NAME", help="A name that a proxy passes on as Host, for a server without keys."
    ),
]
AllowOrigin = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-origin",
        metavar="URL",
        help="Let web pages from there use the API, such as https://app.example.com.",
    ),
]
RootPath = Annotated[
    str,
    typer.Option("--root-path", metavar="PATH", help="The path under which a proxy serves this, such as /framewake."),
]
TrustProxy = Annotated[
    list[str] | None,
    typer.Option(
        "--trust-proxy",
        metavar="ADDRESS",
        help="Address or network of a proxy whose X-Forwarded headers count, beside those on this machine.",
    ),
]
FOLDER = "framewake-data"
STALL_SECONDS = 1800  # a block of the published model takes minutes on a slow CPU
jobs = typer.Typer(rich_markup_mode=None, help="Inspect and change the queue.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Hang the commands of the service under the program."""
    app.command("serve")(serve)
    app.command("worker")(worker)
    app.command("backup")(backup)
    app.command("restore")(restore)
    app.add_typer(jobs, name="jobs")


def serve(  # noqa: PLR0913 - typer makes an option of every parameter
    *,
    host: Annotated[
        str, typer.Option("--host", metavar="NAME", help="Where to listen; anything but this machine needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, _whole("--port", "Port to listen on", minimum=0, maximum=65535)] = 7860,
    checkpoint: Checkpoint = None,
    engine: Engine = "auto",
    data: Data = FOLDER,
    database: Url = None,
    loras: Loras = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option("--api-key", metavar="KEY", envvar="FRAMEWAKE_API_KEY", help="A key that clients must send."),
    ] = None,
    api_key_file: Annotated[
        str | None,
        typer.Option(
            "--api-key-file",
            parser=local("--api-key-file"),
            metavar="FILE",
            help="Keys, one per line; other users cannot see them.",
        ),
    ] = None,
    allow_host: AllowHost = None,
    allow_origin: AllowOrigin = None,
    root_path: RootPath = "",
    trust_proxy: TrustProxy = None,
    allow_image_urls: Annotated[
        bool, typer.Option("--allow-image-urls", help="Fetch pictures from public web addresses.")
    ] = False,
    allow_private_callbacks: Annotated[
        bool, typer.Option("--allow-private-callbacks", help="Call webhooks on this and neighbouring machines too.")
    ] = False,
    max_upload_mb: Annotated[int, _whole("--max-upload-mb", "Largest picture file", minimum=1)] = 20,
    max_megapixels: Annotated[int, _whole("--max-megapixels", "Largest picture", minimum=1, maximum=100)] = 40,
    max_queued: Annotated[int, _whole("--max-queued", "Videos that may wait per key", minimum=1)] = 1000,
    max_per_minute: Annotated[
        int, _whole("--max-per-minute", "Videos that one key may submit per minute", minimum=1)
    ] = 600,
    save_every: SaveEvery = 5,
    stall_seconds: StallSeconds = STALL_SECONDS,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="No worker here: workers run elsewhere (framewake worker).")
    ] = False,
    no_page: Annotated[bool, typer.Option("--no-page", help="Only the API: no page for browsers.")] = False,
) -> None:
    """Serve videos over HTTP, from a queue that survives restarts.

    \b
    Examples:
      framewake serve
      framewake serve --host 0.0.0.0 --api-key-file keys.txt --data /srv/framewake
      framewake serve --no-worker --database postgresql://framewake@db/framewake --data /shared
    """
    from framewake.app.serve import serve as run

    run({name: value for name, value in locals().items() if name != "run"} | {"api_key": api_key or []})


def worker(  # noqa: PLR0913 - typer makes an option of every parameter
    *,
    storage: Annotated[
        str,
        typer.Option(
            "--storage", parser=local("--storage"), metavar="DIR", help="The data folder, shared with the server."
        ),
    ],
    database: Url = None,
    checkpoint: Checkpoint = None,
    engine: Engine = "auto",
    loras: Loras = None,
    save_every: SaveEvery = 5,
    stall_seconds: StallSeconds = STALL_SECONDS,
    attached: Annotated[bool, typer.Option("--attached", hidden=True)] = False,
) -> None:
    """Make videos from a queue that other machines share.

    \b
    Examples:
      framewake worker --database postgresql://framewake@db/framewake --storage /shared --engine torch:cuda
    """
    from framewake.app.serve import work

    work(
        {
            "storage": storage,
            "database": database,
            "checkpoint": checkpoint,
            "engine": engine,
            "loras": loras,
            "save_every": save_every,
            "stall_seconds": stall_seconds,
            "attached": attached,
        }
    )


@jobs.command("list")
def list_jobs(
    *,
    data: Data = FOLDER,
    database: Url = None,
    server: Server = None,
    api_key: Key = None,
    limit: Annotated[int, _whole("--limit", "How many videos to list", minimum=1, maximum=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest videos."""
    from framewake.app.jobs import show_jobs

    show_jobs(_place(data, database, server=server, api_key=api_key), limit=limit, as_json=as_json)


@jobs.command("show")
def show_job(
    job: Job,
    *,
    data: Data = FOLDER,
    database: Url = None,
    server: Server = None,
    api_key: Key = None,
    as_json: AsJson = False,
) -> None:
    """Tell everything about one video."""
    from framewake.app.jobs import show_job as show

    show(_place(data, database, server=server, api_key=api_key), job, as_json=as_json)


@jobs.command("cancel")
def cancel_job(
    job: Job, *, data: Data = FOLDER, database: Url = None, server: Server = None, api_key: Key = None
) -> None:
    """Stop a video within a step, or take it out of the queue."""
    _change(job, "cancel", _place(data, database, server=server, api_key=api_key))


@jobs.command("retry")
def retry_job(
    job: Job, *, data: Data = FOLDER, database: Url = None, server: Server = None, api_key: Key = None
) -> None:
    """Put a failed or cancelled video back into the queue."""
    _change(job, "retry", _place(data, database, server=server, api_key=api_key))


@jobs.command("rm")
def remove_job(
    job: Job, *, data: Data = FOLDER, database: Url = None, server: Server = None, api_key: Key = None
) -> None:
    """Remove a video that has ended, with its files."""
    _change(job, "rm", _place(data, database, server=server, api_key=api_key))


@jobs.command("strays")
def list_strays(*, data: Data = FOLDER, database: Url = None, as_json: AsJson = False) -> None:
    """List folders of videos that the database does not know."""
    from framewake.app.jobs import show_strays

    show_strays(_place(data, database, server=None, api_key=None), as_json=as_json)


@jobs.command("adopt")
def adopt_strays(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Ids of strays.")] = None,
    *,
    takes_all: Annotated[bool, typer.Option("--all", help="All strays.")] = False,
    data: Data = FOLDER,
    database: Url = None,
    api_key: Annotated[
        str | None,
        typer.Option(
            "--api-key", metavar="KEY", envvar="FRAMEWAKE_API_KEY", help="The key whose videos they become, if any."
        ),
    ] = None,
) -> None:
    """Take strays back: finished videos as they are, unfinished ones to be continued."""
    from framewake.app.jobs import adopt_jobs

    adopt_jobs(_place(data, database, server=None, api_key=api_key), ids or [], takes_all=takes_all)


@jobs.command("bind")
def bind(*, data: Data = FOLDER, database: Url = None) -> None:
    """Declare that a data folder and a database belong together, though they were made apart."""
    from framewake.app.jobs import bind_folder

    bind_folder(data, database)


def backup(
    target: Annotated[str, typer.Argument(metavar="DIR", help="A new folder for the copy.")],
    *,
    data: Data = FOLDER,
    database: Url = None,
) -> None:
    """Copy all videos and their records, even while the server runs.

    \b
    Examples:
      framewake backup /backups/monday --data /srv/framewake
    """
    from framewake.app.jobs import back_up

    back_up(_place(data, database, server=None, api_key=None), target)


def restore(
    source: Annotated[str, typer.Argument(metavar="DIR", help="A folder that framewake backup made.")],
    *,
    data: Data = FOLDER,
    database: Url = None,
) -> None:
    """Restore from a backup what is missing; nothing is replaced or removed.

    \b
    Examples:
      framewake restore /backups/monday --data /srv/framewake
    """
    from framewake.app.jobs import restore as bring_back

    bring_back(source, data, database)


def _change(job: str, what: str, place: dict[str, str | None]) -> None:
    from framewake.app.jobs import change_job

    change_job(place, job, what)


def _place(data: str, database: str | None, *, server: str | None, api_key: str | None) -> dict[str, str | None]:
    return {"data": data, "database": database, "server": server, "api_key": api_key}
