"""``--devices``: how many devices make one clip together, or which."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Sequence
from typing import NamedTuple

from framewake import engine as engines
from framewake.app.launch import refuse_copies, refuse_once
from framewake.engine.group import Group, asked_threads, group_of
from framewake.errors import EngineError, InputError
from framewake.setting import shown

# After how many seconds MindSpore's processes ask again, to find each other and to part. By themselves they wait three
# to five, which spares a scheduler of thousands.
RETRIES = ("MS_RETRY_INTERVAL_LOWER", "MS_RETRY_INTERVAL_UPPER")
ASKED_AGAIN_SECONDS = "1"


class Devices(NamedTuple):
    """What ``--devices`` names: so many of them, and which, where that was said."""

    size: int
    numbers: tuple[int, ...] = ()


def parse_devices(text: str) -> Devices:
    """A number of devices, or the devices' own numbers.

    Raises: InputError.
    """
    if re.fullmatch(r"[1-9]\d{0,3}", text):
        return Devices(int(text))
    if not re.fullmatch(r"\d{1,4}(,\d{1,4})+", text):
        raise InputError(f"--devices is {shown(text)}: expected how many, such as 4, or which, such as 0,2,5.")
    numbers = tuple(map(int, text.split(",")))
    twice = next((number for number in numbers if numbers.count(number) > 1), None)
    if twice is not None:
        raise InputError(f"--devices {text} names the device {twice} twice: each makes one share of the clip.")
    return Devices(len(numbers), numbers)


def own_group(asked: Devices | None, *, option: str = "--devices names") -> Group | None:
    """The group that this process is one of; None for one that is alone.

    Raises: EngineError for a launcher whose processes cannot meet, InputError for another number of devices.
    """
    group = group_of()
    if group is None:
        refuse_copies(advice="start it with torchrun or msrun, or once")
        return None
    if asked is not None and asked.size != group.size:
        error = InputError(
            f"{group.launcher} has started {group.size} processes, but {option} {asked.size}: let them agree."
        )
        refuse_once(error, is_first=group.leads)
    return group


def variables(asked: Devices, engine: str) -> list[dict[str, str]]:
    """What each of the processes has to find in its environment; the last one of MindSpore's is its scheduler.

    Raises: InputError for devices that are not there or contradict the engine, EngineError where none can be started.
    """
    if os.name != "posix":
        raise EngineError(f"--devices does not work on {sys.platform}: processes cannot be watched there.")
    kind, device = engines.parsed(_usable(engine))
    shared = {}
    if device == "cpu":
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if asked.numbers:
            raise InputError("--devices: processors have no numbers, say how many processes, such as 2.")
        if asked.size > cores:
            raise InputError(f"--devices {asked.size}: a processor's core takes one process, and {cores} are here.")
        shared["OMP_NUM_THREADS"] = str(max((asked_threads() or cores) // asked.size, 1))
    elif ":" in device:
        raise InputError(f"--engine {engine} and --devices both name a device: leave out the engine's number.")
    numbers = asked.numbers or tuple(range(asked.size))
    return [shared | own for own in _own_variables(kind, numbers)]


def _own_variables(kind: str, numbers: Sequence[int]) -> list[dict[str, str]]:
    size, port = str(len(numbers)), str(_free_port())
    if kind == "torch":
        shared = {"WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return [shared | {"RANK": str(rank), "LOCAL_RANK": str(number)} for rank, number in enumerate(numbers)]
    shared = {"MS_WORKER_NUM": size, "MS_SCHED_HOST": "127.0.0.1", "MS_SCHED_PORT": port}
    shared |= {name: os.environ.get(name, ASKED_AGAIN_SECONDS) for name in RETRIES}
    workers = [
        shared | {"MS_ROLE": "MS_WORKER", "MS_NODE_ID": str(rank), "DEVICE_ID": str(number)}
        for rank, number in enumerate(numbers)
    ]
    return [*workers, shared | {"MS_ROLE": "MS_SCHED"}]


def _usable(engine: str) -> str:
    if engine != "auto":
        return engine
    found = engines.installed()
    return found[0] if found else engines.get().name  # which says what to install


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
