from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from framewake.errors import EngineError, InputError, ResourceError
from framewake.media.output import check_output, estimate_bytes, output_kind
from framewake.media.video import read_metadata, write_video
from framewake.shapes import PixelShape

METADATA = {"request": {"prompt": "a red ball rolls"}}


def moving(count=9, height=48, width=64):
    y, x = np.mgrid[0:height, 0:width]
    frames = [np.stack([x * 3 + index * 5, y * 4, 200 - x], -1).clip(0, 255) for index in range(count)]
    return np.stack(frames).astype(np.uint8)


def names(folder):
    return sorted(entry.name for entry in Path(folder).iterdir())


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a.mp4", "mp4"),
        ("b/A.GIF", "gif"),
        ("a.webp", "webp"),
        ("frames", "frames"),
        ("a.b/", "frames"),
        ("x.mp4/", "frames"),
    ],
)
def test_the_ending_decides(path, kind):
    assert output_kind(path) == kind


def refused(path, words, **options):
    with pytest.raises(InputError, match=words) as caught:
        check_output(path, **options)
    assert "\n" not in str(caught.value)


def test_places_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    (tmp_path / "dir.mp4").mkdir()
    before = names(tmp_path)
    refused("", "path is empty")
    refused(tmp_path / "a.mpg4", r"ending \.mpg4 is unknown.*Did you mean '\.mp4'")
    refused(tmp_path / "a.avi", r"ending \.avi is unknown")
    refused(tmp_path / "none" / "a.mp4", "does not exist. Make it first: mkdir -p .*none")
    refused(tmp_path / "file" / "a.mp4", "is a file, so a.mp4 cannot be put into it")
    refused(tmp_path / "full", "is not empty")
    refused(f"{tmp_path}/file/", "is a file")
    refused(tmp_path / "dir.mp4", "exists and is not a file")
    refused(tmp_path / ("x" * 300 + ".mp4"), "304 bytes|File name too long")
    refused(tmp_path / "a\0b.mp4", "zero byte")
    refused(tmp_path / "a.gif", "at most 50 frames per second", fps=60)
    assert names(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="this user may write everywhere")
def test_a_folder_without_permission(tmp_path):
    tmp_path.chmod(0o500)
    refused(tmp_path / "a.mp4", "cannot be written")


def test_a_read_only_place():
    if not Path("/proc").is_dir():
        pytest.skip("no /proc here")
    refused("/proc/a.mp4", "cannot be written")


def test_good_places_leave_no_trace(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "old.mp4").write_text("old")
    for name in ("a.mp4", "old.mp4", "a.gif", "a.webp", "frames", "empty"):
        check_output(tmp_path / name, shape=PixelShape(129, 704, 1248), fps=24)
    assert names(tmp_path) == ["empty", "old.mp4"]
    assert (tmp_path / "old.mp4").read_text() == "old"


def test_the_longest_possible_name_is_written(tmp_path):
    path = tmp_path / ("\u732b" * 83 + ".mp4")
    assert write_video(path, moving(), fps=24, metadata=None).stat().st_size > 0


def test_an_old_file_is_replaced_and_an_empty_folder_filled(tmp_path):
    (tmp_path / "a.mp4").write_text("old")
    (tmp_path / "frames").mkdir()
    write_video(tmp_path / "a.mp4", moving(), fps=24, metadata=METADATA)
    write_video(tmp_path / "frames", moving(), fps=24, metadata=METADATA)
    assert read_metadata(tmp_path / "a.mp4") == METADATA
    assert names(tmp_path) == ["a.mp4", "frames"]


def test_more_room_than_the_disk_has(tmp_path):
    shape = PixelShape(10**6, 10**5, 10**5)
    with pytest.raises(ResourceError, match="no room for") as caught:
        check_output(tmp_path / "a.mp4", shape=shape)
    assert caught.value.bytes_needed == estimate_bytes("mp4", shape) > caught.value.bytes_free > 0


class _Broken(np.ndarray):
    """Frames whose fifth cannot be made, as when a person stops the run while it writes."""

    def __getitem__(self, index):
        if isinstance(index, int) and index == 4:
            raise KeyboardInterrupt
        return super().__getitem__(index)

    def __iter__(self):
        return (self[index] for index in range(len(self)))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_a_stopped_run_leaves_nothing_half(tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / name, moving().view(_Broken), fps=24, metadata=METADATA)
    assert names(tmp_path) == []


FILL = """
import sys, numpy, resource
from framewake.errors import ResourceError
from framewake.media.video import write_video
noise = numpy.random.default_rng(0).integers(0, 256, (8, 96, 96, 3), dtype=numpy.uint8)
if sys.argv[2] == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    write_video(sys.argv[1], noise, fps=24, metadata=None)
except ResourceError as error:
    print(error.bytes_needed, error.bytes_free, error)
"""


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_a_file_that_may_not_grow_is_a_resource_error(tmp_path, name):
    command = [sys.executable, "-c", FILL, str(tmp_path / name), "limit"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "there is no room for" in done.stdout
    assert int(done.stdout.split()[0]) == 8 * 96 * 96 * 3
    assert names(tmp_path) == []


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_a_full_disk_is_a_resource_error(tmp_path, name):
    disk = tmp_path / "disk"
    disk.mkdir()
    (tmp_path / "fill.py").write_text(FILL)
    mount = f"mount -t tmpfs -o size=24k none {disk}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small disk")
    run = f"{mount} && {sys.executable} {tmp_path}/fill.py {disk}/{name} disk && ls -A {disk}"
    done = subprocess.run(["unshare", "-rm", "sh", "-c", run], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 1, lines
    assert "there is no room for" in lines[0]


def test_a_package_that_does_not_start_is_told_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(EngineError, match="pip install av"):
        check_output(tmp_path / "a.mp4")
    check_output(tmp_path / "a.gif")
