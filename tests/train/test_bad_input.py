"""Every mistake is told before a model is loaded, in words that say what to do."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from engines_here import FIRST
from PIL import Image

from framewake import engine as engines
from framewake.errors import InputError, NumericsError
from framewake.media.clips import read_clip
from framewake.train.cache import Cache
from framewake.train.dataset import gathered
from framewake.train.events import Update
from framewake.train.optimiser import learning_rate
from framewake.train.settings import Training, training_from
from framewake.train.state import saved_settings
from framewake.train.use import Use


def refused(trainer_of, words, **changes):
    """A run that is refused, at the latest with its first event."""
    with pytest.raises(InputError, match=words) as caught:
        next(trainer_of(**changes).run(engines.get(FIRST)))
    assert "\n" not in str(caught.value)


def examples_of(folder, frames=5):
    return gathered(folder, Use((frames,), lambda height, width: (height, width)), None, takes_pictures=False).examples


@pytest.fixture
def data(clips, tmp_path):
    return shutil.copytree(clips, tmp_path / "data", ignore=shutil.ignore_patterns(".framewake"))


def test_folders_without_clips(trainer_of, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    refused(trainer_of, "does not exist: name a folder", data=tmp_path / "gone")
    refused(trainer_of, "is a file: name a folder", data=tmp_path / "file")
    refused(trainer_of, "holds no clips", data=tmp_path / "empty")


def test_captions_that_are_missing(trainer_of, data):
    (data / "1.txt").unlink()
    refused(trainer_of, r"^1.webp has no caption: put a caption into a .txt file", data=data)
    (data / "2.txt").write_text(" \n")
    refused(trainer_of, r"data: 2 mistakes\. 1.webp has no caption; 2.gif has no caption: put", data=data)
    (data / "2.txt").write_bytes(b"\xff\xfe\x00\xd8")
    refused(trainer_of, "2.txt is no text in UTF-8", data=data)


def test_every_mistake_is_told_at_once(trainer_of, data):
    (data / "1.txt").unlink()
    (data / "0.mp4").write_bytes((data / "0.mp4").read_bytes()[:300])
    shutil.copy(data / "2.gif", data / "2.webp")
    with pytest.raises(InputError) as caught:
        trainer_of(data=data, frames=9)
    parts = ("4 mistakes.", "1.webp has no caption", "0.mp4 holds no video", "--frames 5")
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)
    assert "2.gif and 2.webp share the caption 2.txt: give each clip" in str(caught.value)


def test_very_many_mistakes_are_counted(trainer_of, data):
    for number in range(30):
        shutil.copy(data / "2.gif", data / f"new{number:02}.gif")
    refused(trainer_of, r"30 mistakes\. new00.gif .*; new19.gif has no caption: put .*\. And 10 more\.$", data=data)


def test_clips_that_cannot_be_used(trainer_of, data):
    shutil.copytree(data, data.parent / "whole")
    refused(trainer_of, r"3 mistakes\. .*has 7 frames and 9 are needed: .*--frames 5", data=data, frames=9)
    (data / "0.mp4").write_bytes((data / "0.mp4").read_bytes()[:300])
    refused(trainer_of, r"^\S+0.mp4 holds no video", data=data)
    (data / "1.webp").write_bytes(b"no picture")
    refused(trainer_of, r"2 mistakes\. \S+0.mp4 holds .*1.webp", data=data)
    refused(trainer_of, r"^--frames is 1: the first frame is given, so at least 5 count", data=data, frames=1)
    assert not list((data / ".framewake").glob("clip-*"))


def test_a_folder_of_frames(tmp_path):
    folder = tmp_path / "clip"
    folder.mkdir()
    for number in range(5):
        Image.fromarray(np.full((64, 64, 3), 10 * number, np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "clip.txt").write_text("it gets brighter")
    [example] = examples_of(tmp_path)
    assert example.caption == "it gets brighter"
    assert read_clip(example.path, 5).frames[:, 0, 0, 0].tolist() == [0, 10, 20, 30, 40]
    (folder / "3.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"3.png: the frame is damaged"):
        read_clip(folder, 5)
    Image.fromarray(np.zeros((32, 64, 3), np.uint8)).save(folder / "3.png")
    with pytest.raises(InputError, match="differ in size"):
        read_clip(folder, 5)


def test_a_list_of_clips(data):
    def listed(*lines):
        (data / "metadata.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line)
                                                       for line in lines))  # fmt: skip
        return examples_of(data)

    found = listed({"file": "2.gif", "caption": " two "}, "", {"file": "0.mp4", "caption": "zero"})
    assert [(example.path.name, example.caption) for example in found] == [("2.gif", "two"), ("0.mp4", "zero")]
    for line, words in [
        ("{", "line 1 is not JSON"),
        ({"name": "0.mp4"}, 'line 1 names no clip: expected {"file"'),
        ({"file": "9.mp4", "caption": "x"}, "line 1: there is no"),
        ({"file": "0.txt", "caption": "x"}, "is no clip"),
        ({"file": "0.mp4", "caption": 3}, "the caption is 3"),
        ({"file": "0.mp4"}, "0.mp4 has no caption"),
    ]:
        with pytest.raises(InputError, match=words):
            listed(line)
    with pytest.raises(InputError, match=r"2 mistakes.*line 2 is not JSON.*line 3 is line 1 again: take out one"):
        listed({"file": "0.mp4", "caption": "x"}, "{", {"file": "0.mp4", "caption": "x"})


def test_fast_clips_are_thinned_out(tmp_path):
    from framewake.media.video import write_video

    frames = np.stack([np.full((64, 64, 3), 10 * i, np.uint8) for i in range(12)])
    write_video(tmp_path / "fast.mp4", frames, fps=60, metadata=None)
    (tmp_path / "fast.txt").write_text("it gets brighter fast")
    [example] = examples_of(tmp_path)
    assert example.rate == 2
    taken = read_clip(example.path, 5, rate=example.rate).frames[:, 0, 0, 0]
    assert np.abs(taken - np.arange(0, 100, 20)).max() <= 2
    with pytest.raises(InputError, match=r"12 frames, of which one in 2 is taken, and 9 are needed: .*--frames 5"):
        examples_of(tmp_path, 9)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"rank": 0}, "--rank is 0"),
        ({"learning_rate": -1.0}, "--lr is -1"),
        ({"frames": 6}, "multiple of 4 plus 1"),
        ({"stored": "float8"}, "--dtype is 'float8'"),
        ({"format": "offical"}, "Did you mean 'official'"),
        ({"ranks": 4}, "Did you mean 'rank'"),
        ({"sample_every": 5}, "needs --sample-prompt"),
        ({"sample_prompt": "x"}, "need --sample-every"),
    ],
)
def test_settings_that_are_none(given, words):
    with pytest.raises(InputError, match=words):
        training_from(given)


def test_samples_are_checked_first(trainer_of, tmp_path):
    with pytest.raises(InputError, match="no such file"):
        trainer_of(sample_every=1, sample_prompt="x", sample_image=str(tmp_path / "gone.png"))


def test_places_that_cannot_be_written(trainer_of, tmp_path):
    for name, words in [("a.pt", "end in .safetensors"), ("no/a.safetensors", "no is no folder: make it first")]:
        with pytest.raises(InputError, match=words):
            trainer_of(name)


def test_broken_numbers_stop_and_keep_the_update_before(engine, trainer_of, data, tmp_path):
    events = trainer_of(steps=3, data=data, caption_drop=0.0, picture_drop=0.0).run(engine)
    next(event for event in events if isinstance(event, Update))
    cache = Cache(data / ".framewake")
    for path in cache.folder.glob("clip-*"):
        arrays = cache.read(path.stem)
        cache.write(path.stem, {name: np.full_like(x, np.nan) for name, x in arrays.items()})
    with pytest.raises(NumericsError, match=r"loss is nan .* at update 2: try a smaller --lr"):
        list(events)
    assert saved_settings(tmp_path / "a.safetensors")[1] == 1


def test_the_rate_of_each_update():
    settings = Training(learning_rate=1.0, warmup=10, steps=110, decays=True)
    rates = [learning_rate(settings, step) for step in range(1, 111)]
    assert rates[0] == pytest.approx(0.01) and rates[9] == pytest.approx(1.0) and rates[-1] == pytest.approx(0.1)
    assert rates[:10] == sorted(rates[:10]) and rates[9:] == sorted(rates[9:], reverse=True)
    assert {learning_rate(Training(learning_rate=0.5), step) for step in (1, 2, 1000)} == {0.5}
