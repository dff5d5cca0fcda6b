"""A toy checkpoint and a folder of tiny clips."""

from __future__ import annotations

import pytest
from toy15 import write_toy15
from toy_checkpoint import write_picture, write_toy
from toy_clips import FRAMES, clip_frames

from framewake.media.video import write_video
from framewake.train.run import Places, Trainer
from framewake.weights.checkpoint.load import open_checkpoint

CAPTIONS = ("the red circle moves left", "a blue square moves right and up", "spins slowly")
SMALL = {"frames": FRAMES, "rank": 4, "learning_rate": 1e-2, "steps": 4, "save_every": 100, "stored": "float32"}


def write_clips(folder, sizes=((64, 64), (64, 64), (48, 80))):
    """Clips of several kinds with captions beside them."""
    folder.mkdir(exist_ok=True)
    for number, (size, ending) in enumerate(zip(sizes, (".mp4", ".webp", ".gif"), strict=True)):
        write_video(folder / f"{number}{ending}", clip_frames(number, 7, *size), fps=12, metadata={})
        (folder / f"{number}.txt").write_text(CAPTIONS[number] + "\n")
    return folder


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return open_checkpoint(write_toy(tmp_path_factory.mktemp("toy")))


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    return write_clips(tmp_path_factory.mktemp("clips") / "data")


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    return write_picture(tmp_path_factory.mktemp("pictures") / "picture.png")


@pytest.fixture
def trainer_of(toy, clips, tmp_path):
    """A trainer of a small run; settings, and where it reads and writes, can be changed."""

    def make(name="a.safetensors", *, data=clips, resumes=False, checkpoint=toy, cache=None, **changes):
        given = changes if resumes else SMALL | changes
        return Trainer(checkpoint, Places(data, tmp_path / name, cache), given, resumes=resumes)

    return make


@pytest.fixture(scope="session")
def toy15(tmp_path_factory):
    return open_checkpoint(write_toy15(tmp_path_factory.mktemp("toy15")))


@pytest.fixture(scope="session")
def clips15(tmp_path_factory):
    """Two clips of one size, of which the first has quoted text, and another one."""
    folder = write_clips(tmp_path_factory.mktemp("clips15") / "data")
    (folder / "0.txt").write_text(f'{CAPTIONS[0]} past a sign that says "Open"\n')
    return folder


@pytest.fixture
def trainer15(toy15, clips15, tmp_path):
    """A trainer of a small run; settings, and what it reads and writes, can be changed."""

    def make(name="a.safetensors", *, checkpoint=toy15, data=clips15, resumes=False, cache=None, **changes):
        given = changes if resumes else SMALL | changes
        return Trainer(checkpoint, Places(data, tmp_path / name, cache), given, resumes=resumes)

    return make
