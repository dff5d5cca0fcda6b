"""Becoming one of a group of processes over torch.distributed, and leaving it."""

from __future__ import annotations

import datetime

import torch
import torch.distributed as dist
from torch.distributed.rendezvous import rendezvous

from framewake.console.escape import one_line
from framewake.errors import EngineError

BACKEND = "framewake/backend"
JOINING = datetime.timedelta(minutes=30)  # bounds every later wait too: a rank may load weights meanwhile


def join(group, device):
    """Become one of a group's processes; the address is read from the environment.

    Raises: EngineError when the others are not found, or this device is of another kind than the first process's.
    """
    if dist.is_initialized():
        return
    is_cuda = device.startswith("cuda")
    if is_cuda:
        torch.cuda.set_device(torch.device(device))
    try:
        backend = "nccl" if is_cuda else "gloo"
        store, rank, size = next(rendezvous("env://", group.rank, group.size, timeout=JOINING))
        _check_alike(store, backend, rank)
        dist.init_process_group(backend, store=store, timeout=JOINING, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise EngineError(
            f"process {group.rank} of {group.size} finds no other ({one_line(str(error))[:300]}): start all of them "
            "with one launcher, and let MASTER_ADDR and MASTER_PORT lead to the first."
        ) from error


def _check_alike(store, backend, rank):
    """Two kinds of transport would wait for each other, for as long as joining may take.

    Raises: EngineError.
    """
    if rank == 0:
        store.set(BACKEND, backend)
        return
    first = store.get(BACKEND).decode()
    if first != backend:
        raise EngineError(
            f"process {rank} exchanges by {backend}, the first one by {first}: name the same --engine on every host."
        )


def leave():
    """End the group's connections, after the last exchange."""
    if dist.is_initialized():
        dist.destroy_process_group()
