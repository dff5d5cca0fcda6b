"""Safetensors under one checksum: files that framewake reads back are trusted whole or not at all.

The checksum is SHA-256 of the file with zeros in the checksum's own place, so that no bit of it is left out.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.reading.files import TensorFile
from framewake.weights.writing.files import BLANK_SEAL, SEAL, SEAL_MARK, write_tensors

_CHUNK = 1 << 20


def write_sealed(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> None:
    """Write arrays as ``write_tensors`` does, under a checksum.

    Raises: UnwritableError, DiskFullError.
    """
    write_tensors(path, tensors, metadata={**(metadata or {}), SEAL: BLANK_SEAL}, kinds=kinds)


def open_sealed(path: str | os.PathLike[str]) -> TensorFile:
    """Open what ``write_sealed`` wrote, once its checksum is known to be right.

    Raises: CheckpointError when it cannot be read, has no checksum, or was changed by as little as a bit.
    """
    file = TensorFile(path)
    told = file.metadata.get(SEAL)
    if not isinstance(told, str) or len(told) != len(BLANK_SEAL):
        raise CheckpointError(f"{file.path} has no checksum: it was written by another version or program.")
    try:
        found = _digest(file.path, SEAL_MARK + told.encode())
    except OSError as error:
        raise CheckpointError(f"{file.path} cannot be read ({error.strerror}).") from error
    if found != told:
        raise CheckpointError(f"{file.path} is damaged: its checksum is wrong.")
    return file


def _digest(path: Path, mark: bytes) -> str:
    """SHA-256 of a file with zeros in place of the checksum; "" where that does not stand once, as it was written.

    Read and not mapped: a disk that fails is an error here, and would be the end of the process there.
    """
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        begin = file.read(8)
        header = file.read(int.from_bytes(begin, "little"))
        if header.count(mark) != 1:
            return ""
        digest.update(begin + header.replace(mark, SEAL_MARK + BLANK_SEAL.encode()))
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
