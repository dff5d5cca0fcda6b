"""Encoded clips and captions on disk: one file each, named by a digest of everything it was made from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framewake.errors import CheckpointError, InputError
from framewake.lasting import clear_abandoned
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.reading.files import TensorFile
from framewake.weights.writing.sealed import open_sealed, write_sealed

VERSION = 2  # of what the arrays mean, and of how clips are read: until 2, phone clips lay on their side


class Cache:
    """Named arrays by key. A damaged file counts as missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder.

        Raises: InputError when it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{self.folder} cannot be made ({error.strerror}): name another with --cache.") from error
        clear_abandoned(self.folder)

    def has(self, key: str) -> bool:
        """Whether the arrays of a key are there in full."""
        if not self.path(key).exists():
            return False
        try:
            open_sealed(self.path(key))
        except CheckpointError:
            return False
        return True

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.folder / f"{key}.safetensors"

    def write(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep arrays; the file appears when it is complete."""
        write_sealed(self.path(key), arrays)

    def read(self, key: str) -> dict[str, np.ndarray]:
        """The arrays of a key.

        Raises: CheckpointError when they are gone or damaged.
        """
        file = open_sealed(self.path(key))
        return {name: file.read(name) for name in file.names()}

    def shape(self, key: str, name: str) -> tuple[int, ...]:
        """The shape of one array; nothing else is read."""
        return TensorFile(self.path(key)).shape(name)


def key_of(kind: str, facts: Mapping[str, Any]) -> str:
    """A file name for arrays that depend on these facts and on nothing else."""
    text = json.dumps({"version": VERSION, **facts}, sort_keys=True, default=str)
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def fingerprint(checkpoint: Checkpoint, *components: str) -> list[Any]:
    """What tells the parts of a checkpoint from those of another: names, sizes and times of their files."""
    found: list[Any] = []
    for component in components:
        for path in checkpoint.layout.weights[component]:
            files = sorted(path.rglob("*")) if path.is_dir() else [path]
            stats = [(file.name, file.stat()) for file in files if file.is_file()]
            found += [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]
        found.append(repr(checkpoint.configs[component]))
    return found
