"""What the first of several processes tells the others: JSON and plain arrays over TCP, never pickles.

Nobody may wait in an exchange between devices for what takes long (loading, texts, the next clip): there a wait has a
limit. Here it has none, and the end of a process is seen at once.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from framewake.engine.contract import Engine
from framewake.engine.group import group_of
from framewake.errors import EngineError, PeerError

KINDS = {str(np.dtype(kind)) for kind in ("float64", "float32", "float16", "int64", "uint16", "uint8", "bool")}
_LENGTH = struct.Struct("!Q")
MOST_TEXT = 64 << 20  # bytes of a message's JSON
TOKEN = 16  # bytes
MEETING_SECONDS = 120.0
STRANGER_SECONDS = 10.0


class Message(NamedTuple):
    """Something to do, with its settings and arrays."""

    do: str
    values: Mapping[str, Any] = {}
    arrays: Mapping[str, np.ndarray] = {}


class Link:
    """A connection to one other process."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection

    def send(self, message: Message) -> None:
        """Raises: PeerError when the other process has ended."""
        arrays = {name: np.asarray(array, order="C") for name, array in message.arrays.items()}
        told = [[name, str(array.dtype), list(array.shape)] for name, array in arrays.items()]
        text = json.dumps([message.do, dict(message.values), told]).encode()
        try:
            self._connection.sendall(_LENGTH.pack(len(text)) + text)
            for array in arrays.values():
                self._connection.sendall(array.reshape(-1).view(np.uint8).data)
        except OSError as error:
            raise _gone(error) from error

    def receive(self) -> Message:
        """Wait for the next message, however long that takes.

        Raises: PeerError when the other process has ended, EngineError for what is no message.
        """
        (length,) = _LENGTH.unpack(self.read(_LENGTH.size))
        if length > MOST_TEXT:
            raise EngineError("another program speaks on the connection between this clip's processes.")
        do, values, told = json.loads(self.read(length))
        arrays = {}
        for name, kind, shape in told:
            if kind not in KINDS:
                raise EngineError(f"a message between this clip's processes holds an array of {kind!r}.")
            array = np.empty(shape, kind)
            self._fill(array.reshape(-1).view(np.uint8).data)
            arrays[name] = array
        return Message(do, values, arrays)

    def close(self) -> None:
        """End the connection; the other side is told that."""
        self._connection.close()

    def read(self, count: int) -> bytes:
        """So many bytes.

        Raises: PeerError when the other process has ended.
        """
        data = bytearray(count)
        self._fill(memoryview(data))
        return bytes(data)

    def _fill(self, place: memoryview) -> None:
        try:
            while place.nbytes:
                count = self._connection.recv_into(place)
                if count == 0:
                    raise _gone(None)
                place = place[count:]
        except OSError as error:
            raise _gone(error) from error


class Lead:
    """The first process's side: it tells all others the same. Without others, every call does nothing."""

    def __init__(self, links: Sequence[Link] = ()) -> None:
        self._links = tuple(links)
        self.is_lost = False
        self.is_in_step = False

    @property
    def is_alone(self) -> bool:
        """Whether there is nobody to tell."""
        return not self._links

    def tell(
        self, do: str, values: Mapping[str, Any] | None = None, *, arrays: Mapping[str, Any] | None = None
    ) -> None:
        """Raises: PeerError when one of the others has ended, or waits for what will not come."""
        self.check()
        for link in self._links:
            link.send(Message(do, values or {}, arrays or {}))

    def check(self) -> None:
        """Raises: PeerError when the others wait for what will not come."""
        if self.is_lost:
            raise PeerError("this group of processes broke off in the middle of a step: start it anew.")

    def wait(self) -> None:
        """Until all others have said that they are ready.

        Raises: PeerError when one of them has ended.
        """
        for link in self._links:
            link.receive()

    def waits(self) -> bool:
        """Whether the others wait in an exchange for this process: an interrupt now would lose them."""
        return self.is_in_step

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Work with exchanges in it; where it breaks off, ``is_in_step`` stays true."""
        self.is_in_step = not self.is_alone
        yield
        self.is_in_step = False

    def lose(self) -> None:
        """The others are left waiting in an exchange: only their end helps."""
        self.is_lost, self.is_in_step = bool(self._links), False

    def close(self) -> None:
        """Send the others home; for those that are lost, the connection ends, and who has gone is gone."""
        for link in self._links:
            with contextlib.suppress(PeerError):
                if not self.is_lost:
                    link.send(Message("leave"))
            link.close()
        self._links = ()


def meet(engine: Engine) -> Lead | Link:
    """The connections of an engine's processes: the first gets a ``Lead``, each other one its link to that.

    All of them call it, in the same order. The port and a random token come through the devices' own exchange, so
    nobody else is listened to.
    Raises: EngineError when they do not find each other.
    """
    if engine.size() == 1:
        return Lead()
    group = group_of()
    host = "127.0.0.1" if group is None or not group.host else group.host
    return _call_together(engine, host) if engine.rank() == 0 else _answer(engine, host)


def _call_together(engine: Engine, host: str) -> Lead:
    token = secrets.token_bytes(TOKEN)
    links: dict[int, Link] = {}
    try:
        listener = socket.create_server((host, 0))
    except OSError as error:
        raise EngineError(
            f"the first process cannot listen at {host} ({error.strerror}): its launcher has to name an address of "
            "this machine."
        ) from error
    with listener:
        _told_numbers(engine, [listener.getsockname()[1], *token])
        end = time.monotonic() + MEETING_SECONDS
        while len(links) < engine.size() - 1:
            listener.settimeout(max(end - time.monotonic(), 0.01))
            try:
                connection, _ = listener.accept()
            except TimeoutError as error:
                missing = sorted(set(range(1, engine.size())) - set(links))
                raise EngineError(f"process {missing[0]} of {engine.size()} has not come to {host}.") from error
            rank = _rank_of(connection, token)
            if rank is None:
                connection.close()
            else:
                links[rank] = Link(connection)
    return Lead([links[rank] for rank in sorted(links)])


def _rank_of(connection: socket.socket, token: bytes) -> int | None:
    """Who is calling; None for a stranger, who may say anything or nothing."""
    connection.settimeout(STRANGER_SECONDS)
    try:
        told = Link(connection).read(TOKEN + 4)
    except PeerError:
        return None
    connection.settimeout(None)
    return int.from_bytes(told[TOKEN:], "big") if hmac.compare_digest(told[:TOKEN], token) else None


def _answer(engine: Engine, host: str) -> Link:
    port, *token = _told_numbers(engine, [0] * (TOKEN + 1))
    try:
        connection = socket.create_connection((host, port), timeout=MEETING_SECONDS)
        connection.settimeout(None)
        connection.sendall(bytes(token) + engine.rank().to_bytes(4, "big"))
    except OSError as error:
        raise EngineError(f"the first process cannot be reached at {host}, port {port} ({error}).") from error
    return Link(connection)


def _told_numbers(engine: Engine, numbers: list[int]) -> list[int]:
    """The first process's numbers, on all."""
    own, rank = engine.asarray(np.array(numbers, np.int64)), engine.rank()
    nothing, ranks = engine.zeros((0,), "int64"), range(engine.size())
    pieces = [own if rank in (0, other) else nothing for other in ranks]
    shapes = [(len(numbers),) if other in (0, rank) else (0,) for other in ranks]
    return [int(number) for number in engine.numpy(engine.exchange(pieces, shapes)()[0])]


def _gone(error: OSError | None) -> PeerError:
    said = "" if error is None else f" ({error.strerror or error})"
    return PeerError(f"another of this clip's processes has ended{said}.")
