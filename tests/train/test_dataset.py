"""musubi-tuner's dataset TOML as it stands: which frames it takes, how large, and every mistake in it at once."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from PIL import Image
from toy_checkpoint import write_toy
from toy_clips import clip_frames

from framewake.errors import InputError
from framewake.media.clips import read_clip
from framewake.media.video import write_video
from framewake.pipeline.events import Note
from framewake.train.dataset import gathered
from framewake.train.draws import Sized, batch_of
from framewake.train.events import Started, Update
from framewake.train.use import Use
from framewake.weights.checkpoint.load import open_checkpoint

FOLDER = Use((5,), lambda height, width: (height, width))
GENERAL = '[general]\nresolution = [64, 64]\ncaption_extension = ".txt"\nbatch_size = 1\n'


@pytest.fixture
def described(tmp_path):
    """Forty frames that get brighter, and the examples of a file that describes them."""
    (tmp_path / "videos").mkdir()
    frames = np.stack([np.full((64, 96, 3), 5 * number, np.uint8) for number in range(40)])
    write_video(tmp_path / "videos" / "a.gif", frames, fps=24, metadata=None)
    (tmp_path / "videos" / "a.txt").write_text("it gets brighter")

    def make(text, *, general=GENERAL, takes_pictures=False, source='video_directory = "videos"'):
        (tmp_path / "set.toml").write_text(f"{general}\n[[datasets]]\n{source}\n{text}\n")
        return gathered(tmp_path / "set.toml", FOLDER, None, takes_pictures=takes_pictures)

    return make


def cuts(found):
    return [(example.start, example.frames) for example in found.examples]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("target_frames = [1, 13, 25]", [(0, 13), (0, 25)]),
        ('target_frames = [13]\nframe_extraction = "chunk"', [(0, 13), (13, 13), (26, 13)]),
        (
            'target_frames = [5, 13]\nframe_extraction = "slide"\nframe_stride = 20',
            [(0, 5), (20, 5), (0, 13), (20, 13)],
        ),
        (
            'target_frames = [13]\nframe_extraction = "uniform"\nframe_sample = 4',
            [(0, 13), (9, 13), (18, 13), (27, 13)],
        ),
        ('target_frames = [13]\nframe_extraction = "uniform"', [(0, 13)]),
        ('frame_extraction = "full"', [(0, 37)]),
        ('frame_extraction = "full"\nmax_frames = 24', [(0, 21)]),
        ("target_frames = [15]", [(0, 13)]),
        ("target_frames = [25, 45]", [(0, 25)]),
        ("target_frames = [33]\nsource_fps = 24.0", [(0, 33)]),
        ('target_frames = [13]\nsource_fps = 48.0\nframe_extraction = "chunk"', [(0, 13)]),
    ],
)
def test_which_frames_are_taken(described, text, expected):
    assert cuts(described(text)) == expected


def test_frames_are_skipped_to_the_models_rate(described):
    (example,) = described("target_frames = [9]\nsource_fps = 60").examples
    brightness = read_clip(example.path, 9, start=2, rate=example.rate).frames[:, 0, 0, 0] / 5
    assert np.abs(brightness - [5, 8, 10, 13, 15, 18, 20, 23, 25]).max() < 0.5  # of 60 frames 24, the first that may be
    assert described("target_frames = [9]\nsource_fps = 12").examples[0].rate == 1


@pytest.mark.parametrize(
    ("general", "expected"),
    [
        ("resolution = [96, 70]", (64, 96)),
        ("resolution = 80", (80, 80)),
        ("resolution = [128, 128]\nenable_bucket = true", (96, 160)),
        ("resolution = [128, 128]\nenable_bucket = true\nbucket_no_upscale = true", (64, 96)),
        ("resolution = [64, 64]\nenable_bucket = true\nbucket_no_upscale = true", (48, 64)),
        ("", (544, 960)),
    ],
)
def test_sizes(described, general, expected):
    assert described("target_frames = [5]", general=f"[general]\n{general}").examples[0].size == expected


def test_repeats_batches_and_the_folder_of_the_cache(described, tmp_path):
    found = described('target_frames = [5]\nnum_repeats = 3\nbatch_size = 2\ncache_directory = "kept"')
    assert [(example.repeats, example.batch) for example in found.examples] == [(3, 2)]
    assert found.cache.folder == tmp_path / "kept" and list(found.cache.folder.glob("look-*"))
    kinds = [Sized((1, 2, 2, 2), 2)] * 3 + [Sized((1, 2, 2, 2), 1)] * 2
    epoch = [sorted(batch_of(kinds, seed=1, number=number)) for number in range(4)]
    assert sorted(map(len, epoch)) == [1, 1, 1, 2] and sorted(itertools.chain(*epoch)) == [0, 1, 2, 3, 4]


def test_lists_of_clips(described, tmp_path):
    (tmp_path / "frames").mkdir()
    for number in range(5):
        Image.fromarray(np.full((64, 64, 3), number, np.uint8)).save(tmp_path / "frames" / f"{number}.png")
    lines = [
        {"video_path": "videos/a.gif", "caption": " one "},
        {"video_path": str(tmp_path / "frames"), "caption": "2"},
    ]
    (tmp_path / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    found = described("target_frames = [5]", source='video_jsonl_file = "list.jsonl"')
    assert [(example.path.name, example.caption) for example in found.examples] == [("a.gif", "one"), ("frames", "2")]


def test_what_means_nothing_is_told_once(described):
    found = described('target_frames = [1, 9]\ncontrol_directory = "x"\nfp_latent_window_size = 9')
    assert found.notes == [
        "set.toml: control_directory, fp_latent_window_size mean nothing here and are left out. Data set 1: of "
        "target_frames [1, 9], [9] are used: 4 n + 1, and more than the given first one."
    ]


def test_every_mistake_is_told_at_once(described, tmp_path):
    (tmp_path / "videos" / "b.mp4").write_bytes(b"none")
    (tmp_path / "videos" / "b.txt").write_text("x")
    write_video(tmp_path / "videos" / "c.gif", clip_frames(0, 5), fps=12, metadata=None)
    others = '[[datasets]]\nvideo_directory = "gone"\n[[datasets]]\nimage_directory = "videos"\n[[datasets]]\n'
    with pytest.raises(InputError) as caught:
        described(f'frame_extractoin = "head"\ntarget_frames = [9]\nbatch_size = 0\n{others}num_repeats = 2')
    parts = [
        "set.toml: 8 mistakes.",
        "data set 1: 'frame_extractoin' is unknown. Did you mean 'frame_extraction'?",
        "data set 1: batch_size is 0: expected a whole number from 1",
        "gone is no folder: correct the path",
        "data set 3 has pictures: a picture teaches a model",
        "data set 4 names nothing: name one of video_directory",
        "b.mp4 is no video but text",
        "c.gif has no caption: put a caption into a file of its name with .txt",
    ]
    assert [part for part in parts if part not in str(caught.value)] == [], str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[general", "is no TOML"),
        ("", "describes no data set"),
        ("datasets = 3", "describes no data set"),
        ('[[datasets]]\nvideo_directory = "videos"', r"target_frames of \[1\]: name 5 or more"),
        ("[[datasets]]\nvideo_directory = 3", r"video_directory is 3: expected a text"),
        ('[[dataset]]\nvideo_directory = "videos"\n[[datasets]]', "'dataset' is unknown. Did you mean 'datasets'"),
    ],
)
def test_files_that_are_none(tmp_path, text, words):
    (tmp_path / "set.toml").write_text(text)
    with pytest.raises(InputError, match=words):
        gathered(tmp_path / "set.toml", FOLDER, None, takes_pictures=False)


def test_training_on_a_described_set(engine, trainer_of, clips, tmp_path):
    text = f'enable_bucket = true\n[[datasets]]\nvideo_directory = "{clips}"\ntarget_frames = [5]\nnum_repeats = 2\n'
    (tmp_path / "set.toml").write_text(f"{GENERAL}{text}multiple_target = true\n")
    settings = {"rank": 4, "steps": 2, "frames": None}
    with pytest.raises(InputError, match="says what --frames would"):
        trainer_of(data=tmp_path / "set.toml")
    trainer = trainer_of("b.safetensors", data=tmp_path / "set.toml", **settings)
    events = list(trainer.run(engine))
    assert "set.toml: multiple_target mean" in next(event.text for event in events if isinstance(event, Note))
    assert next(event for event in events if isinstance(event, Started)).clips == 3
    assert len([event for event in events if isinstance(event, Update)]) == 2
    assert (tmp_path / ".framewake").is_dir()


def test_pictures_train_a_model_that_takes_none(engine, trainer_of, tmp_path):
    toy = open_checkpoint(write_toy(tmp_path / "t2v", "none"))
    (tmp_path / "pictures").mkdir()
    Image.fromarray(clip_frames(0, 1)[0]).save(tmp_path / "pictures" / "a.png")
    (tmp_path / "pictures" / "a.txt").write_text("a picture")
    with pytest.raises(InputError, match=r"holds no clips .*, only pictures, and a picture teaches"):
        trainer_of(data=tmp_path / "pictures")
    events = list(trainer_of(data=tmp_path / "pictures", checkpoint=toy, frames=1, steps=1).run(engine))
    assert sum(isinstance(event, Update) for event in events) == 1
