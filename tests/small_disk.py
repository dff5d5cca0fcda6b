"""A disk of a few megabytes, to be filled: a file system in memory, which only root may mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

MIB = 2**20


class SmallDisk:
    """A mounted disk and the file that fills it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.filler = folder / "filler"

    def free(self) -> int:
        """Bytes that may still be written."""
        return shutil.disk_usage(self.folder).free

    def fill(self, left: int = 0) -> None:
        """Take everything but ``left`` bytes."""
        with self.filler.open("ab") as file:
            while (room := self.free() - left) > 0:
                with contextlib.suppress(OSError):  # somebody else writes at the same time
                    size = os.fstat(file.fileno()).st_size
                    os.posix_fallocate(file.fileno(), size, room)

    def clear(self) -> None:
        """Give it back."""
        self.filler.unlink()


@contextlib.contextmanager
def mounted(folder: Path, size: int) -> Iterator[SmallDisk]:
    """A disk of ``size`` bytes; skips the test where nothing may be mounted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here: it needs Linux and root")
    try:
        yield SmallDisk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
