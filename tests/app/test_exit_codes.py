"""Exit codes as the help's table has them, walked at the real command line; and what to install, command by command."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from framewake.packages import EXTRA

ROOT = Path(__file__).parents[2]

GONE = "video_" + "0" * 32


@pytest.fixture
def program(toy, picture, tmp_path):
    """Run the program in a process of its own, without some packages."""
    (tmp_path / "a.png").write_bytes(picture.read_bytes())

    def run(arguments, *, without=(), file=None, **variables):
        hidden = f"import sys; sys.modules.update(dict.fromkeys({list(without)!r}))\n"
        code = hidden + "from framewake.app.cli import main; main()"
        start = ["-c", code] if file is None else [str(ROOT / file)]
        environment = {**os.environ, "FRAMEWAKE_CHECKPOINT": str(toy), **variables}
        environment |= {"XDG_STATE_HOME": str(tmp_path / "state")}
        command = [sys.executable, *start, *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)

    return run


def has(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def refused(done, code, *words):
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(("framewake: ", "sample_image2video.py: ")) and done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr, done.stderr


SMALL = ["--frames", "5", "--resolution", "360p", "--steps", "1"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["animate", "gone.png", "x"], 2, ["gone.png"]),
        (["animate", "a.png", "x", "--engine", "torch:gpu"], 2, ["unknown"]),
        (["info", "gone.mp4"], 2, ["gone.mp4"]),
        (["quality", "gone.mp4", "a.mp4"], 2, ["gone.mp4"]),
        (["no-such-command"], 2, ["no such command"]),
        (["animate", "a.png", "x", "--checkpoint", "gone"], 3, ["gone"]),
        (["animate", "a.png", "x", "--lora", "gone.safetensors"], 3, ["gone.safetensors"]),
        (["plan", "a.png", "x", "--lora", "gone.safetensors"], 3, ["gone.safetensors"]),
        (["lora", "info", "gone.safetensors"], 3, ["gone.safetensors"]),
        (["checkpoints", "verify", "gone"], 3, ["gone"]),
        (["animate", "a.png", "x", *SMALL, "--memory", "1MB"], 5, ["needs"]),
    ],
)
def test_what_each_failure_ends_with(program, arguments, code, words):
    refused(program(arguments), code, *words)


@pytest.mark.parametrize("command", [["animate", "a.png", "x"], ["plan", "a.png", "x"], ["doctor"]])
def test_a_device_that_is_not_there(program, command):
    pytest.importorskip("torch")
    refused(program([*command, "--engine", "torch:cuda:99"]), 4, "no device 'cuda:99' for torch", "torch:cpu")


def test_a_device_that_the_original_command_cannot_have(program, toy):
    pytest.importorskip("torch")
    flags = ["--prompt", "x", "--i2v-image-path", "a.png", "--i2v-resolution", "360p", "--video-length", "5"]
    done = program([*flags, "--model-base", str(toy)], file="sample_image2video.py", FRAMEWAKE_ENGINE="torch:cuda:99")
    refused(done, 4, "no device 'cuda:99'")


@pytest.mark.parametrize(
    "arguments", [["jobs", "show", GONE], ["jobs", "cancel", GONE], ["jobs", "retry", GONE], ["jobs", "rm", GONE]]
)
def test_a_job_that_is_not_there(program, tmp_path, arguments):
    pytest.importorskip("sqlalchemy")
    from framewake.service.binding import bind_anew
    from framewake.service.database import Database, default_url
    from framewake.service.storage import Storage

    storage = Storage(tmp_path / "framewake-data")
    database = Database(default_url(storage.folder))
    bind_anew(storage, database)
    database.close()
    refused(program(arguments), 2, GONE, "no such video")


def test_a_server_that_is_not_there(program):
    pytest.importorskip("httpx")
    refused(program(["jobs", "list", "--server", "http://127.0.0.1:9"]), 4, "http://127.0.0.1:9 does not answer")


@pytest.mark.parametrize(
    ("arguments", "package"),
    [
        (["jobs", "list", "--server", "http://127.0.0.1:9"], "httpx"),
        (["jobs", "list"], "sqlalchemy"),
        (["worker", "--storage", "."], "sqlalchemy"),
        (["serve", "--port", "0"], "uvicorn"),
        (["serve", "--port", "0"], "gradio"),
        (["serve", "--port", "0", "--no-page"], "prometheus_client"),
        (["checkpoints", "download", "new"], "huggingface_hub"),
        (["lora", "train", ".", "b.safetensors", "--tensorboard", "runs"], "tensorboardX"),
    ],
)
def test_a_package_that_is_missing(program, tmp_path, arguments, package):
    done = program(arguments, without=[package])
    line = done.stderr.splitlines()[-1]
    assert done.returncode == 4, done.stderr
    assert re.search(rf'needs .*{package}.*\. Run: pip install ".*\[{EXTRA[package]}\]"$', line), line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png"]


@pytest.mark.parametrize("package", ["numpy", "PIL", "rich", "typer", "tokenizers"])
def test_a_package_that_everything_needs(program, package):
    done = program(["animate", "a.png", "x", *SMALL], without=[package])
    assert done.returncode == 4 and "Traceback" not in done.stderr
    assert "is not installed. Run: pip install " in done.stderr or "halted; None in sys.modules" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("kind", "problem"),
    [
        ("torch", "raise RuntimeError('first\\nsecond')"),
        ("torch", "import no_such_package"),
        ("mindspore", "1 / 0"),
        ("mindspore", "class"),
    ],
)
def test_a_framework_that_does_not_start(program, tmp_path, kind, problem):
    (tmp_path / "broken" / kind).mkdir(parents=True)
    (tmp_path / "broken" / kind / "__init__.py").write_text(problem)
    where = os.pathsep.join([str(tmp_path / "broken"), os.environ.get("PYTHONPATH", "")])
    done = program(["animate", "a.png", "x", *SMALL, "--engine", f"{kind}:cpu"], PYTHONPATH=where)
    refused(done, 4, f"{kind} ", "Run: pip install ")


def test_every_extra_exists():
    text = (ROOT / "pyproject.toml").read_text().partition("[project.optional-dependencies]")[2]
    assert set(EXTRA.values()) <= set(re.findall(r"^(\w+) = \[", text, re.MULTILINE))


def test_why_there_is_no_cuda_device():
    torch = pytest.importorskip("torch")
    from framewake.engine.torch import driver

    if torch.version.cuda is None:
        told = driver.why_absent("cuda:0")
        assert torch.__version__ in told and "a build for CPUs. Run: pip install --force-reinstall torch==" in told
    assert driver.why_absent("cpu") == ""


@pytest.mark.parametrize(
    ("capability", "found", "runs"),
    [
        ((9, 0), ["sm_80", "sm_90"], True),
        ((8, 9), ["sm_75", "sm_86", "sm_90"], True),
        ((6, 1), ["sm_75", "sm_80", "sm_90", "compute_90"], False),
        ((12, 0), ["sm_80", "sm_90", "compute_90"], True),
        ((12, 0), ["sm_80", "sm_90a"], False),
        ((10, 3), ["sm_100", "sm_120"], True),
    ],
)
def test_cards_that_a_build_has_code_for(capability, found, runs):
    pytest.importorskip("torch")
    from framewake.engine.torch import driver

    assert driver.has_kernels(capability, found) is runs


def test_an_interrupt_in_any_command_is_told(call):
    """Whatever the library of commands makes of it."""

    def interrupt(_number, _frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        answer = call("doctor", "--golden", ROOT / "tests" / "golden", "--json")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert (answer.code, answer.err) == (130, "framewake: stopped.\n")
