"""``.pt`` files made by hand, right and wrong."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np


def text(value: str) -> bytes:
    """The instruction that pushes a text."""
    return b"X" + len(value.encode()).to_bytes(4, "little") + value.encode()


def number(value: int) -> bytes:
    """The instruction that pushes a number of up to eight bytes."""
    return b"\x8a\x08" + value.to_bytes(8, "little", signed=True)


def name(module: str, what: str) -> bytes:
    """The instruction that looks a name up."""
    return f"c{module}\n{what}\n".encode()


def row(values) -> bytes:
    """A tuple of numbers."""
    return b"(" + b"".join(number(value) for value in values) + b"t"


def tensor(shape, strides, *, offset=0, count=6, key="0", kind="FloatStorage") -> bytes:
    """A tensor as torch describes it."""
    storage = b"(" + text("storage") + name("torch", kind) + text(key) + text("cpu") + number(count) + b"tQ"
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = storage + number(offset) + row(shape) + row(strides) + b"\x89" + hooks
    return name("torch._utils", "_rebuild_tensor_v2") + b"(" + arguments + b"tR"


def state(**values: bytes) -> bytes:
    """A dict of values, with begin and end of a pickle."""
    return b"\x80\x02}(" + b"".join(text(key) + value for key, value in values.items()) + b"u."


GOOD = state(a=tensor((2, 3), (3, 1)))
DATA = np.arange(6, dtype="<f4").tobytes()


def archive(path: Path, pickle: bytes = GOOD, members=None, *, order=b"little", packed=zipfile.ZIP_STORED) -> Path:
    """A ``.pt`` file with a pickle and its storages."""
    with zipfile.ZipFile(path, "w", packed) as file:
        file.writestr("x/data.pkl", pickle)
        file.writestr("x/version", "3\n")  # torch wants one
        if order is not None:
            file.writestr("x/byteorder", order)
        for key, data in ({"0": DATA} if members is None else members).items():
            file.writestr(f"x/data/{key}", data)
    return path
