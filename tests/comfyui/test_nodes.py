"""The nodes over a stand-in for ComfyUI, and over framewake itself: real clips of the demonstration checkpoint."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="ComfyUI computes with PyTorch")

from comfyui_pack import PACK, load  # noqa: E402
from stand_in import Stopped, Told, standing_in  # noqa: E402

from framewake import Pipeline, Request, Result  # noqa: E402
from framewake.demo import CHECKPOINT  # noqa: E402
from framewake.errors import InputError  # noqa: E402
from framewake.media.video import read_metadata, read_video  # noqa: E402

WISH = {"prompt": "the red circle moves right", "resolution": "360p", "frames": 5, "steps": 3, "seed": 7}
WISH |= {"preset": "stable", "cache": "off"}


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def nodes(told, tmp_path):
    with standing_in(told, tmp_path):
        yield load("nodes")


def clip_of(nodes, model, **changed):
    (image,) = nodes.FramewakeExamplePicture.execute()
    with torch.inference_mode():
        return nodes.FramewakeImageToVideo.execute(model, image, **WISH | changed)


def demo(nodes, engine="auto"):
    (model,) = nodes.FramewakeCheckpoint.execute("demo", engine, 0.0)
    return model


def test_a_clip_is_the_command_line_s(nodes, told):
    images, fps, video = clip_of(nodes, demo(nodes))
    request = Request(WISH["prompt"], image=str(PACK / "red-circle.png"), resolution="360p", frames=5, steps=3, seed=7)
    (result,) = [e for e in Pipeline.load("demo", engine="torch:cpu").run(request) if isinstance(e, Result)]
    assert images.dtype == torch.float32 and images.shape == result.frames.shape
    assert np.abs((images.numpy() * 255).round() - result.frames).max() == 0
    path = video.get_stream_source()
    assert len(read_video(path)[0]) == 5 and fps == result.metadata["request"]["fps"]
    assert read_metadata(path)["request"]["image"] == "the picture", "no path of this machine leaves it"


def test_the_page_is_told(nodes, told):
    clip_of(nodes, demo(nodes))
    assert told.values == sorted(told.values) and told.values[-1] == 100 and told.unloaded == 1
    kind, picture, size = told.previews[0]
    assert len(told.previews) == 3 and kind == "JPEG" and size == 512 and min(picture.size) > 32
    texts = [text for text, node in told.texts if node == "3"]
    assert any(text.startswith("step 2 of 3") for text in texts) and texts[-1].startswith("seed 7")


def test_the_stop_button_ends_a_run_and_the_next_is_not_disturbed(nodes, told):
    model = demo(nodes)
    told.stop_after = 1
    with pytest.raises(Stopped):
        clip_of(nodes, model, steps=50)
    assert len(told.previews) < 4
    told.stop_after = None
    assert len(clip_of(nodes, model)[0]) == 5


def test_what_is_open_is_used_again_and_closed_for_another(nodes):
    first, second = demo(nodes), demo(nodes, "torch:cpu")
    clip_of(nodes, first)
    pipeline = first.pipeline
    clip_of(nodes, first, seed=8)
    assert first.pipeline is pipeline
    clip_of(nodes, second)
    assert first.pipeline is None and second.pipeline is not None


def test_loras_are_chained(nodes):
    (one,) = nodes.FramewakeLora.execute("demo/trails", "1.0")
    (two,) = nodes.FramewakeLora.execute("mine.safetensors", " 0-2=0.5 ", one)
    assert [lora.name for lora in two] == ["demo/trails", "mine.safetensors"] and two[1].weight == "0-2=0.5"
    plain, _, video = clip_of(nodes, demo(nodes))
    trailing, _, video = clip_of(nodes, demo(nodes), loras=one)
    assert not torch.equal(plain, trailing)
    assert read_metadata(video.get_stream_source())["request"]["loras"] == ["demo/trails:1.0"]
    with pytest.raises(load("settings").Refused, match="not in models/loras"):
        nodes.FramewakeLora.execute("gone.safetensors", "1")


def test_mistakes_are_sentences(nodes):
    refused = load("settings").Refused
    with pytest.raises(InputError, match="prompt is empty"):
        clip_of(nodes, demo(nodes), prompt=" ")
    with pytest.raises(refused, match="'gone' is not there: choose one of demo"):
        nodes.FramewakeCheckpoint.execute("gone", "auto", 0.0)
    with pytest.raises(refused, match="expected the address"):
        nodes.FramewakeServer.execute("here")
    check = nodes.FramewakeImageToVideo.validate_inputs
    assert check(5) is True and "multiple of 4" in check(6) and "expected 1 to" in check(2001)


def test_checkpoints_are_found_two_levels_deep(nodes, tmp_path):
    for name in ("diffusers/flat", "diffusers/maker/deep", "diffusers/maker/too/deep"):
        shutil.copytree(CHECKPOINT, tmp_path / name, ignore=lambda *_: ["transformer", "vae"])
    assert list(nodes.checkpoints()) == ["demo", "flat", "maker/deep"]


def test_every_schema_can_be_made(nodes):
    made = {node.define_schema()["node_id"] for node in nodes.NODES}
    assert len(made) == 5 and all(name.startswith("Framewake") for name in made)
