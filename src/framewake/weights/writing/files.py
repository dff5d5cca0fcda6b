"""Writes tensor files without a framework, one part of a tensor at a time: a file may be larger than memory."""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import struct
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from framewake.errors import CheckpointError
from framewake.lasting import written_whole
from framewake.weights.reading.pickle_values import DTYPES
from framewake.weights.reading.pieces import Target
from framewake.weights.reading.storage import STORAGE

ALIGNMENT = 64  # of a storage in a .pt file, so that it can be mapped
# Only these have a storage class in every version of torch.
TORCH_KINDS = {
    "F64": "DoubleStorage",
    "F32": "FloatStorage",
    "F16": "HalfStorage",
    "BF16": "BFloat16Storage",
    "I64": "LongStorage",
    "I32": "IntStorage",
    "I16": "ShortStorage",
    "I8": "CharStorage",
    "U8": "ByteStorage",
    "BOOL": "BoolStorage",
}
SAFETENSORS_KINDS = tuple(DTYPES.values())
_KINDS = {np.dtype(np.float32): "F32", np.dtype(np.float16): "F16", np.dtype(np.int64): "I64"}
# Under which name a checksum of the whole file stands in its metadata, and what stands there until it is known.
SEAL, BLANK_SEAL = "framewake_sha256", "0" * 64
SEAL_MARK = f'"{SEAL}":"'.encode()  # quotes inside of values are escaped, so it stands nowhere else


def bytes_of(targets: Sequence[Target]) -> int:
    """Bytes of all tensors."""
    return sum(math.prod(target.shape) * STORAGE[target.kind].itemsize for target in targets)


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray],
    *,
    metadata: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
) -> None:
    """Write float32, float16 and int64 arrays as one safetensors file, whole or not at all.

    ``kinds`` names the stored type of arrays that hold bits, as ``TensorFile.raw`` gives them, such as "BF16".
    Raises: UnwritableError, DiskFullError.
    """
    targets = []
    for name, values in tensors.items():
        kind = (kinds or {}).get(name, _KINDS.get(values.dtype))
        if kind is None or STORAGE[kind] != values.dtype:
            raise CheckpointError(f"{name!r} has type {values.dtype}; only float32, float16 and int64 are written.")
        targets.append(Target(name, kind, values.shape, functools.partial(_at_once, values)))
    write_safetensors(Path(path), targets, metadata=metadata)


def _at_once(values: np.ndarray) -> Iterator[np.ndarray]:
    yield np.ascontiguousarray(values)


def write_safetensors(path: Path, targets: Sequence[Target], *, metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file, whole or not at all; a ``SEAL`` in its metadata gets the checksum.

    Raises: UnwritableError, DiskFullError.
    """
    # Other readers refuse a file that does not say which layout its tensors have; "pt" is row-major.
    header: dict[str, object] = {"__metadata__": {"format": "pt", **(metadata or {})}}
    at = 0
    for target in targets:
        stop = at + bytes_of([target])
        header[target.name] = {"dtype": target.kind, "shape": list(target.shape), "data_offsets": [at, stop]}
        at = stop
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)

    def write(file: IO[bytes]) -> None:
        begin = len(text).to_bytes(8, "little") + text
        digest = hashlib.sha256(begin) if SEAL_MARK in begin else None
        file.write(begin)
        for target in targets:
            for chunk in target.chunks():
                file.write(chunk.data)
                if digest is not None:
                    digest.update(chunk.reshape(-1).view(np.uint8).data)
        if digest is not None:
            file.seek(begin.index(SEAL_MARK) + len(SEAL_MARK))
            file.write(digest.hexdigest().encode())

    _whole(path, targets, write)


def write_torch(path: Path, targets: Sequence[Target], *, key: str | None = None) -> None:
    """Write a ``.pt`` file as ``torch.save`` would, the tensors in a dict below ``key``; torch is not needed.

    Raises: UnwritableError, DiskFullError.
    """

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            _member(file, archive, "archive/data.pkl", [_pickle(targets, key)])
            _member(file, archive, "archive/byteorder", [b"little"])
            for index, target in enumerate(targets):
                _member(file, archive, f"archive/data/{index}", (chunk.tobytes() for chunk in target.chunks()))
            _member(file, archive, "archive/version", [b"3\n"])

    _whole(path, targets, write)


def _member(file: IO[bytes], archive: zipfile.ZipFile, name: str, pieces: Iterable[bytes]) -> None:
    """A member of the archive in a file whose data begins at a multiple of ``ALIGNMENT``."""
    info = zipfile.ZipInfo(name)
    place = file.tell() + 30 + len(name) + 20 + 4  # its header, the zip64 field, the padding's own header
    padding = -place % ALIGNMENT
    info.extra = struct.pack("<2H", 0x4246, padding) + b"Z" * padding
    with archive.open(info, "w", force_zip64=True) as member:
        for piece in pieces:
            member.write(piece)


def _pickle(targets: Sequence[Target], key: str | None) -> bytes:
    items = b"".join(_text(target.name) + _tensor(index, target) for index, target in enumerate(targets))
    state = b"}(" + items + b"u"
    return b"\x80\x02" + (state if key is None else b"}" + _text(key) + state + b"s") + b"."


def _tensor(index: int, target: Target) -> bytes:
    strides = [math.prod(target.shape[i + 1 :]) for i in range(len(target.shape))]
    storage = _text("storage") + _name("torch", TORCH_KINDS[target.kind]) + _text(str(index)) + _text("cpu")
    storage = b"(" + storage + _number(math.prod(target.shape)) + b"tQ"
    hooks = _name("collections", "OrderedDict") + b")R"
    arguments = storage + _number(0) + _row(target.shape) + _row(strides) + b"\x89" + hooks
    return _name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"


def _text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _number(value: int) -> bytes:
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def _row(values: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_number, values)) + b"t"


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _whole(path: Path, targets: Sequence[Target], write: Callable[[IO[bytes]], None]) -> None:
    """Let a file appear under its name when it is complete."""
    with written_whole(path, bytes_of(targets)) as part, open(part, "wb") as file:
        write(file)
