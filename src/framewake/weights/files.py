"""Safetensors files read lazily and without any framework, and written without one.

Nothing in a file is executed, and nothing in its header is believed before it is checked: a file
that fails a check raises ``CheckpointError`` and no other error.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.errors import CheckpointError

HEADER_BYTES = 100_000_000  # far above any real header; a larger length is damage, not data

# How each type is laid out on disk; numpy has no bfloat16 and no float8, so their bits are kept.
_STORAGE: dict[str, np.dtype] = {
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
    "F8_E4M3": np.dtype("u1"),
    "F8_E5M2": np.dtype("u1"),
    "I64": np.dtype("<i8"),
    "I32": np.dtype("<i4"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype("?"),
}
_WRITTEN = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int64): "I64"}


class Entry(NamedTuple):
    """Where a tensor lies: offsets count from the end of the header. Units: bytes."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


class TensorFile:
    """One safetensors file, mapped into memory; nothing but its header is read until asked for."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            self._bytes = np.memmap(self.path, dtype=np.uint8, mode="r")
        except (OSError, ValueError) as error:  # an empty file cannot be mapped: ValueError
            raise CheckpointError(f"{self.path} cannot be read: {error}.") from error
        header = self._header()
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        if not isinstance(self.metadata, dict):
            raise self._damaged("its __metadata__ is not an object")
        self._entries = {name: self._entry(name, value) for name, value in header.items()}
        self._check_layout()

    def names(self) -> tuple[str, ...]:
        """Every tensor name, in the file's order."""
        return tuple(self._entries)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, from the header."""
        return self._entries[name].shape

    def dtype(self, name: str) -> str:
        """A tensor's type as the file names it, such as "BF16"."""
        return self._entries[name].dtype

    def raw(self, name: str) -> np.ndarray:
        """The stored bits: bfloat16 as uint16, float8 as uint8; not copied."""
        entry = self._entries[name]
        data = self._bytes[self._data_start + entry.start : self._data_start + entry.stop]
        return np.ndarray(entry.shape, _STORAGE[entry.dtype], buffer=data) if data.size else self._nothing(entry)

    def read(self, name: str) -> np.ndarray:
        """A copy of the values; bfloat16 and float8 widened to float32, which is exact."""
        return widen(self.raw(name), self.dtype(name))

    def _nothing(self, entry: Entry) -> np.ndarray:
        return np.empty(entry.shape, _STORAGE[entry.dtype])

    def _damaged(self, why: str) -> CheckpointError:
        return CheckpointError(
            f"{self.path} is not a usable safetensors file: {why}. Its size is {self._bytes.size} bytes; "
            "download or copy it again."
        )

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

    def _entry(self, name: str, value: Any) -> Entry:
        if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
            raise self._damaged(f"{name!r} does not have exactly dtype, shape and data_offsets")
        dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
        if not isinstance(dtype, str) or dtype not in _STORAGE:
            raise self._damaged(f"{name!r} has the unknown type {dtype!r}; known: {', '.join(_STORAGE)}")
        if not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
            raise self._damaged(f"{name!r} has the shape {shape!r} at {offsets!r}; whole numbers from 0 are needed")
        needed = math.prod(shape) * _STORAGE[dtype].itemsize
        start, stop = offsets
        if stop - start != needed:
            raise self._damaged(f"{name!r} needs {needed} bytes for {dtype} {shape} but has {stop - start}")
        if stop > self._bytes.size - self._data_start:
            raise self._damaged(f"{name!r} ends {stop} bytes into data of {self._bytes.size - self._data_start} bytes")
        return Entry(dtype, tuple(shape), start, stop)

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


class ShardedFiles:
    """Several safetensors files under one ``*.safetensors.index.json``, used like one file."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        places = read_json(self.path).get("weight_map")
        if not isinstance(places, dict) or not all(isinstance(place, str) for place in places.values()):
            raise CheckpointError(f"{self.path} has no weight_map of names to file names.")
        shards = sorted(set(places.values()))
        for shard in shards:
            if Path(shard).name != shard:
                raise CheckpointError(f"{self.path} points outside its folder: {shard!r}.")
        self._files = {shard: TensorFile(self.path.parent / shard) for shard in shards}
        self._places: dict[str, TensorFile] = {name: self._files[shard] for name, shard in places.items()}
        held = [(name, file) for file in self._files.values() for name in file.names()]
        wrong = [name for name, file in held if self._places.get(name) is not file]
        wrong += [name for name in places if name not in self._places[name].names()]
        if wrong:
            raise CheckpointError(
                f"{self.path} and its {len(shards)} files disagree about {len(wrong)} tensors, first {wrong[0]!r}. "
                "Download the checkpoint again."
            )

    def names(self) -> tuple[str, ...]:
        """Every tensor name."""
        return tuple(self._places)

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape, from its header."""
        return self._places[name].shape(name)

    def dtype(self, name: str) -> str:
        """A tensor's type as its file names it."""
        return self._places[name].dtype(name)

    def raw(self, name: str) -> np.ndarray:
        """The stored bits; see ``TensorFile.raw``."""
        return self._places[name].raw(name)

    def read(self, name: str) -> np.ndarray:
        """The values; see ``TensorFile.read``."""
        return self._places[name].read(name)


def open_tensors(path: str | os.PathLike[str]) -> TensorFile | ShardedFiles:
    """The tensors of a file, of an index, or of a folder that holds one of either.

    Raises: CheckpointError when nothing or more than one thing is there.
    """
    path = Path(path)
    if path.is_dir():
        found = sorted(path.glob("*.safetensors.index.json")) or sorted(path.glob("*.safetensors"))
        if len(found) != 1:
            what = "holds no .safetensors file" if not found else f"holds several: {', '.join(f.name for f in found)}"
            raise CheckpointError(f"{path} {what}; exactly one file or one .safetensors.index.json is expected.")
        path = found[0]
    return ShardedFiles(path) if path.name.endswith(".index.json") else TensorFile(path)


def write_tensors(path: str | os.PathLike[str], tensors: Mapping[str, np.ndarray]) -> None:
    """Write float32, float16 and int64 arrays as one safetensors file, whole or not at all.

    Raises: CheckpointError when the file cannot be written.
    """
    path, header, offset = Path(path), {}, 0
    for name, values in tensors.items():
        if values.dtype not in _WRITTEN:
            raise CheckpointError(f"{name!r} has type {values.dtype}; only float32, float16 and int64 are written.")
        stop = offset + values.nbytes
        header[name] = {
            "dtype": _WRITTEN[values.dtype],
            "shape": list(values.shape),
            "data_offsets": [offset, stop],
        }
        offset = stop
    # Other readers refuse a file that does not say which layout its tensors have; "pt" is row-major.
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    unfinished = path.with_name(path.name + ".part")
    try:
        with open(unfinished, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text)
            for values in tensors.values():
                file.write(np.ascontiguousarray(values).tobytes())
        os.replace(unfinished, path)
    except OSError as error:
        unfinished.unlink(missing_ok=True)
        raise CheckpointError(f"{path} cannot be written: {error}.") from error


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The object in a JSON file.

    Raises: CheckpointError when it is missing or is not a JSON object.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object.")
    return content


def widen(raw: np.ndarray, dtype: str) -> np.ndarray:
    """Stored bits as numbers that numpy has: bfloat16 and float8 become float32."""
    if dtype == "BF16":
        return (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype in ("F8_E4M3", "F8_E5M2"):
        return _float8_table(dtype)[raw]
    return np.array(raw)


def _float8_table(dtype: str) -> np.ndarray:
    """The 256 float32 values of a float8 type."""
    mantissa_bits, bias = (3, 7) if dtype == "F8_E4M3" else (2, 15)
    bits = np.arange(256)
    exponent = (bits & 127) >> mantissa_bits
    fraction = (bits & ((1 << mantissa_bits) - 1)) / (1 << mantissa_bits)
    values = np.where(exponent == 0, fraction, fraction + 1) * 2.0 ** (np.maximum(exponent, 1) - bias)
    if dtype == "F8_E4M3":  # the "fn" form: no infinity, one NaN of each sign
        values[[0x7F, 0xFF]] = np.nan
    else:
        values = np.where(exponent == 31, np.where(fraction == 0, np.inf, np.nan), values)
    return np.where(bits >= 128, -values, values).astype(np.float32)


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)
