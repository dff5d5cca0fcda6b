"""The Space, started as a host starts it: by its file, with a home and a system that cannot be written."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import httpx
import pytest

from framewake.demo import PICTURES

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "deploy" / "space"
NAME = "you-name.hf.space"

# Refuses what a read-only file system would, in every Python process of the Space, and writes down what was tried.
READ_ONLY = """
    import os, sys

    OWN, WRITES = os.environ["SPACE_OWN"], os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
    CHANGES = {"os.mkdir": [0], "os.rename": [0, 1], "os.remove": [0], "os.rmdir": [0], "os.link": [1],
               "os.symlink": [1], "os.truncate": [0], "sqlite3.connect": [0]}

    def watch(event, arguments):
        if event == "open":
            paths = [arguments[0]] if isinstance(arguments[2], int) and arguments[2] & WRITES else []
        else:
            paths = [arguments[number] for number in CHANGES.get(event, [])]
        for path in paths:
            if not isinstance(path, (str, bytes, os.PathLike)):
                continue
            place = os.path.realpath(os.fsdecode(path))
            if place.startswith((OWN, "/dev/", "/proc/")) or place.endswith(".pyc") or "__pycache__" in place:
                continue
            os.write(LOG, f"{event} {place}\\n".encode())
            raise OSError(30, "Read-only file system", place)

    LOG = os.open(os.environ["SPACE_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    sys.addaudithook(watch)
"""


@pytest.fixture
def space(tmp_path):
    """A question to a running Space, its folder, and the file of what it tried to write elsewhere."""
    pytest.importorskip("torch", reason="a Space computes with PyTorch")
    folder, hooks, tried = tmp_path / "space", tmp_path / "hooks", tmp_path / "tried"
    shutil.copytree(SPACE, folder)
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(textwrap.dedent(READ_ONLY))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # torch writes its folder for compiled programs into the environment of whoever has used it.
    ours = ("FRAMEWAKE", "GRADIO", "XDG", "TORCH", "TRITON")
    known = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    search = os.pathsep.join(filter(None, (str(hooks), os.environ.get("PYTHONPATH"))))
    given = {"GRADIO_SERVER_PORT": str(port), "HOME": str(tmp_path), "PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
    own = {"SPACE_OWN": os.path.realpath(folder), "SPACE_LOG": str(tried)}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "app.py"], cwd=folder, env=known | given | own, stdout=log, stderr=log
        )
    try:

        def ask(path, condition, seconds=120):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                assert process.poll() is None, (tmp_path / "log").read_text()
                with contextlib.suppress(httpx.TransportError):
                    answer = httpx.get(f"{ask.url}{path}", headers={"Host": NAME}, timeout=30)
                    if condition(answer):
                        return answer
                time.sleep(0.2)
            raise AssertionError(f"{path} does not answer so within {seconds} s")

        ask.url = f"http://127.0.0.1:{port}"
        yield ask, folder, tried
    finally:
        process.terminate()
        process.wait(timeout=60)
        sys.stdout.write((tmp_path / "log").read_text())


def test_a_stranger_makes_a_clip(space):
    ask, folder, tried = space
    ask("/health", lambda answer: answer.status_code == 200)
    page = ask("/", lambda answer: answer.status_code == 200)
    assert "https://huggingface.co" in page.headers["content-security-policy"] and "framewake" in page.text
    fields = {"prompt": "the red circle moves right", "resolution": "360p", "num_frames": "5", "seed": "1"}
    with (PICTURES / "red-circle.png").open("rb") as picture:
        made = httpx.post(
            f"{ask.url}/v1/videos",
            data=fields | {"num_inference_steps": "2"},
            files={"input_reference": picture},
            headers={"Host": NAME, "Origin": f"https://{NAME}"},
            timeout=60,
        )
    assert made.status_code == 200, made.text
    video = made.json()["id"]
    ask(f"/v1/videos/{video}", lambda answer: answer.json()["status"] == "completed")
    clip = ask(f"/v1/videos/{video}/content", lambda answer: answer.status_code == 200).content
    assert clip[4:8] == b"ftyp" and (folder / "data" / "jobs" / video / "clip.mp4").read_bytes() == clip
    assert tried.read_text() == "", "written outside of its folder"


def test_the_front_matter_says_what_a_host_needs():
    text = (SPACE / "README.md").read_text(encoding="utf-8")
    front = dict(line.split(": ", 1) for line in text.split("---")[1].strip().splitlines())
    assert front["sdk"] == "gradio" and (SPACE / front["app_file"]).is_file()
    asked = re.search(r'"gradio>=([\d.]+),', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert front["sdk_version"].startswith(asked[1]) and len(front["short_description"]) <= 60
    assert "framewake[torch,web]" in (SPACE / "requirements.txt").read_text(encoding="utf-8")
