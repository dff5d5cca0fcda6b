"""``framewake jobs``: the queue of a data folder, or of a server."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import sys
import time
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from framewake.console.escape import inline
from framewake.errors import EngineError, FramewakeError, InputError
from framewake.network import proxy_for, through
from framewake.packages import need
from framewake.setting import shown


@contextlib.contextmanager
def _told() -> Iterator[None]:
    """What a database says that stops answering in the middle, for a person."""
    try:
        yield
    except Exception as error:
        # Not imported before: half of these commands need no database.
        database = sys.modules.get("framewake.service.database")
        if database is None or not isinstance(error, database.SQLAlchemyError):
            raise
        how = "cannot be used any more" if database.is_broken(error) else "does not answer now, try again later"
        raise EngineError(f"the database {how} ({database.reason(error)}).") from error


@_told()
def show_jobs(given: Mapping[str, Any]) -> None:
    """Print the newest jobs."""
    found = _desk(given).page(given["limit"])
    if given["json"]:
        _print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    for entry in found:
        created = time.strftime("%m-%d %H:%M", time.localtime(entry["created_at"]))
        begin = f"{entry['id']}  {entry['status']:<11} {entry['progress']:>3} %  {created}"
        _print_line(f"{begin}  {_shown(entry['prompt'])}")
    if not found:
        _print("no videos")


@_told()
def show_job(given: Mapping[str, Any]) -> None:
    """Print everything about one job."""
    entry = _desk(given).get(given["job"])
    if given["json"]:
        _print(json.dumps(entry, ensure_ascii=False, indent=2))
        return
    for name, value in entry.items():
        if value is not None and name != "object":
            _print_line(f"{name.replace('_', ' ') + ':':<22} {value}")


@_told()
def change_job(given: Mapping[str, Any], what: str) -> None:
    """Pause, resume, cancel, retry or remove a job, and print what became of it."""
    _print_line(f"{given['job']}: {_desk(given).change(given['job'], what)}")


@_told()
def show_strays(given: Mapping[str, Any]) -> None:
    """Print the folders that the database does not know."""
    storage, store = open_folder(given["data"], given["database"])
    from framewake.service.strays import strays

    found = strays(storage, store)
    if given["json"]:
        _print(json.dumps([stray.to_dict() for stray in found], ensure_ascii=False, indent=2))
        return
    for stray in found:
        changed = time.strftime("%m-%d %H:%M", time.localtime(stray.changed))
        holds = ", ".join(stray.holds) or "nothing known"
        _print(f"{stray.id}  {changed}  {stray.size_bytes:>12,} bytes  {holds}  {_shown(stray.prompt or '')}")
    if not found:
        _print("no strays")


@_told()
def adopt_jobs(given: Mapping[str, Any]) -> None:
    """Take strays in again; what cannot be taken in is told, and stays where it is.

    Raises: InputError when nothing is named, or some could not be taken in.
    """
    storage, store = open_folder(given["data"], given["database"])
    from framewake.service.guard import NOBODY, owner_of
    from framewake.service.strays import adopt, strays

    ids = given["ids"] or []
    if bool(ids) == given["all"]:
        raise InputError("name the strays to take in, or --all. `framewake jobs strays` lists them.")
    owner = NOBODY if given["api_key"] is None else owner_of(given["api_key"])
    wanted, failed = ids or [stray.id for stray in strays(storage, store)], 0
    for job in wanted:
        try:
            _print(f"{job}: {adopt(storage, store, job, owner=owner)}")
        except FramewakeError as error:
            failed += 1
            _print(f"{job}: not taken in: {' '.join(str(error).split())}")
    if failed:
        raise InputError(f"{failed} of {len(wanted)} strays were not taken in; they are still where they were.")
    if not wanted:
        _print("no strays")


@_told()
def bind_folder(data: str, database: str | None) -> None:
    """Say that a data folder and a database belong together from now on."""
    need_service()
    from framewake.service.binding import bind_anew
    from framewake.service.database import Database, default_url
    from framewake.service.storage import Storage
    from framewake.service.store import JobStore
    from framewake.service.strays import strays

    if not Path(data).is_dir():
        raise InputError(f"{data} is no folder: name the data folder of framewake serve with --data.")
    os.umask(0o077)
    storage = Storage(Path(data))
    opened = Database(database or default_url(storage.folder))
    try:
        bind_anew(storage, opened)
        unknown = len(strays(storage, JobStore(opened)))
    finally:
        opened.close()
    _print(f"{storage.folder} and {opened.shown} belong together from now on.")
    if unknown:
        _print(f"{unknown} videos in the folder are not in the database: {_adopting(data, database)} takes them in.")


@_told()
def back_up(given: Mapping[str, Any]) -> None:
    """Copy a data folder and its database."""
    storage, store = open_folder(given["data"], given["database"])
    from framewake.service.backup import back_up as copy
    from framewake.service.binding import DataPlace

    count = copy(DataPlace(storage, store.database), Path(given["target"]))
    _print(f"{given['target']}: {count} videos")


@_told()
def restore(backup: str, data: str, database: str | None) -> None:
    """Bring back what a data folder does not have."""
    need_service()
    from framewake.service.backup import restore as bring_back

    os.umask(0o077)
    done = bring_back(Path(backup), Path(data), url=database)
    _print(f"{data}: {done.added} videos brought back, {done.kept} were there")
    if done.strays:
        _print(
            f"{done.strays} folders without a record are among the strays: {_adopting(data, database)} takes them in."
        )


def _adopting(data: str, database: str | None) -> str:
    """The command for strays; a database's address may hold a password, and is not repeated."""
    return f"`framewake jobs adopt --all --data {shlex.quote(data)}`" + (" (and --database)" if database else "")


def _shown(text: str) -> str:
    """A prompt for one line of a terminal."""
    return "".join(letter if letter.isprintable() else " " for letter in text)[:48]


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _print_line(text: str) -> None:
    """A line with other people's words in it: they begin no line of their own."""
    _print(inline(text))


def open_folder(data: str, database: str | None) -> tuple[Any, Any]:
    """The storage and the job store of a data folder.

    Raises: InputError, EngineError for missing packages.
    """
    need_service()
    from framewake.service.binding import FILE as BOUND
    from framewake.service.binding import open_place
    from framewake.service.database import FILE
    from framewake.service.store import JobStore

    folder = Path(data)
    if not folder.is_dir() or (database is None and not any((folder / name).is_file() for name in (FILE, BOUND))):
        raise InputError(f"{data} is no data folder of framewake serve: name it with --data, or --server URL.")
    os.umask(0o077)
    storage, opened = open_place(folder, database)
    return storage, JobStore(opened)


def open_queue(database: str) -> Any:
    """The job store of a database alone.

    Raises: InputError, EngineError for missing packages.
    """
    need_service()
    from framewake.service.database import Database
    from framewake.service.store import JobStore

    return JobStore(Database(database))


def need_service() -> None:
    """Raises: EngineError where a package of the service is missing."""
    need("framewake jobs", "sqlalchemy", "pydantic")


def _desk(given: Mapping[str, Any]) -> Any:
    if given["server"] is not None:
        return _Server(given["server"], given["api_key"])
    return _Folder(given["data"], given["database"])


@contextlib.contextmanager
def _mistakes(job: str) -> Iterator[None]:
    """What a server answers with a status of its own is a mistake in the command here."""
    from framewake.service.refusals import Refused

    try:
        yield
    except Refused as error:
        raise InputError(f"{shown(job)}: {error}") from error


class _Folder:
    """The queue behind a data folder; no server needs to run."""

    def __init__(self, data: str, database: str | None) -> None:
        if database is not None and not Path(data).is_dir():  # enough to look at the queue
            self.storage, self.store = None, open_queue(database)
        else:
            self.storage, self.store = open_folder(data, database)

    def _shown(self, row: Any) -> dict[str, Any]:
        from framewake.service.views import video

        return video(row, self.store.position(row)).model_dump()

    def page(self, limit: int) -> list[dict[str, Any]]:
        return [self._shown(row) for row in self.store.page(None, after=None, limit=limit, order="desc")]

    def get(self, job: str) -> dict[str, Any]:
        with _mistakes(job):
            return self._shown(self.store.get(job))

    def change(self, job: str, what: str) -> str:
        with _mistakes(job):
            return self._changed(job, what)

    def _changed(self, job: str, what: str) -> str:
        if self.storage is None:
            raise InputError("the files of the video are needed too: name the data folder with --data.")
        if what == "rm":
            from framewake.service.strays import remove

            remove(self.store, self.storage, job)
            return "removed"
        changes = {"retry": self.store.retry, "pause": self.store.pause, "resume": self.store.go_on}
        if what in changes:
            row = changes[what](job)
            return "pausing behind its next step" if what == "pause" and row.state == "in_progress" else row.state
        is_waiting = self.store.get(job).state in ("queued", "paused")
        row = self.store.cancel(job)
        if is_waiting:  # otherwise its worker clears what it is just writing
            with contextlib.suppress(OSError):  # what stays is cleared when the job is removed
                self.storage.clear(job)
        return row.state


class _Server:
    """The queue behind a server's API."""

    def __init__(self, url: str, key: str | None) -> None:
        need("framewake jobs --server", "httpx")
        self.url = url.rstrip("/")
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        import httpx

        from framewake.agents.calls import answered

        proxy = proxy_for(self.url)
        try:
            # The context reads SSL_CERT_FILE; proxies have been looked for already.
            with httpx.Client(
                verify=httpx.create_ssl_context(), proxy=proxy, trust_env=False, headers=self.headers, timeout=30
            ) as client:
                response = client.request(method, f"{self.url}/v1/videos{path}")
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            reason = str(error) or type(error).__name__
            raise EngineError(
                f"{self.url} does not answer as a framewake server does{through(proxy)} ({reason})."
            ) from error
        return answered(response, self.url)

    def page(self, limit: int) -> list[dict[str, Any]]:
        found = self._ask("GET", f"?limit={min(limit, 100)}").get("data")
        return [self._video(entry) for entry in (found if isinstance(found, list) else [None])]

    def get(self, job: str) -> dict[str, Any]:
        return self._video(self._ask("GET", f"/{urllib.parse.quote(job, safe='')}"))

    def _video(self, entry: Any) -> dict[str, Any]:
        """What another machine calls a video, when it has what is shown of one."""
        kinds = {"id": str, "status": str, "prompt": str, "progress": int, "created_at": int}
        is_video = isinstance(entry, dict) and all(isinstance(entry.get(name), kind) for name, kind in kinds.items())
        if not is_video or not 0 <= entry["created_at"] < 2**36:
            raise EngineError(f"{self.url} does not answer as a framewake server does (that is no video).")
        return entry

    def change(self, job: str, what: str) -> str:
        place = f"/{urllib.parse.quote(job, safe='')}"
        if what in ("retry", "pause", "resume"):
            status = str(self._ask("POST", f"{place}/{what}").get("status"))
            return "pausing behind its next step" if what == "pause" and status == "in_progress" else status
        is_final = self.get(job)["status"] not in ("queued", "in_progress", "paused")
        if is_final != (what == "rm"):
            advice = "it has ended already" if is_final else "cancel it first"
            raise InputError(f"the video cannot be {'removed' if what == 'rm' else 'cancelled'}: {advice}.")
        answer = self._ask("DELETE", place)
        return "removed" if answer.get("deleted") else str(answer.get("status"))
