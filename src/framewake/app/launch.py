"""Launchers that start a program once per device: where it cannot work as a group, all would do the same."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import NoReturn

from framewake.errors import EngineError, FramewakeError, exit_code

# How many processes there are, which of them this is, and who says so. Of Slurm only what it sets for a step: inside
# a batch script that starts one process, SLURM_NTASKS counts what the script may still start.
LAUNCHERS = (
    ("WORLD_SIZE", "RANK", "torchrun"),
    ("MS_WORKER_NUM", "MS_NODE_ID", "msrun"),
    ("RANK_SIZE", "RANK_ID", "msrun or a rank table"),
    ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "mpirun"),
    ("PMI_SIZE", "PMI_RANK", "mpirun"),
    ("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "srun"),
)
# A launcher ends all processes when one has failed: the first one must have said why by then.
SILENT_SECONDS = 3.0


def refuse_copies(environment: Mapping[str, str] = os.environ, *, advice: str = "start it once") -> None:
    """Nothing in a process that was started alone; ``advice`` is what to do instead.

    Raises: EngineError in the first of several; SystemExit, without a word, in the others.
    """
    for size, rank, launcher in LAUNCHERS:
        count = environment.get(size, "")
        if not count.isdecimal() or int(count) < 2:
            continue
        error = EngineError(
            f"{launcher} has started this {count} times ({size}={count}), and all would do the same: {advice}. Where "
            f"that is meant, unset {size} first."
        )
        refuse_once(error, is_first=environment.get(rank, "0") == "0" and environment.get("MS_ROLE") != "MS_SCHED")


def refuse_once(error: FramewakeError, *, is_first: bool) -> NoReturn:
    """What all processes find is told by the first.

    Raises: the error in the first; SystemExit, without a word, in the others.
    """
    if is_first:
        raise error
    time.sleep(SILENT_SECONDS)
    sys.exit(exit_code(error))


def is_first(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is alone, or the first of those that a launcher has started."""
    return all(environment.get(rank, "0") == "0" for _, rank, _ in LAUNCHERS) and (
        environment.get("MS_ROLE") != "MS_SCHED"
    )
