"""A disk that forgets at a power cut what it was not told to keep: real code runs, and its syncs are recorded.

What survives is built anew in another folder, in two ways, between which real disks lie: ``names`` "synced" keeps a
folder's entries as they were when it was last synced, "all" keeps every entry, as a disk does that wrote its journal
just in time. In both, a file holds what it held when it was last synced, and nothing if it never was.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest


class ForgetfulDisk:
    """Records what is synced below ``folder``; files named in ``kept`` have other writers, whose syncs are not seen."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, kept: Iterable[str] = ()) -> None:
        self.folder, self.kept = folder, tuple(kept)
        self.files: dict[tuple[int, int], bytes] = {}
        self.folders: dict[tuple[int, int], set[str]] = {}
        self.held: list[int] = []  # open, so that no number of a file is used again
        self.real = os.fsync
        self._remember(folder)
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        """What the code under test calls."""
        self.real(descriptor)
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        self._remember(path)

    def _remember(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        self.held.append(descriptor)
        found = os.fstat(descriptor)
        number = found.st_dev, found.st_ino
        if stat.S_ISDIR(found.st_mode):
            self.folders[number] = set(os.listdir(path))
        else:
            self.files[number] = path.read_bytes()

    def after_a_power_cut(self, place: Path, names: Literal["synced", "all"]) -> Path:
        """What is left, in a new folder."""
        self._build(self.folder, place, names)
        return place

    def _build(self, source: Path, place: Path, names: str) -> None:
        found = source.stat()
        place.mkdir()
        left = set(os.listdir(source))
        if names == "synced":
            left &= self.folders.get((found.st_dev, found.st_ino), set()) | set(self.kept)
        for name in left:
            path = source / name
            if path.is_symlink():
                (place / name).symlink_to(os.readlink(path))
            elif path.is_dir():
                self._build(path, place / name, names)
            elif name in self.kept:
                shutil.copy(path, place / name)
            else:
                number = path.stat().st_dev, path.stat().st_ino
                (place / name).write_bytes(self.files.get(number, b""))

    def close(self) -> None:
        """Let go."""
        for descriptor in self.held:
            os.close(descriptor)
