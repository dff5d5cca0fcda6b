"""What has its name is on the disk: nothing of it is lost at a power cut."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from forgetful_disk import ForgetfulDisk

from framewake.lasting import publish
from framewake.media.video import read_metadata, read_video, write_video

linux = pytest.mark.skipif(sys.platform != "linux", reason="the disk is watched through /proc")


@pytest.fixture
def disk(tmp_path, monkeypatch):
    folder = tmp_path / "disk"
    folder.mkdir()
    disk = ForgetfulDisk(folder, monkeypatch)
    yield disk
    disk.close()


@linux
@pytest.mark.parametrize("names", ["synced", "all"])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.webp", "frames"])
def test_a_video_that_has_its_name_outlives_a_power_cut(disk, tmp_path, name, names):
    frames = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)
    if name == "frames":
        (disk.folder / name).mkdir()  # an empty folder of that name is filled
    write_video(disk.folder / name, frames, fps=10, metadata={"seed": 3})
    left = disk.after_a_power_cut(tmp_path / "left", names)
    assert [path.name for path in left.iterdir()] == [name]
    assert len(read_video(left / name)[0]) == 3
    assert read_metadata(left / name) == {"seed": 3}


@linux
def test_the_disk_forgets_what_was_not_synced(disk, tmp_path):
    """The tests above can fail."""
    (disk.folder / "kept").write_bytes(b"kept")
    publish(disk.folder / "kept", disk.folder / "published")
    (disk.folder / "written").write_bytes(b"written")
    left = disk.after_a_power_cut(tmp_path / "synced", "synced")
    assert {path.name: path.read_bytes() for path in left.iterdir()} == {"published": b"kept"}
    left = disk.after_a_power_cut(tmp_path / "all", "all")
    assert {path.name: path.read_bytes() for path in left.iterdir()} == {"published": b"kept", "written": b""}
