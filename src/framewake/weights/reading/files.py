"""Safetensors files read lazily and without any framework; any tensor file by its path.

Nothing in a file is executed, and nothing in its header is believed before it is checked: a file
that fails a check raises ``CheckpointError`` and no other error.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.reading.containers import expect, foreign, unfinished_downloads
from framewake.weights.reading.gguf_file import GgufFile
from framewake.weights.reading.lazy_file import LazyFile
from framewake.weights.reading.mindspore_file import MindsporeFile
from framewake.weights.reading.storage import STORAGE, Tensors, is_addressable
from framewake.weights.reading.torch_file import TorchFile
from framewake.weights.reading.views import View

NAME_LETTERS = 200  # of a shard's file
# Types of safetensors that no weights here come in.
NOT_READ = ("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "U16", "U32", "U64", "C64")
HEADER_BYTES = 100_000_000  # far above any real header; a larger length is damage, not data


class StoredTensor(NamedTuple):
    """Where a tensor lies: offsets count from the end of the header. Units: bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile(LazyFile[StoredTensor]):
    """One safetensors file, mapped into memory; nothing but its header is read until asked for."""

    kind = "safetensors file"

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(path)
        header = self._header()
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict):
            raise self._damaged("its __metadata__ is not an object")
        self._entries = {name: self._entry(name, value) for name, value in header.items()}
        self._check_layout()

    def raw(self, name: str) -> np.ndarray:
        """The stored bits: bfloat16 as uint16, float8 as uint8; not copied."""
        entry = self._entries[name]
        ((start, stop),) = self._runs(name)
        if start == stop:
            return np.empty(entry.shape, STORAGE[entry.dtype])
        return np.ndarray(entry.shape, STORAGE[entry.dtype], buffer=self._bytes[start:stop])

    def _runs(self, name: str) -> tuple[tuple[int, int], ...]:
        entry = self._entries[name]
        return ((self._data_start + entry.start, self._data_start + entry.stop),)

    def _header(self) -> dict[str, Any]:
        if self._bytes.size < 8:
            raise self._damaged("it is shorter than the 8 bytes that give the header's length")
        length = int.from_bytes(self._bytes[:8].tobytes(), "little")
        if length > min(HEADER_BYTES, self._bytes.size - 8):
            raise self._damaged(f"its header claims {length} bytes, more than the file can hold")
        self._data_start = 8 + length
        try:
            header = json.loads(self._bytes[8 : self._data_start].tobytes(), object_pairs_hook=self._unique)
        except (ValueError, RecursionError) as error:
            raise self._damaged(f"its header is not JSON ({error})") from error
        if not isinstance(header, dict):
            raise self._damaged("its header is not an object")
        return header

    def _unique(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise self._damaged(f"the name {twice!r} occurs twice")
        return result

    def _entry(self, name: str, value: Any) -> StoredTensor:
        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
            raise self._damaged(f"{name!r} does not have exactly dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if dtype in NOT_READ:
            raise CheckpointError(
                f"{self.path}: {name!r} is stored as {dtype}, which is not read; {', '.join(STORAGE)} are. Take the "
                "bfloat16 or fp8 file of the same model."
            )
        if not isinstance(dtype, str) or dtype not in STORAGE:
            raise self._damaged(f"{name!r} has the unknown type {dtype!r}; known: {', '.join(STORAGE)}")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise self._damaged(f"{name!r} has the shape {shape!r} at {offsets!r}; whole numbers from 0 are needed")
        if not is_addressable(shape):
            raise self._damaged(f"{name!r} has {len(shape)} dimensions of up to {max(shape)}")
        needed = math.prod(shape) * STORAGE[dtype].itemsize
        start, stop = offsets
        if stop - start != needed:
            raise self._damaged(f"{name!r} needs {needed} bytes for {dtype} {shape} but has {stop - start}")
        if stop > self._bytes.size - self._data_start:
            raise self._damaged(f"{name!r} ends {stop} bytes into data of {self._bytes.size - self._data_start} bytes")
        return StoredTensor(dtype, tuple(shape), start, stop)

    def _check_layout(self) -> None:
        """Tensors lie one after another and fill the file: no overlap hides data, no gap hides a payload."""
        end = 0
        for name, entry in sorted(self._entries.items(), key=lambda item: (item[1].start, item[1].stop)):
            if entry.start != end:
                fault = "overlaps the tensor before it" if entry.start < end else "leaves a gap before it"
                raise self._damaged(f"{name!r} {fault}")
            end = entry.stop
        if end != self._bytes.size - self._data_start:
            raise self._damaged(f"its tensors end at {end} of {self._bytes.size - self._data_start} bytes")


class ShardedFiles(View):
    """Several files under one ``*.index.json``, used like one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        places = _weight_map(path)
        self._files = {shard: open_file(path.parent / shard) for shard in sorted(set(places.values()))}
        super().__init__(path, {name: (self._files[shard], name) for name, shard in places.items()})
        held = {shard: set(file.names()) for shard, file in self._files.items()}
        wrong = sorted(name for shard, names in held.items() for name in names if places.get(name) != shard)
        wrong += [name for name, shard in places.items() if name not in held[shard]]
        if wrong:
            raise CheckpointError(
                f"{path} and its {len(held)} files disagree about {len(wrong)} tensors, first {wrong[0]!r}. "
                "Download the checkpoint again."
            )

    def shards(self) -> list[TensorFile]:
        """The safetensors files themselves."""
        return [file for file in self._files.values() if isinstance(file, TensorFile)]


def _weight_map(path: Path) -> dict[str, str]:
    """Which shard holds which tensor, by an index that was checked: every shard is a file beside it that is there.

    Raises: CheckpointError, one for all missing shards.
    """
    places = read_json(path).get("weight_map")
    if not isinstance(places, dict) or not places or not all(isinstance(place, str) for place in places.values()):
        raise CheckpointError(f"{path} has no weight_map of names to file names.")
    shards = sorted(set(places.values()))
    for shard in shards:
        is_plain = Path(shard).name == shard and "\\" not in shard and shard.isprintable() and len(shard) < NAME_LETTERS
        if not is_plain or shard.endswith(".json"):
            raise CheckpointError(f"{path} points outside its folder, or to no file of weights: {shard!r}.")
    missing = [shard for shard in shards if not (path.parent / shard).is_file()]
    if missing:
        unfinished = [file.name for file in unfinished_downloads(path.parent)]
        begun = f" Begun, but not finished: {', '.join(unfinished)}." if unfinished else ""
        raise CheckpointError(
            f"{path.parent} lacks {len(missing)} of the {len(shards)} files that {path.name} names, first "
            f"{missing[0]!r}.{begun} Download the checkpoint in full."
        )
    return places


# What a folder may hold, the first kind that is there counts: some hold the same weights several times.
PATTERNS = tuple(
    re.compile(rf"(?P<stem>{stem})(?:{ending})", re.IGNORECASE)
    for stem, ending in (
        (r"[^.].*", r"\.safetensors\.index\.json"),
        (r"[^.].*", r"\.safetensors|\.sft"),
        (r"[^.].*", r"(?<=pytorch_model)\.bin\.index\.json"),
        (r"[^.].*pytorch_model.*|pytorch_model.*", r"\.bin"),
        (r"[^.].*", r"\.pth?"),
        (r"[^.].*", r"\.ckpt"),
        (r"[^.].*", r"\.gguf"),
    )
)
_SHARD = re.compile(r"-\d+-of-\d+$")
# Beside eight-bit weights in a file of their own: their scales.
MAP = "_map"


def open_tensors(path: str | os.PathLike[str]) -> Tensors:
    """The tensors of a file, of an index, or of a folder that holds one of either.

    Raises: CheckpointError when nothing or more than one thing is there.
    """
    return open_file(find_file(Path(path)))


def weight_files(path: Path) -> list[Path]:
    """The files with tensors that ``open_tensors`` reads for a path."""
    path = find_file(path)
    if not path.name.endswith(".index.json"):
        return [path]
    return sorted(path.parent / name for name in set(_weight_map(path).values()))


def find_file(path: Path) -> Path:
    """The file or index that a path means: itself, or the one in a folder.

    Raises: CheckpointError when nothing or more than one thing is there.
    """
    if path.is_dir():
        found = next((files for pattern in PATTERNS if (files := _weights_in(path, pattern))), [])
        if len(found) != 1:
            names = ", ".join(file.name for file in found or unfinished_downloads(path))
            if found and all(_SHARD.search(file.stem) for file in found):
                raise CheckpointError(
                    f"{path} holds {names}, pieces of one file whose index, *.index.json, is missing."
                )
            what = f"holds several: {names}" if found else "holds no .safetensors, .bin, .pt, .ckpt or .gguf file"
            begun = f" (but {names}, which was not downloaded to its end)" if names and not found else ""
            way = " Name the one that is meant with --part NAME=FILE." if found else ""
            raise CheckpointError(f"{path} {what}{begun}; exactly one file or one index is expected.{way}")
        path = found[0]
    elif _SHARD.search(path.stem):
        path = next(
            (index for index in sorted(path.parent.glob("[!.]*.index.json")) if _names_shard(index, path)), path
        )
    return path


def _names_shard(index: Path, shard: Path) -> bool:
    """Whether a piece of a larger file belongs to an index beside it."""
    return shard.name in set(_weight_map(index).values())


def _weights_in(folder: Path, pattern: re.Pattern[str]) -> list[Path]:
    """The files of a pattern in a folder, without the scales of another one and what hubs call its variants."""
    found = [(match["stem"], file) for file in sorted(folder.iterdir()) if (match := pattern.fullmatch(file.name))]
    stems = {stem for stem, _ in found}

    def is_beside(stem: str) -> bool:
        return (stem.endswith(MAP) and stem.removesuffix(MAP) in stems) or stem.rpartition(".")[0] in stems

    return [file for stem, file in found if not is_beside(stem)]


def open_file(path: Path) -> Tensors:
    """The tensors of a file, read as its first bytes say, whatever its name is.

    Raises: CheckpointError that names what it is where that cannot be read.
    """
    if path.name.endswith(".index.json"):
        return ShardedFiles(path)
    return READERS[expect(path, READERS).key](path)


# By the keys of ``containers.py``.
READERS: dict[str, Callable[[Path], Tensors]] = {
    "safetensors": TensorFile,
    "torch": TorchFile,
    "gguf": GgufFile,
    "mindspore": MindsporeFile,
}


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises: CheckpointError when it is missing or is not a JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8-sig"))  # some editors begin with a mark
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {foreign(Path(path)) or f'{error}. Copy it again.'}") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object.")
    return content


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
