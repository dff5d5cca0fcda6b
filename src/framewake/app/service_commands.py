"""The commands of the service and their options."""

from __future__ import annotations

import inspect

import typer

from framewake.app.options import (
    JSON,
    REQUIRED,
    Given,
    argument,
    checkpoint_option,
    engine_option,
    filled,
    hung,
    named,
    parameter,
    path,
    switch,
    whole_from,
)


def _whole(flag: str, text: str, *, default: int, minimum: int = 1, maximum: int | None = None) -> inspect.Parameter:
    span = f"{minimum} or more" if maximum is None else f"{minimum} to {maximum}"
    check = whole_from(flag, minimum, maximum=maximum)
    return named(flag, "N", f"{text} ({span}).", kind=int, default=default, parser=check)


def _many(flag: str, metavar: str, text: str, *, variable: str | None = None) -> inspect.Parameter:
    return named(flag, metavar, text, kind=list[str] | None, variable=variable)


KEY_VARIABLE = "FRAMEWAKE_API_KEY"
DEVICES = named(
    "--devices",
    "N|LIST",
    "Let so many devices, or these, make each video together. Many videos are done sooner by one worker a device.",
)
CHECKPOINT = checkpoint_option("Checkpoint folder; the embedded demonstration by default.")
ENGINE = engine_option("As in framewake animate.")
DATA = path("--data", "DIR", "Folder for the queue and the videos.", default="framewake-data")
DATABASE = named(
    "--database",
    "URL",
    "postgresql://USER:PASSWORD@HOST/NAME for several machines; SQLite in the data folder by default.",
    parser=filled("--database", "a URL"),
    variable="FRAMEWAKE_DATABASE",
)
LORAS = path("--loras", "DIR", "LoRA files that users may choose by name; else those of the demonstration.")
SERVER = named(
    "--server",
    "URL",
    "The address of a running server, instead of a folder.",
    parser=filled("--server", "a URL"),
)
KEY = named("--api-key", "KEY", "Key for the server.", variable=KEY_VARIABLE)
ADOPTER = named("--api-key", "KEY", "The key whose videos they become, if any.", variable=KEY_VARIABLE)
SAVE_EVERY = _whole("--save-every", "Steps between saved states of a running video", default=5)
STALL_SECONDS = _whole(
    "--stall-seconds",
    "A worker that finishes nothing for so long, not even a block of a model, is restarted; 0: never",
    default=1800,  # a block of the published model takes minutes on a slow CPU
    minimum=0,
)
VIDEO = argument("job", "ID", "A video's id, such as video_0123...")
QUEUE = (DATA, DATABASE, SERVER, KEY)
jobs = typer.Typer(rich_markup_mode=None, help="Inspect and change the queue.", no_args_is_help=True)


def add_commands(app: typer.Typer) -> None:
    """Hang the commands of the service under the program."""
    hung(
        app,
        "serve",
        named("--host", "NAME", "Where to listen; anything but this machine needs a key.", default="127.0.0.1"),
        _whole("--port", "Port to listen on", default=7860, minimum=0, maximum=65535),
        *(CHECKPOINT, ENGINE, DEVICES, DATA, DATABASE, LORAS),
        _many("--api-key", "KEY", "A key that clients must send.", variable=KEY_VARIABLE),
        path("--api-key-file", "FILE", "Keys, one per line; other users cannot see them."),
        switch("--public", text="No keys, on any --host: strangers may use it, and see each other's videos."),
        _many("--allow-host", "NAME", "A name that a proxy passes on as Host, for a server without keys."),
        _many("--allow-origin", "URL", "Let web pages from there use the API, such as https://app.example.com."),
        named("--root-path", "PATH", "The path under which a proxy serves this, such as /framewake.", default=""),
        _many(
            "--trust-proxy",
            "ADDRESS",
            "Address or network of a proxy whose X-Forwarded headers count, beside those on this machine.",
        ),
        switch("--allow-image-urls", text="Fetch pictures from public web addresses."),
        switch("--allow-private-callbacks", text="Call webhooks on this and neighbouring machines too."),
        _whole("--max-upload-mb", "Largest picture file", default=20),
        _whole("--max-megapixels", "Largest picture", default=40, maximum=100),
        _whole("--max-queued", "Videos that may wait per key", default=1000),
        _whole("--max-per-minute", "Videos that one key may submit per minute", default=600),
        _whole("--keep", "Videos kept after they have ended; older ones are removed; 0: all", default=0, minimum=0),
        *(SAVE_EVERY, STALL_SECONDS),
        switch("--no-worker", text="No worker here: workers run elsewhere (framewake worker)."),
        switch("--no-page", text="Only the API: no page for browsers."),
    )(serve)
    hung(
        app,
        "worker",
        path("--storage", "DIR", "The data folder, shared with the server.", default=REQUIRED),
        *(DATABASE, CHECKPOINT, ENGINE, DEVICES, LORAS, SAVE_EVERY, STALL_SECONDS),
        parameter("attached", bool, False, typer.Option("--attached", hidden=True)),
    )(worker)
    hung(
        app,
        "mcp",
        *(*QUEUE, CHECKPOINT, ENGINE, LORAS, SAVE_EVERY, STALL_SECONDS),
    )(mcp)
    hung(app, "backup", argument("target", "DIR", "A new folder for the copy."), DATA, DATABASE)(backup)
    source = argument("source", "DIR", "A folder that framewake backup made.")
    hung(app, "restore", source, DATA, DATABASE)(restore)
    app.add_typer(jobs, name="jobs")


def serve(given: Given) -> None:
    """Serve videos over HTTP, from a queue that survives restarts.

    \b
    Examples:
      framewake serve
      framewake serve --host 0.0.0.0 --api-key-file keys.txt \\
          --data /srv/framewake
      framewake serve --no-worker \\
          --database postgresql://framewake@db/framewake --data /shared
    """
    from framewake.app.serve import serve as run

    run(given)


def worker(given: Given) -> None:
    """Make videos from a queue that other machines share.

    \b
    Examples:
      framewake worker --database postgresql://framewake@db/framewake \\
          --storage /shared --engine torch:cuda
      framewake worker --storage /srv/framewake --devices 4
    """
    from framewake.app.serve import work

    code = work(given)
    if code:
        raise typer.Exit(code)


def mcp(given: Given) -> None:
    """Let an agent make and see clips: tools of the Model Context Protocol on stdin and stdout.

    \b
    Examples:
      framewake mcp --data /srv/framewake
      framewake mcp --server https://video.example.com
    """
    from framewake.app.agents import serve_agents

    serve_agents(given)


@hung(
    jobs,
    "list",
    *QUEUE,
    _whole("--limit", "How many videos to list", default=20, maximum=1000),
    JSON,
)
def list_jobs(given: Given) -> None:
    """List the newest videos."""
    from framewake.app.jobs import show_jobs

    show_jobs(given)


@hung(jobs, "show", VIDEO, *QUEUE, JSON)
def show_job(given: Given) -> None:
    """Tell everything about one video."""
    from framewake.app.jobs import show_job as show

    show(given)


@hung(jobs, "cancel", VIDEO, *QUEUE)
def cancel_job(given: Given) -> None:
    """Stop a video within a step, or take it out of the queue."""
    _change(given, "cancel")


@hung(jobs, "pause", VIDEO, *QUEUE)
def pause_job(given: Given) -> None:
    """Pause a waiting video at once, and a running one with a draft behind its next step."""
    _change(given, "pause")


@hung(jobs, "resume", VIDEO, *QUEUE)
def resume_job(given: Given) -> None:
    """Let a paused video go on; one that is to pause does not."""
    _change(given, "resume")


@hung(jobs, "retry", VIDEO, *QUEUE)
def retry_job(given: Given) -> None:
    """Put a failed or cancelled video back into the queue."""
    _change(given, "retry")


@hung(jobs, "rm", VIDEO, *QUEUE)
def remove_job(given: Given) -> None:
    """Remove a video that has ended, with its files."""
    _change(given, "rm")


def _change(given: Given, what: str) -> None:
    from framewake.app.jobs import change_job

    change_job(given, what)


@hung(jobs, "strays", DATA, DATABASE, JSON)
def list_strays(given: Given) -> None:
    """List folders of videos that the database does not know."""
    from framewake.app.jobs import show_strays

    show_strays(given)


@hung(
    jobs,
    "adopt",
    argument("ids", "[ID]...", "Ids of strays.", kind=list[str] | None, default=None),
    switch("--all", text="All strays."),
    *(DATA, DATABASE, ADOPTER),
)
def adopt_strays(given: Given) -> None:
    """Take strays back: finished videos as they are, unfinished ones to be continued."""
    from framewake.app.jobs import adopt_jobs

    adopt_jobs(given)


@hung(jobs, "bind", DATA, DATABASE)
def bind(given: Given) -> None:
    """Declare that a data folder and a database belong together, though they were made apart."""
    from framewake.app.jobs import bind_folder

    bind_folder(given["data"], given["database"])


def backup(given: Given) -> None:
    """Copy all videos and their records, even while the server runs.

    \b
    Examples:
      framewake backup /backups/monday --data /srv/framewake
    """
    from framewake.app.jobs import back_up

    back_up(given)


def restore(given: Given) -> None:
    """Restore from a backup what is missing; nothing is replaced or removed.

    \b
    Examples:
      framewake restore /backups/monday --data /srv/framewake
    """
    from framewake.app.jobs import restore as bring_back

    bring_back(given["source"], given["data"], given["database"])
