"""A PostgreSQL server of the tests' own: in a temporary folder, on a free port, as another user than root."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

MISSING = "PostgreSQL is not installed here: `apt-get install postgresql` brings initdb and postgres"


def programs() -> Path | None:
    """The folder of initdb and postgres; Debian keeps them out of PATH."""
    named = shutil.which("initdb")
    found = [Path(named).resolve().parent] if named else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in found if (path / "initdb").exists() and (path / "postgres").exists()), None)


def _user() -> str | None:
    """Whom to run as: the server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """A server with an empty database; the value is its URL."""
    bin_folder, user = programs(), _user()
    assert bin_folder is not None
    folder.mkdir(parents=True)
    if user is not None:
        shutil.chown(folder, user)
        for parent in folder.parents:
            if parent.owner() == "root" and not parent.stat().st_mode & 0o001:
                parent.chmod(parent.stat().st_mode | 0o011)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    data = folder / "data"
    make = [bin_folder / "initdb", "-D", data, "-U", "framewake", "--auth=trust", "--no-sync", "-E", "UTF8"]
    subprocess.run(make, user=user, check=True, capture_output=True, cwd=folder)
    settings = ["-c", "fsync=off", "-c", f"unix_socket_directories={folder}", "-c", "listen_addresses=127.0.0.1"]
    server = subprocess.Popen(
        [bin_folder / "postgres", "-D", data, "-p", str(port), *settings],
        user=user,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ready = [bin_folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
        for _ in range(120):
            if subprocess.run(ready, capture_output=True, check=False).returncode == 0:
                break
            assert server.poll() is None, "the server did not start"
        yield f"postgresql://framewake@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(timeout=30)
