"""``--devices``: one clip by several processes, started and watched; nothing is left of them."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from engines_here import INSTALLED, needs_torch
from small_disk import MIB, mounted
from started import torchrun

from framewake.app.devices import Devices, parse_devices, variables
from framewake.app.start import Rank
from framewake.errors import Cancelled, InputError
from framewake.media.video import read_video
from framewake.pipeline.latents import load_latents

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="processes are found in /proc")
SMALL = ("--frames", "5", "--resolution", "360p", "--seed", "4")
ORIGINAL = Path(__file__).parents[2] / "sample_image2video.py"
LATENTS = "clip.mp4.latents.safetensors"
SECONDS = 240


class Started:
    """The program with ``--devices``, and the processes that it has started."""

    def __init__(self, *words, command=("animate",), engine="torch:cpu", count=2):
        self.count, self.kind = count, engine.partition(":")[0]
        called = [sys.executable, "-m", "framewake", *command, *map(str, words), "--engine", engine]
        self.process = subprocess.Popen(
            [*called, "--devices", str(count)],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.pids = self._found()

    def _found(self):
        """By rank; the scheduler is the last one."""
        name = "RANK" if self.kind == "torch" else "MS_NODE_ID"
        count = self.count + (self.kind == "mindspore")
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        end = time.monotonic() + 60
        while self.process.poll() is None and time.monotonic() < end:
            found = {}
            for pid in map(int, children.read_text().split()):
                words = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
                told = dict(word.partition("=")[::2] for word in words)
                if "FRAMEWAKE_STARTER" in told:
                    found[int(told.get(name, self.count))] = pid
            if len(found) == count:
                return found
            time.sleep(0.01)
        return {}

    def wait_for(self, text):
        for line in self.process.stdout:
            if text in line:
                return
        raise AssertionError(self.process.stderr.read())

    def ended(self, seconds=SECONDS):
        """Exit code and the lines of stderr; all that was started has gone."""
        try:
            _, said = self.process.communicate(timeout=seconds)
        finally:
            self.process.kill()
            left = [pid for pid in self.pids.values() if is_alive(pid)]
            for pid in left:
                os.kill(pid, signal.SIGKILL)
        assert not left
        lines = said.splitlines()
        return self.process.returncode, [line for line in lines if not line.startswith("[INFO] DISTRIBUTED")]


def is_alive(pid):
    for _ in range(200):  # who has lost its parent is reaped by another
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


@pytest.fixture
def here(call, picture):
    """An empty folder, with the toy checkpoint as the default."""
    return picture, "the red circle moves left", *SMALL


def step_of(folder):
    return load_latents(folder / LATENTS).step


@pytest.mark.parametrize(("text", "expected"), [("1", Devices(1)), ("4", Devices(4)), ("0,2,5", Devices(3, (0, 2, 5)))])
def test_how_many_or_which(text, expected):
    assert parse_devices(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [("0", "how many"), ("", "how many"), ("two", "how many"), ("1,", "how many"), ("0,2,0", "device 0 twice")],
)
def test_what_is_no_list_of_devices(call, text, reason):
    answer = call("animate", "a.png", "it moves", "--devices", text)
    assert answer.code == 2 and reason in answer.err and answer.err.count("\n") == 1


@needs_torch
def test_devices_that_contradict_the_engine():
    with pytest.raises(InputError, match="leave out the engine's number"):
        variables(Devices(2), "torch:cuda:1")
    with pytest.raises(InputError, match="have no numbers"):
        variables(Devices(2, (0, 1)), "torch:cpu")
    with pytest.raises(InputError, match="core takes one process"):
        variables(Devices(9999), "torch:cpu")


@needs_torch
def test_devices_are_handed_out_by_their_numbers(monkeypatch):
    assert [own["LOCAL_RANK"] for own in variables(Devices(3, (0, 2, 5)), "torch:cuda")] == ["0", "2", "5"]
    found = variables(Devices(2, (3, 1)), "mindspore:ascend")
    assert [own.get("DEVICE_ID") for own in found] == ["3", "1", None] and found[2]["MS_ROLE"] == "MS_SCHED"
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert {own["OMP_NUM_THREADS"] for own in variables(Devices(2), "torch:cpu")} == {"3"}


def made_frames(path):
    return read_video(path)[0].astype(int)


@needs_linux
def test_two_processes_make_the_clip_of_one(here, call, engine, tmp_path):
    alone = call("animate", *here, "--steps", 4, "-o", "one", "--engine", engine.name)
    assert alone.code == 0, alone.err
    both = Started(*here, "--steps", 4, "-o", "two", "--quiet", engine=engine.name)
    code, said = both.ended()
    assert (code, said) == (0, []) and len(both.pids) == 2 + (engine.kind == "mindspore")
    one, two = made_frames(tmp_path / "one"), made_frames(tmp_path / "two")
    assert one.shape == two.shape and np.abs(one - two).max() <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@needs_linux
@needs_torch
def test_two_processes_go_on_with_a_clip(here, call, tmp_path):
    assert call("animate", *here, "--steps", 3, "-o", "first.mp4", "--engine", "torch:cpu").code == 0
    words = ("--steps", 3, "--seed", 5, "-q")
    assert call("extend", "first.mp4", "it turns", "-o", "one.mp4", *words, "--engine", "torch:cpu").code == 0
    code, said = Started("first.mp4", "it turns", "-o", "two.mp4", *words, command=("extend",)).ended()
    one, two = made_frames(tmp_path / "one.mp4"), made_frames(tmp_path / "two.mp4")
    assert (code, said) == (0, []) and one.shape == two.shape and np.abs(one - two).max() <= 1


@needs_linux
@needs_torch
def test_a_batch_by_two_processes(here, call, picture, tmp_path):
    clips = [{"prompt": "it moves", "image": str(picture), "guidance_scale": scale} for scale in (1.0, 2.0)]
    lines = [json.dumps(clip | {"frames": 5, "steps": 3, "resolution": "360p", "seed": 4}) + "\n" for clip in clips]
    (tmp_path / "list.jsonl").write_text("".join(lines))
    assert call("animate", "--batch", "list.jsonl", "-o", "one", "--engine", "torch:cpu").code == 0
    code, said = Started("--batch", "list.jsonl", "-o", "two", "--quiet").ended()
    one, two = (sorted((tmp_path / name).glob("*.mp4")) for name in ("one", "two"))
    assert code == 0 and [path.name for path in one] == [path.name for path in two] and len(one) == 2, said
    for first, second in zip(one, two, strict=True):
        assert np.abs(made_frames(first) - made_frames(second)).max() <= 1


ENDS = {
    "first killed": ("torch:cpu", 0, "SIGKILL", "was ended by SIGKILL"),
    "second killed": ("torch:cpu", 1, "SIGKILL", "was ended by SIGKILL"),
    "first hangs": ("torch:cpu", 0, "SIGSTOP", "does not answer"),
    "second hangs": ("torch:cpu", 1, "SIGSTOP", "does not answer"),
    "one of MindSpore's killed": ("mindspore:cpu", 1, "SIGKILL", "was ended by SIGKILL"),
}


@needs_linux
@pytest.mark.parametrize("name", ENDS)
def test_one_that_is_killed_or_hangs_ends_all(here, tmp_path, name):
    engine, rank, number, reason = ENDS[name]
    if engine not in INSTALLED:
        pytest.skip(f"{engine} is not installed")
    run = Started(*here, "--steps", 1000, "-o", "clip.mp4", "--json", engine=engine)
    run.wait_for('"index": 7')
    os.kill(run.pids[rank], getattr(signal, number))
    code, said = run.ended()
    assert code == 4 and len(said) == 1, said
    assert said[0].startswith(f"framewake: process {rank} of 2 {reason}"), said
    assert step_of(tmp_path) >= 5
    assert "framewake animate --resume -o clip.mp4" in said[0] and "--devices 2" in said[0]
    if rank == 1 and engine == "torch:cpu":  # the first one could still save its last step
        assert step_of(tmp_path) >= 7


@needs_linux
def test_an_interrupt_before_python_is_ready_waits():
    code = "import time; time.sleep(0.5); from framewake.app.cli import main; main(['--version'])"
    rank = Rank(0, [sys.executable, "-c", code], {})
    rank.interrupt()
    end = time.monotonic() + SECONDS
    while rank.code() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert rank.code() == 130 and isinstance(rank.error(), Cancelled)
    rank.end()


LONG = ("--frames", "129", "--resolution", "540p", "--seed", "4", "--steps", "2")
STAGES = {
    "loading": None,
    "text": '"stage": "encode text"',
    "decoding": '"stage": "decode"',
    "writing": '"event": "written"',
}
BLOWS = {
    "first killed": (0, "SIGKILL", "process 0 of 2 was ended by SIGKILL"),
    "second killed": (1, "SIGKILL", "process 1 of 2 was ended by SIGKILL"),
    "second stopped": (1, "SIGSTOP", "process 1 of 2 does not answer"),
    "Ctrl-C": (None, "SIGINT", "stopped."),
}
AT = {
    "first killed": ("writing",),
    # While the first one writes, it may be done before anything is seen of the second.
    "second killed": tuple(stage for stage in STAGES if stage != "writing"),
    "second stopped": ("loading", "decoding"),
    "Ctrl-C": STAGES,
}


@needs_linux
@needs_torch
@pytest.mark.parametrize(("blow", "stage"), [(blow, stage) for blow, stages in AT.items() for stage in stages])
def test_whatever_they_are_at(here, tmp_path, stage, blow):
    """Loading, text, decoding and writing: the cause in one line, and finished latents stay."""
    rank, number, reason = BLOWS[blow]
    run = Started(*here[:2], *LONG, "-o", "clip.mp4", "--json")
    if STAGES[stage] is not None:
        run.wait_for(STAGES[stage])
    os.kill(run.process.pid if rank is None else run.pids[rank], getattr(signal, number))
    code, said = run.ended()
    assert code == (130 if rank is None else 4) and len(said) == 1 and said[0].startswith(f"framewake: {reason}"), said
    left = [path.name for path in tmp_path.iterdir() if not path.name.endswith(".partial")]
    if stage in ("loading", "text"):
        assert left == []
        return
    assert left == [LATENTS] and step_of(tmp_path) == 2
    assert "framewake animate --resume -o clip.mp4" in said[0], said


@needs_linux
@needs_torch
@pytest.mark.parametrize("moment", [None, '"stage": "encode text"', '"index": 1'])
def test_one_that_fails_tells_the_cause(here, tmp_path, moment):
    """It cannot be reached, read the transformer, or read the autoencoder."""
    run = Started(*here[:2], *LONG, "-o", "clip.mp4", "--json")
    if moment is not None:
        run.wait_for(moment)
    resource.prlimit(run.pids[1], resource.RLIMIT_NOFILE, (6, 6))
    code, said = run.ended()
    assert code != 0 and len(said) == 1 and said[0].startswith("framewake: process 1 of 2: "), said
    assert "oo many open files" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ([LATENTS] if moment == '"index": 1' else [])


FULL = {
    # Options, when the disk becomes full, and a signal for one of them: the exit code, the line, the step that stays.
    "saving": ((*SMALL, "--steps", 40), '"index": 7', None, (5, "The latents of step 5 are in", 5)),
    "a draft": ((*SMALL, "--steps", 40, "--draft", 12), '"index": 7', None, (5, "The latents of step 5 are in", 5)),
    "writing": (LONG, '"stage": "decode"', None, (5, "The finished latents are in", 2)),
    "Ctrl-C": ((*SMALL, "--steps", 400), '"index": 7', (None, "SIGINT"), (130, "stopped. Nothing is lost", 5)),
    "second killed": ((*SMALL, "--steps", 400), '"index": 7', (1, "SIGKILL"), (4, "was ended by SIGKILL", 5)),
}


@needs_linux
@needs_torch
@pytest.mark.parametrize("name", FULL)
def test_a_disk_that_becomes_full(call, picture, tmp_path, monkeypatch, name):
    """The first process alone writes clips and latents; what is temporary, in any of them, has no room either."""
    words, moment, blow, (expected, reason, step) = FULL[name]
    with mounted(tmp_path / "disk", 4 * MIB) as disk:
        monkeypatch.setenv("TMPDIR", str(disk.folder))
        run = Started(picture, "it moves", *words, "-o", "disk/clip.mp4", "--json")
        run.wait_for(moment)
        disk.fill()
        if blow is not None:
            os.kill(run.process.pid if blow[0] is None else run.pids[blow[0]], getattr(signal, blow[1]))
        code, said = run.ended()
        assert code == expected and len(said) == 1 and reason in said[0], said
        assert expected != 5 or said[0].startswith("framewake: there is no room for disk/clip.mp4"), said
        assert [path.name for path in disk.folder.glob("clip*")] == [LATENTS] and step_of(disk.folder) == step


@needs_linux
@needs_torch
def test_a_mistake_is_told_once(here, tmp_path):
    run = Started("nothing.png", "it moves", "-o", "clip.mp4")
    code, said = run.ended()
    assert code == 2 and sum("nothing.png" in line for line in said) == 1, said
    run = Started(*here[:2], "--frames", 5, engine="torch:cuda")
    code, said = run.ended()
    assert code == 4 and "there is no device 'cuda:" in said[-1] and list(tmp_path.iterdir()) == [], said


@needs_linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@needs_torch
def test_stopping_stops_all_and_says_how_to_go_on(here, call, tmp_path, number):
    run = Started(*here, "--steps", 60, "--cache", "first-block:0.1", "-o", "clip", "--json")
    run.wait_for('"index": 7')
    run.process.send_signal(number)
    time.sleep(1)
    run.process.send_signal(signal.SIGINT)  # an impatient person
    code, said = run.ended()
    assert code == 130 and "framewake animate --resume -o clip" in said[-1] and "--devices 2" in said[-1], said
    assert [path.name for path in tmp_path.iterdir()] == ["clip.latents.safetensors"]
    assert load_latents(tmp_path / "clip.latents.safetensors").step >= 7
    if number == signal.SIGTERM:  # and goes on as after Ctrl-C
        return
    again = Started("--resume", "-o", "clip", "--quiet")
    assert again.ended() == (0, [])
    whole = call("animate", *here, "--steps", 60, "--cache", "first-block:0.1", "-o", "whole")
    assert whole.code == 0
    assert np.abs(made_frames(tmp_path / "clip") - made_frames(tmp_path / "whole")).max() <= 1


@needs_linux
@pytest.mark.skipif("mindspore:cpu" not in INSTALLED, reason="mindspore is not installed")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_mindspore_s_processes_end_together(here, tmp_path, number):
    """Ctrl-C between two steps, and a second one that is killed while the clip is decoded."""
    is_killed = number == signal.SIGKILL
    words = [*here[:2], *LONG] if is_killed else [*here, "--steps", 60]
    run = Started(*words, "-o", "clip.mp4", "--json", engine="mindspore:cpu")
    run.wait_for('"stage": "decode"' if is_killed else '"index": 3')
    os.kill(run.pids[1] if is_killed else run.process.pid, number)
    code, said = run.ended()
    assert code == (4 if is_killed else 130) and step_of(tmp_path) >= (2 if is_killed else 3), said
    assert said[-1].startswith(f"framewake: {'process 1 of 2 was ended by SIGKILL' if is_killed else 'stopped.'}"), said


@needs_linux
@needs_torch
def test_a_starter_that_is_killed_leaves_nothing(here, tmp_path):
    run = Started(*here, "--steps", 1000, "-o", "clip.mp4", "--json")
    run.wait_for('"index": 7')
    run.process.kill()
    assert run.ended()[0] == -signal.SIGKILL
    assert step_of(tmp_path) >= 7


@needs_torch
def test_torchrun_makes_one_clip(here, call, tmp_path):
    alone = call("animate", *here, "--steps", 4, "-o", "one", "--engine", "torch:cpu")
    assert alone.code == 0, alone.err
    words = ["framewake", "animate", *map(str, here), "--steps", "4", "-o", "two", "--engine", "torch:cpu"]
    torchrun(tmp_path, Path("-m"), *words)
    assert np.abs(made_frames(tmp_path / "one") - made_frames(tmp_path / "two")).max() <= 1
    assert (tmp_path / "torchrun.txt").read_text().count("Denoising") == 1


@needs_torch
@pytest.mark.parametrize("launcher", ["our own", "torchrun"])
def test_the_original_s_degrees(call_original, toy, picture, tmp_path, monkeypatch, launcher):
    flags = ["--prompt", "it moves", "--i2v-image-path", str(picture), "--video-length", "5", "--infer-steps", "4"]
    flags += ["--i2v-resolution", "360p", "--seed", "4", "--model-base", str(toy)]
    assert call_original(*flags, "--save-path", "one").code == 0
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    words = [*flags, "--save-path", "two", "--ulysses-degree", "2", "--ring-degree", "1"]
    if launcher == "torchrun":
        torchrun(tmp_path, ORIGINAL, *words)
    else:
        done = subprocess.run([sys.executable, ORIGINAL, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and done.stderr.count("2 devices share") == 1, done.stderr
    ([one], [two]) = ([*(tmp_path / name).iterdir()] for name in ("one", "two"))
    assert np.abs(made_frames(one) - made_frames(two)).max() <= 1
