"""Which of the processes that work together this one is, and its threads, by variables; no framework is asked."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import NamedTuple

from framewake.errors import EngineError

# What each launcher sets: how many processes, the number of this one, its number on its host, where the first one is.
LAUNCHERS = {
    "torchrun": ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR"),
    "msrun": ("MS_WORKER_NUM", "MS_NODE_ID", "DEVICE_ID", "MS_SCHED_HOST"),
}
SCHEDULER = ("MS_ROLE", "MS_SCHED")  # MindSpore's own process beside its workers


class Group(NamedTuple):
    """The place of this process: ``rank`` of ``size``, ``local_rank`` among those of its host, ``host`` of rank 0.

    ``is_scheduler``: it is none of them, but the one through which MindSpore's find each other.
    """

    launcher: str
    rank: int
    size: int
    local_rank: int
    host: str
    is_scheduler: bool = False

    @property
    def leads(self) -> bool:
        """Whether the others follow this one."""
        return self.rank == 0 and not self.is_scheduler


def asked_threads() -> int | None:
    """How many threads this process may take, as OMP_NUM_THREADS says; None where it says nothing."""
    named = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(named) if named.isdecimal() and int(named) > 0 else None


def group_of(environment: Mapping[str, str] = os.environ) -> Group | None:
    """The group that torchrun or msrun, or whoever sets their variables, has started; None for a process alone.

    Raises: EngineError for variables that contradict each other.
    """
    for launcher, names in LAUNCHERS.items():
        size = environment.get(names[0], "")
        if not size.isdecimal() or int(size) < 2:
            continue
        host = environment.get(names[3], "")
        if environment.get(SCHEDULER[0]) == SCHEDULER[1]:
            return Group(launcher, 0, int(size), 0, host, is_scheduler=True)
        rank = environment.get(names[1], "")
        local_rank = environment.get(names[2], rank)
        if not rank.isdecimal() or int(rank) >= int(size) or not local_rank.isdecimal():
            told = ", ".join(f"{name}={environment.get(name, '')}" for name in names)
            raise EngineError(f"the variables of a launcher make no sense ({told}): start with torchrun or msrun.")
        return Group(launcher, int(rank), int(size), int(local_rank), host)
    return None
