"""Real processes exchange tensors of any size, on both engines; and what tells them that they belong together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from engines_here import needs_torch
from exchange_pieces import KINDS, LAYOUTS, piece
from started import Ranks, finished

from framewake.engine.group import Group, group_of
from framewake.errors import EngineError

HERE = Path(__file__).parent
SIZES = {"torch": 3, "mindspore": 2}  # clips by two processes: tests/app/test_start.py


def check_arrived(folder: Path, size: int) -> None:
    for rank in range(size):
        found = np.load(folder / f"rank{rank}.npz")
        for layout in LAYOUTS:
            for kind in KINDS:
                for source in range(size):
                    expected = piece(layout, source, rank, kind)
                    arrived = found[f"{layout} {kind} {source}"]
                    assert arrived.shape == expected.shape and np.array_equal(arrived, expected), (layout, kind, source)
        assert found["first"].tolist() == [[source] * 2 for source in range(size)]
        assert found["second"].tolist() == [[10 + source] * 3 for source in range(size)]


def test_pieces_of_any_size_arrive(engine, tmp_path):
    size = SIZES[engine.kind]
    finished(engine.kind, size, tmp_path, HERE / "exchange_check.py", engine.name)
    check_arrived(tmp_path, size)


@needs_torch
def test_devices_of_two_kinds_do_not_wait_for_each_other():
    """As where "auto" finds a card on one host and none on another; the first process is a store that says so."""
    import torch.distributed as dist

    from framewake.engine.torch.joining import BACKEND

    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    store.set(BACKEND, "nccl")
    told = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port), "WORLD_SIZE": "2", "RANK": "1"}
    code = "from framewake import engine; engine.join('torch:cpu')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | told,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert "EngineError: process 1 exchanges by gloo, the first one by nccl: name the same --engine" in done.stderr


@needs_torch
def test_a_rank_that_is_killed_is_told_by_the_others(tmp_path):
    script = tmp_path / "wait_check.py"
    script.write_text(
        "from framewake import engine as engines\n"
        "engine = engines.join('torch:cpu')\n"
        "rank = engine.rank()\n"
        "send = lambda: engine.exchange([engine.full((1,), rank)] * 2, [(1,)] * 2)()\n"
        "send()\n"
        "open(f'joined{rank}', 'w').close()\n"
        "if rank == 1:\n"
        "    import time; time.sleep(600)\n"
        "send()\n"
    )
    with Ranks("torch", 2, tmp_path, script) as ranks:
        end = time.monotonic() + 120
        while not all((tmp_path / f"joined{rank}").exists() for rank in range(2)):
            assert time.monotonic() < end, ranks.said()
            time.sleep(0.05)
        os.kill(ranks.processes[1].pid, signal.SIGKILL)
        assert ranks.wait(60) == [1, -signal.SIGKILL], ranks.said()
        assert "PeerError: another of the 2 processes has ended" in ranks.logs[0].read_text()


TORCHRUN = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1", "MASTER_ADDR": "10.0.0.1"}
MSRUN = {"MS_WORKER_NUM": "4", "MS_NODE_ID": "3", "DEVICE_ID": "1", "MS_SCHED_HOST": "h", "MS_ROLE": "MS_WORKER"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"WORLD_SIZE": "1", "RANK": "0"}, None),
        ({"WORLD_SIZE": "", "RANK": ""}, None),
        (TORCHRUN, Group("torchrun", 3, 4, 1, "10.0.0.1")),
        ({"WORLD_SIZE": "2", "RANK": "1"}, Group("torchrun", 1, 2, 1, "")),
        (MSRUN, Group("msrun", 3, 4, 1, "h")),
        (MSRUN | {"MS_ROLE": "MS_SCHED"}, Group("msrun", 0, 4, 0, "h", is_scheduler=True)),
    ],
)
def test_the_environment_tells_the_group(environment, expected):
    assert group_of(environment) == expected


@pytest.mark.parametrize("change", [{"RANK": "4"}, {"RANK": ""}, {"RANK": "-1"}, {"LOCAL_RANK": "x"}])
def test_variables_that_make_no_sense_are_refused(change):
    with pytest.raises(EngineError, match="WORLD_SIZE=4"):
        group_of(TORCHRUN | change)
