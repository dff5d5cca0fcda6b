"""The programs with real streams: closed, full, gone, or of few letters. The work goes on whatever they are."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys

import pytest

from framewake.media.video import read_metadata, read_video

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PYTHON = shlex.quote(sys.executable)
FRAMEWAKE = f"{PYTHON} -m framewake"
ORIGINAL = f"{PYTHON} {shlex.quote(os.path.join(ROOT, 'sample_image2video.py'))}"
CLIP = "-o clip.webp --resolution 360p --seed 1"
FLAGS = "--i2v-mode --i2v-resolution 360p --infer-steps 1 --video-length 5 --flow-reverse --embedded-cfg-scale 6.0"


@pytest.fixture
def shell(toy, picture, tmp_path):
    """Run a line in a shell with real streams, in an empty folder with a picture."""
    (tmp_path / "a.png").write_bytes(picture.read_bytes())

    def run(line, **variables):
        environment = {**os.environ, "FRAMEWAKE_CHECKPOINT": str(toy), **variables}
        environment |= {"XDG_STATE_HOME": str(tmp_path / "state")}
        command = ["bash", "-o", "pipefail", "-c", line]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)

    return run


@pytest.mark.parametrize(
    "streams",
    [
        ">&-",
        "2>&-",
        "<&- >&- 2>&-",
        ">/dev/full 2>&1",
        "2>&1 | true",
        "--json | head -n 1",
        "-q >&-",
    ],
)
def test_a_clip_is_made_whatever_becomes_of_the_streams(shell, tmp_path, streams):
    done = shell(f'{FRAMEWAKE} animate a.png "the red circle" {CLIP} {streams}')
    assert done.returncode == 0, done.stderr
    assert b"Traceback" not in done.stderr
    assert len(read_video(tmp_path / "clip.webp")[0]) == 5
    assert read_metadata(tmp_path / "clip.webp")["request"]["seed"] == 1  # nothing was printed into it


@pytest.mark.parametrize("command", ["animate --help", "lora train -h", "--version"])
def test_help_that_nobody_could_read_has_failed(shell, command):
    assert shell(f"{FRAMEWAKE} {command} >/dev/full").returncode == 5
    assert shell(f"{FRAMEWAKE} {command} | true").returncode == 0


@pytest.mark.parametrize("streams", [">&- 2>&-", "2>&1 | true", ">/dev/full"])
def test_the_original_command_too(shell, toy, tmp_path, streams):
    done = shell(f"{ORIGINAL} --prompt x --i2v-image-path a.png {FLAGS} --seed 1 --model-base {toy} {streams}")
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "results").glob("*.mp4"))) == 1


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_a_batch_goes_on_where_letters_are_missing(shell, tmp_path, encoding):
    prompts = ["红圈 moves", "der rote Kreis wächst"]
    lines = [json.dumps({"image": "a.png", "prompt": prompt, "seed": 1}, ensure_ascii=False) for prompt in prompts]
    (tmp_path / "many.jsonl").write_text("\n".join(lines), encoding="utf-8")
    done = shell(f"{FRAMEWAKE} animate --batch many.jsonl --resolution 360p", PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert rb"\u7ea2\u5708-moves-seed1.mp4 (1 of 2)" in done.stdout and b"(2 of 2)" in done.stdout
    shown = shell(f"{FRAMEWAKE} info --json *moves*.mp4", PYTHONIOENCODING=encoding)
    assert json.loads(shown.stdout.decode(encoding))["request"]["prompt"] == prompts[0]
    plain = shell(f"{FRAMEWAKE} info *moves*.mp4", PYTHONIOENCODING=encoding)
    assert plain.returncode == 0 and rb"\u7ea2\u5708 moves" in plain.stdout


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("info a.png 2>&-", 2),
        ("info a.png >&- 2>&-", 2),
        ("info gone.mp4 --json >/dev/full", 2),
        ("--version >&-", 0),
        ("--version >/dev/full", 5),
        ("--help | true", 0),
        ("--help >/dev/full", 5),
        ("doctor | true", 0),
        ("plan a.png x --resolution 360p >/dev/full", 5),
        ("checkpoints list >&-", 0),
    ],
)
def test_the_exit_code_is_the_same_without_a_reader(shell, line, code):
    done = shell(f"{FRAMEWAKE} {line}")
    assert done.returncode == code, done.stderr
    assert done.stderr.count(b"\n") <= 1 and b"Traceback" not in done.stderr
    if code == 5:
        assert b"stdout does not take what is written (No space left on device)." in done.stderr


def test_a_terminal_that_has_died(tmp_path, toy, picture):
    pty = pytest.importorskip("pty")
    main, side = pty.openpty()
    command = [sys.executable, "-m", "framewake", "animate", str(picture), "x", *shlex.split(CLIP)]
    environment = {**os.environ, "FRAMEWAKE_CHECKPOINT": str(toy), "TERM": "xterm"}
    streams = {"stdin": side, "stdout": side, "stderr": side}
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, start_new_session=True, **streams)
    os.close(side)
    os.close(main)  # from now on every write is an input/output error
    assert process.wait() == 0
    assert len(read_video(tmp_path / "clip.webp")[0]) == 5


def test_a_pipe_that_does_not_block_gets_everything(tmp_path):
    code = "from framewake.console import streams; streams.prepare(); print('x' * 1_000_000)"
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=writing)
    os.close(writing)
    with open(reading, "rb") as file:
        assert len(file.read()) == 1_000_001
    assert process.wait() == 0


@pytest.mark.parametrize("flag", ["", "-u"])
def test_what_is_printed_cannot_steer_a_terminal(shell, tmp_path, flag):
    name = "a\x1b[2J\u009b1m\u202e\nb"
    (tmp_path / name).mkdir()
    content = {"framewake": {"request": {"prompt": name, "image": None, name: name}, name: [name]}}
    (tmp_path / name / "metadata.json").write_text(json.dumps(content))
    program, quoted = f"{PYTHON} {flag} -m framewake", shlex.quote(name)
    plain, as_json = shell(f"{program} info {quoted}"), shell(f"{program} info --json {quoted}")
    assert plain.returncode == as_json.returncode == 0
    assert json.loads(as_json.stdout) == content["framewake"]
    clip = shell(f"{program} animate a.png {quoted} --resolution 360p --steps 1 -o {quoted}.webp")
    missing = shell(f"{program} animate {quoted}.png x")
    assert (clip.returncode, missing.returncode) == (0, 2), clip.stderr
    for done in (plain, as_json, clip, missing):
        text = (done.stdout + done.stderr).decode()
        assert all(letter.isprintable() or letter == "\n" for letter in text), text
        assert "\\u001b[2J\\u009b1m\\u202e" in text
    assert clip.stdout.count(b"\n") == missing.stderr.count(b"\n") == 1
