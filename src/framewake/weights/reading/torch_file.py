"""``.pt`` files read lazily and without torch; see ``pickle_values.py`` for what they may contain."""

from __future__ import annotations

import math
import os
from typing import Any

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.reading import pickle_values
from framewake.weights.reading.lazy_file import LazyFile, check_sum
from framewake.weights.reading.pickle_values import TensorPlace
from framewake.weights.reading.storage import STORAGE, is_addressable
from framewake.weights.reading.zip_file import ZipFile

# Where trainers put the model's weights inside their file, in this order (specification, section 8.2).
KEYS = ("module", "ema", "state_dict")
# Values that trainers put beside tensors, and that mean nothing here.
_PLAIN = (str, bool, type(None))
_ALONE = "Load it with torch and save the model's state_dict() alone."


class TorchFile(LazyFile[TensorPlace]):
    """One file that ``torch.save`` wrote, mapped into memory.

    ``key`` says which of the dicts in it is meant; without one it is the first of ``KEYS`` that is there, the whole
    where that has tensors, else the only dict in it that has some. Plain ``numbers`` among the tensors are kept, texts
    are not.
    Raises: CheckpointError for a file that is damaged or asks for anything but tensors.
    """

    def __init__(self, path: str | os.PathLike[str], key: str | None = None) -> None:
        super().__init__(path)
        if self._bytes[:4].tobytes() != b"PK\x03\x04":
            raise CheckpointError(
                f"{self.path} is not a .pt file: it does not begin as a zip archive does. Download or copy it again."
            )
        self._zip = ZipFile(self.path, self._bytes)
        self._folder = self._archive_folder()
        self._check_byte_order()
        try:
            content = pickle_values.load(self._zip.bytes_of(self._folder + "data.pkl").tobytes())
        except pickle_values.PickleRefused as error:
            raise CheckpointError(
                f"{self.path} was not read, and nothing in it was run: {error}. Where you trust it, load it with torch "
                "and save its state_dict() alone."
            ) from error
        chosen = self._chosen(content, key)
        self.numbers: dict[str, float] = {}
        for name, value in chosen.items():
            if isinstance(name, str) and type(value) in (float, int):
                self.numbers[name] = float(value)
                continue
            if type(value) in _PLAIN:
                continue
            if not isinstance(value, TensorPlace) or not isinstance(name, str):
                raise CheckpointError(
                    f"{self.path}: {str(name)[:80]!r} is no tensor but a {type(value).__name__}. {_ALONE}"
                )
            self._check(name, value)
            self._entries[name] = value

    def raw(self, name: str) -> np.ndarray:
        """The stored bits; not copied, so not always in one piece."""
        place = self._entries[name]
        kind = STORAGE[place.dtype]
        if not math.prod(place.shape):
            return np.empty(place.shape, kind)
        data = self._zip.bytes_of(self._member(place))
        # The stride of a single row moves nothing, and may be any number.
        steps = zip(place.shape, place.strides, strict=True)
        strides = tuple(stride * kind.itemsize if size > 1 else kind.itemsize for size, stride in steps)
        return np.ndarray(place.shape, kind, buffer=data, offset=place.offset * kind.itemsize, strides=strides)

    def start(self, name: str) -> int:
        """The byte of the file at which a tensor's bits begin."""
        place = self._entries[name]
        if not math.prod(place.shape):
            return 0
        return self._zip.members[self._member(place)].start + place.offset * STORAGE[place.dtype].itemsize

    def _runs(self, name: str) -> tuple[tuple[int, int], ...]:
        raw, start = self.raw(name), self.start(name)
        return ((start, start + raw.nbytes),) if raw.flags.c_contiguous else ()

    def check_sums(self) -> None:
        """Compare every member with the check sum that was written with it; this reads the whole file.

        Raises: CheckpointError for the first that differs.
        """
        for name, member in self._zip.members.items():
            if check_sum(self._zip.bytes_of(name)) != member.crc:
                raise self._zip.damaged(f"the check sum of {name[:80]!r} is wrong")

    def _archive_folder(self) -> str:
        found = [name for name in self._zip.members if name == "data.pkl" or name.endswith("/data.pkl")]
        if len(found) != 1:
            raise self._zip.damaged(f"it holds {len(found)} pickles named data.pkl; one is expected")
        return found[0].removesuffix("data.pkl")

    def _check_byte_order(self) -> None:
        name = self._folder + "byteorder"
        order = self._zip.bytes_of(name)[:16].tobytes() if name in self._zip.members else b"little"
        if order != b"little":
            raise CheckpointError(
                f"{self.path} was written with byte order {order!r}; only b'little' is read. "
                "Load it with torch and save it again on a little-endian machine."
            )

    def _chosen(self, content: Any, key: str | None) -> dict[Any, Any]:
        if isinstance(content, TensorPlace) or not isinstance(content, dict):
            raise CheckpointError(
                f"{self.path} holds a {type(content).__name__} instead of a dict of tensors. {_ALONE}"
            )
        if key is None:
            key = next((name for name in KEYS if isinstance(content.get(name), dict)), None)
        if key is None:
            return content if _has_tensors(content) else self._inner(content)
        if not isinstance(content.get(key), dict):
            held = ", ".join(str(name)[:40] for name in list(content)[:8])
            raise self._zip.damaged(f"it has no dict {key!r}; it has {held}")
        return content[key]

    def _inner(self, content: dict[Any, Any]) -> dict[Any, Any]:
        """The only dict of tensors in a dict that has none itself, which is itself where there is no such dict."""
        found = [name for name, value in content.items() if isinstance(value, dict) and _has_tensors(value)]
        if len(found) > 1:
            names = ", ".join(repr(str(name)[:40]) for name in found[:8])
            raise CheckpointError(f"{self.path} holds {len(found)} dicts of tensors: {names}. {_ALONE}")
        return content[found[0]] if found else content

    def _member(self, place: TensorPlace) -> str:
        return f"{self._folder}data/{place.storage.key}"

    def _check(self, name: str, place: TensorPlace) -> None:
        """A tensor lies inside its storage, and its storage inside the file."""
        member = self._zip.members.get(self._member(place))
        if member is None:
            raise self._zip.damaged(f"{name[:80]!r} lies in {place.storage.key[:80]!r}, which is not in the file")
        width = STORAGE[place.dtype].itemsize
        held, stored = member.stop - member.start, STORAGE[place.storage.dtype or "U8"].itemsize
        if place.storage.numbers * stored != held:
            raise self._zip.damaged(
                f"{name[:80]!r} lies in {place.storage.numbers * stored} bytes, the file has {held}"
            )
        count = math.prod(place.shape)
        last = place.offset + sum((n - 1) * step for n, step in zip(place.shape, place.strides, strict=True))
        if not is_addressable(place.shape) or (count and (last >= held // width or count > held // width)):
            raise self._zip.damaged(f"{name[:80]!r} of shape {list(place.shape)} is larger than its {held} bytes")


def _has_tensors(content: dict[Any, Any]) -> bool:
    return any(isinstance(value, TensorPlace) for value in content.values())
