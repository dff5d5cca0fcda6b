"""What a wheel carries: everything that the program reads besides its own text."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile

import pytest
from package_source import PACKAGE, ROOT

MOST_LORA_BYTES = 2_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel as it would be published."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_carries_every_file_of_the_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    files = [path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {f"framewake/{path.relative_to(PACKAGE).as_posix()}" for path in files}
    assert {"framewake/nn/frequencies.npy", "framewake/demo/pictures/red-circle.png"} <= expected
    assert not expected - inside, f"not in the wheel: {sorted(expected - inside)}"
    assert any(name.endswith("licenses/LICENSE") for name in inside)
    assert not [name for name in inside if name.startswith(("tests/", "scripts/", "demonstration/"))]


def test_what_ships_works_out_of_the_wheel(wheel, tmp_path):
    with zipfile.ZipFile(wheel) as archive:
        sizes = {entry.filename: entry.file_size for entry in archive.infolist()}
        archive.extractall(tmp_path)
    assert sizes["framewake/demo/lora/trails.safetensors"] < MOST_LORA_BYTES
    parts = {name.split("/")[3] for name in sizes if name.startswith("framewake/demo/checkpoint/")}
    assert parts >= {"transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"}
    # From an empty folder: nothing of this checkout may help.
    here = tmp_path / "elsewhere"
    here.mkdir()
    command = [sys.executable, "-m", "framewake.app.cli", "lora", "info", "demo/trails", "--checkpoint", "demo"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "framewake" / "demo" / "lora") in done.stdout + done.stderr, done.stdout
