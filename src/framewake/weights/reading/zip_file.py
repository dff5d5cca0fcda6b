"""Where the members of an uncompressed zip archive lie, checked before any of it is believed.

Python's own ``zipfile`` opens compressed, overlapping and repeated members as well, and none of those has
a place in a weight file: a member here is one run of bytes that no other member touches.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framewake.errors import CheckpointError

MOST_MEMBERS = 100_000
_END = struct.Struct("<4s4H2IH")
_END64_PLACE = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_LOCAL = struct.Struct("<4s5H3I2H")
_FULL = 0xFFFFFFFF  # a number that stands in the zip64 field instead


class Member(NamedTuple):
    """One member. Units: ``start`` and ``stop`` are byte offsets of its data in the file."""

    start: int
    stop: int
    crc: int


class ZipFile:
    """The members of an archive that is mapped into memory.

    Raises: CheckpointError for anything but distinct, stored members that lie apart.
    """

    def __init__(self, path: Path, data: np.ndarray) -> None:
        self.path = path
        self._data = data
        self.members: dict[str, Member] = {}
        first, size, count = self._directory()
        if count > MOST_MEMBERS or count * _CENTRAL.size > size:
            raise self.damaged(f"it claims {count} members in a directory of {size} bytes")
        at, end, taken = first, first + size, []
        for _ in range(count):
            name, header, member, at = self._member(at, end)
            if name in self.members:
                raise self.damaged(f"the member {name[:80]!r} occurs twice")
            self.members[name] = member
            taken.append((header, member.stop, name))
        if at != end:
            raise self.damaged(f"its directory ends at {at} instead of {end}")
        before = 0
        for header, stop, name in sorted(taken):
            if header < before or stop > first:
                raise self.damaged(f"the member {name[:80]!r} overlaps another part of the file")
            before = stop

    def damaged(self, why: str) -> CheckpointError:
        """The error for a fault in the archive."""
        return CheckpointError(
            f"{self.path} is not a usable .pt file: {why}. Its size is {self._data.size} bytes; "
            "download or copy it again."
        )

    def bytes_of(self, name: str) -> np.ndarray:
        """The bytes of a member, not copied."""
        member = self.members[name]
        return self._data[member.start : member.stop]

    def _unpack(self, form: struct.Struct, at: int, signature: bytes) -> tuple[int, ...]:
        """The numbers of a record after its signature."""
        if at < 0 or at + form.size > self._data.size:
            raise self.damaged("a record lies outside the file")
        found, *values = form.unpack(self._data[at : at + form.size].tobytes())
        if found != signature:
            raise self.damaged(f"no {signature!r} at {at}")
        return tuple(values)

    def _directory(self) -> tuple[int, int, int]:
        """Offset, size and number of entries of the central directory."""
        tail_start = max(0, self._data.size - _END.size - 0xFFFF)
        tail = self._data[tail_start:].tobytes()
        found = tail.rfind(b"PK\x05\x06")
        if found < 0:
            raise self.damaged("it has no end of a zip archive; it was probably cut off")
        at = tail_start + found
        disk, other, here, count, size, first, comment = self._unpack(_END, at, b"PK\x05\x06")
        if at + _END.size + comment != self._data.size:
            raise self.damaged("something follows the end of the archive")
        if _FULL in (size, first) or 0xFFFF in (disk, other, here, count):
            place = self._unpack(_END64_PLACE, at - _END64_PLACE.size, b"PK\x06\x07")
            at = place[1]
            _, _, _, disk, other, here, count, size, first = self._unpack(_END64, at, b"PK\x06\x06")
        if disk or other or here != count:
            raise self.damaged("it is one part of a split archive")
        if first + size > at:
            raise self.damaged("its directory lies outside the file")
        return first, size, count

    def _member(self, at: int, end: int) -> tuple[str, int, Member, int]:
        """Name, header offset and data of the entry at ``at``, and where the next entry begins."""
        if at + _CENTRAL.size > end:
            raise self.damaged("its directory is cut off")
        fields = self._unpack(_CENTRAL, at, b"PK\x01\x02")
        flags, method, crc = fields[2], fields[3], fields[6]
        packed, size, name_length, extra_length, comment_length = fields[7:12]
        header = fields[15]
        at += _CENTRAL.size
        following = at + name_length + extra_length + comment_length
        if following > end:
            raise self.damaged("its directory is cut off")
        name = self._name(at, name_length)
        extra = self._data[at + name_length : at + name_length + extra_length].tobytes()
        size, packed, header = self._wide(name, extra, (size, packed, header))
        if flags & 1 or method != 0 or size != packed:
            raise self.damaged(f"the member {name[:80]!r} is compressed or encrypted; weights are stored as they are")
        local = self._unpack(_LOCAL, header, b"PK\x03\x04")
        start = header + _LOCAL.size + local[8] + local[9]
        if local[8] != name_length or self._name(header + _LOCAL.size, name_length) != name:
            raise self.damaged(f"the member {name[:80]!r} has another name at its data")
        if start + size > self._data.size:
            raise self.damaged(f"the member {name[:80]!r} ends at {start + size}, beyond the file")
        return name, header, Member(start, start + size, crc), following

    def _name(self, at: int, length: int) -> str:
        try:
            return self._data[at : at + length].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.damaged(f"a member's name at {at} is not UTF-8") from error

    def _wide(self, name: str, extra: bytes, numbers: tuple[int, ...]) -> tuple[int, ...]:
        """The numbers of an entry, with those that did not fit into four bytes from the zip64 field."""
        if _FULL not in numbers:
            return numbers
        at = 0
        while at + 4 <= len(extra):
            kind, length = struct.unpack_from("<2H", extra, at)
            field = extra[at + 4 : at + 4 + length]
            at += 4 + length
            needed = 8 * numbers.count(_FULL)
            if kind == 1 and len(field) == length and length >= needed:
                wide = iter(struct.unpack(f"<{needed // 8}Q", field[:needed]))
                return tuple(next(wide) if number == _FULL else number for number in numbers)
        raise self.damaged(f"the member {name[:80]!r} has no complete zip64 field")
