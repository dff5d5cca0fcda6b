"""The rows of a run's table as curves, in the files that TensorBoard reads."""

from __future__ import annotations

import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.errors import InputError
from framewake.lasting import guarded
from framewake.packages import need


def board_folder(folder: Path, target: Path) -> Path:
    """Where a LoRA's curves lie: beside those of others, so that they are compared.

    Raises: InputError where that is no folder, EngineError without the package that writes them.
    """
    need("--tensorboard", "tensorboardX")
    place = folder / target.stem
    taken = next((path for path in (place, *place.parents) if path.exists()), place)
    if taken.exists() and not taken.is_dir():
        raise InputError(f"--tensorboard {folder}: {taken} is a file; name a folder.")
    return place


class Board:
    """Curves that go on behind update ``first``: TensorBoard hides what an earlier file says of later ones.

    The package gives messages and checksums. Its own writer has a thread, which a full disk ends without a word, and a
    queue to it, which then blocks.
    Raises: UnwritableError, DiskFullError.
    """

    def __init__(self, folder: Path, first: int) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # imports PyTorch where it is installed

        self._event = Event
        # Files are read in the order of their names.
        self.path = folder / f"events.out.tfevents.{int(time.time()):010}.{first:08}"
        with guarded(folder, 0):
            folder.mkdir(parents=True, exist_ok=True)
            self.path.unlink(missing_ok=True)
        self._append(Event(file_version="brain.Event:2"))
        started = SessionLog(status=SessionLog.START)
        purged = first + 1 if first else 0  # what is known before the first update is 0
        self._append(Event(step=purged, session_log=started))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Write a point of each curve. Precision: float32."""
        points = [{"tag": tag, "simple_value": x} for tag, x in values.items()]
        self._append(self._event(step=step, summary={"value": points}))

    def _append(self, event: Any) -> None:
        from tensorboardX.record_writer import masked_crc32c

        event.wall_time = time.time()
        data = event.SerializeToString()
        size = struct.pack("<Q", len(data))
        sums = [struct.pack("<I", masked_crc32c(part)) for part in (size, data)]
        with guarded(self.path, 0), self.path.open("ab") as file:
            file.write(b"".join((size, sums[0], data, sums[1])))
