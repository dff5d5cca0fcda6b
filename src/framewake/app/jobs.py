"""``framewake jobs``: the queue of a data folder, or of a server."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from framewake.errors import EngineError, FramewakeError, InputError


def show_jobs(place: Mapping[str, Any], *, limit: int, as_json: bool) -> None:
    """Print the newest jobs."""
    found = _desk(place).page(limit)
    if as_json:
        _print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    for entry in found:
        created = time.strftime("%m-%d %H:%M", time.localtime(entry["created_at"]))
        prompt = "".join(letter if letter.isprintable() else " " for letter in entry["prompt"])[:48]
        _print(f"{entry['id']}  {entry['status']:<11} {entry['progress']:>3} %  {created}  {prompt}")
    if not found:
        _print("no videos")


def show_job(place: Mapping[str, Any], job: str, *, as_json: bool) -> None:
    """Print everything about one job."""
    entry = _desk(place).get(job)
    if as_json:
        _print(json.dumps(entry, ensure_ascii=False, indent=2))
        return
    for name, value in entry.items():
        if value is not None and name != "object":
            _print(f"{name.replace('_', ' ') + ':':<22} {value}")


def change_job(place: Mapping[str, Any], job: str, what: str) -> None:
    """Cancel, retry or remove a job, and print what became of it."""
    _print(f"{job}: {_desk(place).change(job, what)}")


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")


def _desk(place: Mapping[str, Any]) -> Any:
    if place["server"] is not None:
        return _Server(place["server"], place["api_key"])
    return _Folder(place["data"], place["database"])


class _Folder:
    """The queue behind a data folder; no server needs to run."""

    def __init__(self, data: str, database: str | None) -> None:
        try:
            from framewake.service.database import FILE, Database, default_url
            from framewake.service.storage import Storage
            from framewake.service.store import JobStore
        except ImportError as error:
            raise EngineError(f"this needs {error.name}: install it with `pip install framewake[web]`.") from error
        if database is None and not (Path(data) / FILE).is_file():
            raise InputError(f"{data} is no data folder of framewake serve: name it with --data, or --server URL.")
        self.storage = Storage(Path(data))
        self.store = JobStore(Database(database or default_url(self.storage.folder)))

    def _shown(self, row: Any) -> dict[str, Any]:
        from framewake.service.views import video

        return video(row, self.store.position(row)).model_dump()

    def page(self, limit: int) -> list[dict[str, Any]]:
        return [self._shown(row) for row in self.store.page(None, after=None, limit=limit, order="desc")]

    def get(self, job: str) -> dict[str, Any]:
        return self._shown(self.store.get(job))

    def change(self, job: str, what: str) -> str:
        if what == "rm":
            self.store.remove(job)
            self.storage.drop(job)
            return "removed"
        if what == "retry":
            return self.store.retry(job).state
        is_waiting = self.store.get(job).state == "queued"
        row = self.store.cancel(job)
        if is_waiting:  # otherwise its worker clears what it is just writing
            self.storage.clear(job)
        return row.state


class _Server:
    """The queue behind a server's API."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def _ask(self, method: str, path: str) -> dict[str, Any]:
        import httpx

        try:
            response = httpx.request(method, f"{self.url}/v1/videos{path}", headers=self.headers, timeout=30)
            body = response.json()
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            raise EngineError(f"{self.url} does not answer as a framewake server does ({error}).") from error
        if response.status_code >= 400:
            kind: Callable[[str], FramewakeError] = InputError if response.status_code < 500 else EngineError
            raise kind(body.get("error", {}).get("message", f"status {response.status_code}"))
        return body

    def page(self, limit: int) -> list[dict[str, Any]]:
        return self._ask("GET", f"?limit={min(limit, 100)}")["data"]

    def get(self, job: str) -> dict[str, Any]:
        return self._ask("GET", f"/{job}")

    def change(self, job: str, what: str) -> str:
        if what == "retry":
            return self._ask("POST", f"/{job}/retry")["status"]
        is_final = self.get(job)["status"] not in ("queued", "in_progress")
        if is_final != (what == "rm"):
            advice = "it has ended already" if is_final else "cancel it first"
            raise InputError(f"the video cannot be {'removed' if what == 'rm' else 'cancelled'}: {advice}.")
        answer = self._ask("DELETE", f"/{job}")
        return "removed" if answer["deleted"] else answer["status"]
