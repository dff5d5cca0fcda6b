"""Launchers that start this program once for each device where that makes no group; flags that other revisions have."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from framewake.app import launch
from framewake.app.launch import LAUNCHERS, refuse_copies
from framewake.app.original import translate
from framewake.app.original_flags import OTHERS, parser
from framewake.errors import EngineError

ORIGINAL = Path(__file__).parents[2] / "sample_image2video.py"


@pytest.mark.parametrize(("size", "rank", "launcher"), LAUNCHERS)
def test_several_processes_are_refused_by_the_first(monkeypatch, size, rank, launcher):
    monkeypatch.setattr(launch, "SILENT_SECONDS", 0.0)
    refuse_copies({size: "1", rank: "0"})
    refuse_copies({size: "", rank: ""})
    with pytest.raises(EngineError, match=rf"{launcher} has started this 2 times \({size}=2\).*unset {size}"):
        refuse_copies({size: "2", rank: "0"})
    with pytest.raises(SystemExit) as left:
        refuse_copies({size: "2", rank: "1"})
    assert left.value.code == 4


def test_a_batch_script_that_starts_one_process_is_not_meant():
    refuse_copies({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"})


def test_the_scheduler_of_msrun_says_nothing(monkeypatch):
    monkeypatch.setattr(launch, "SILENT_SECONDS", 0.0)
    with pytest.raises(SystemExit):
        refuse_copies({"MS_WORKER_NUM": "2", "MS_ROLE": "MS_SCHED"})


@pytest.mark.parametrize("program", ["plan", "original"])
def test_torchrun_is_refused_once_and_nothing_is_made(toy, picture, tmp_path, program):
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=0"]
    ours = ["-m", "framewake", "plan", str(picture), "x", "--frames", "5"]
    original = [str(ORIGINAL), "--prompt", "x", "--i2v-image-path", str(picture), "--model-base", str(toy)]
    environment = {**os.environ, "FRAMEWAKE_CHECKPOINT": str(toy)}
    command += ours if program == "plan" else original
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    told = {
        "plan": "has started this 2 times (WORLD_SIZE=2)",
        "original": "has started 2 processes, but --ulysses-degree",
    }
    assert done.stderr.count(f"torchrun {told[program]}") == 1, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_flags_of_other_revisions_are_named_in_the_one_warning():
    words = [f"--{flag.name}" + ("" if flag.kind is bool else "=1") for flag in OTHERS]
    words += ["--local_rank=0", "--use_attentioncache", "--rel_l1_thresh", "0.1"]
    given = vars(parser().parse_args([*words, "--prompt", "x", "--i2v-image-path", "a.png"]))
    [warning] = [note for note in translate(given).notes if "have no meaning" in note]
    for flag in OTHERS:
        assert warning.count(f"--{flag.name}") == 1


def test_without_the_folder_of_weights_the_flag_is_named(picture, tmp_path):
    command = [sys.executable, str(ORIGINAL), "--prompt", "x", "--i2v-image-path", str(picture)]
    environment = {name: value for name, value in os.environ.items() if name != "MODEL_BASE"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stderr.count("\n") == 1
    assert "add --model-base FOLDER" in done.stderr and "download ckpts --name tencent" in done.stderr


@pytest.mark.parametrize("command", [["plan", "a.png", "it moves"], ["lora", "info", "a.safetensors"], ["serve"]])
def test_what_is_for_one_process_is_refused_in_several(call, monkeypatch, command):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    answer = call(*command)
    assert answer.code == 4 and answer.err.count("\n") == 1
    assert "torchrun has started this 2 times (WORLD_SIZE=2)" in answer.err


def test_a_launcher_without_a_group_is_refused(call, monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    answer = call("animate", "a.png", "it moves")
    assert (
        answer.code == 4 and "mpirun has started this 2 times" in answer.err and "start it with torchrun" in answer.err
    )


def test_another_number_of_devices_than_was_started(call, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    answer = call("animate", "a.png", "it moves", "--devices", "3")
    assert answer.code == 2 and "torchrun has started 2 processes" in answer.err
