"""Whether a checkpoint is complete and undamaged, before anything runs."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.reading.files import open_tensors, weight_files
from framewake.weights.reading.gguf_blocks import bytes_of
from framewake.weights.reading.mapped import Shapes
from framewake.weights.reading.mindspore_file import MindsporeFile
from framewake.weights.reading.pieces import CHUNK_BYTES, FLOATS
from framewake.weights.reading.storage import Tensors, widen
from framewake.weights.reading.torch_file import TorchFile


class Finding(NamedTuple):
    """What is known of one part: ``problem`` is None when it can be used.

    ``kinds`` counts tensors by the type that they are stored in; ``hashes`` are SHA-256 by file, empty unless
    everything was read.
    Units: ``size`` in bytes of tensors.
    """

    component: str
    files: tuple[Path, ...]
    tensors: int
    size: int
    kinds: dict[str, int]
    hashes: dict[str, str]
    problem: str | None


def verify(checkpoint: Checkpoint, shapes: Mapping[str, Shapes], *, is_full: bool = False) -> Iterator[Finding]:
    """Look at every part, or at those that are there alone, and go on after a bad one.

    From headers alone: names, shapes, places in the files. ``is_full`` reads everything: check sums where the
    file has them, hashes, NaN and infinity.
    """
    for component in shapes:
        files: tuple[Path, ...] = ()
        try:
            paths = checkpoint.layout.weights[component]
            files = tuple(file for path in paths for file in weight_files(path))
            tensors = checkpoint.check(component, shapes[component]).file
            stored = {name: tensors.stored(name) for name in tensors.names()}
            kinds = dict(Counter(stored.values()))
            size = sum(bytes_of(kind, math.prod(tensors.shape(name))) for name, kind in stored.items())
            hashes = {}
            if is_full:
                hashes = {file.name: sha256(file) for file in files}
                _read_all(tensors, files)
            yield Finding(component, files, len(tensors.names()), size, kinds, hashes, None)
        except CheckpointError as error:
            yield Finding(component, files, 0, 0, {}, {}, str(error))


def sha256(path: Path) -> str:
    """The hash of a file, as hubs publish it.

    Raises: CheckpointError when it cannot be read.
    """
    try:
        with open(path, "rb") as file:
            found = hashlib.sha256()
            while chunk := file.read(CHUNK_BYTES):
                found.update(chunk)
            return found.hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}.") from error


def _read_all(tensors: Tensors, files: tuple[Path, ...]) -> None:
    for path in files:
        file = open_tensors(path)
        if isinstance(file, TorchFile | MindsporeFile):
            file.check_sums()
    broken = [name for name in tensors.names() if tensors.dtype(name) in FLOATS and not _is_finite(tensors, name)]
    if broken:
        raise CheckpointError(
            f"{tensors.path}: {len(broken)} tensors hold NaN or infinity, first {broken[0]!r}; download it again."
        )


def _is_finite(tensors: Tensors, name: str) -> bool:
    raw, kind = tensors.raw(name), tensors.dtype(name)
    if not raw.shape:
        return bool(np.isfinite(widen(raw, kind)))
    step = max(1, CHUNK_BYTES // (4 * raw[:1].size or 1))
    return all(np.isfinite(widen(raw[i : i + step], kind)).all() for i in range(0, raw.shape[0], step))
