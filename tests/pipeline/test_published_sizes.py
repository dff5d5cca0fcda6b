"""Published models at published sizes on the meta device: the peak of each stage against its forecast (see watched.py).

The pipeline's own text, from prompt to the first tile; what is left out is disk and numbers.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toy_checkpoint import write_picture, write_toy

torch = pytest.importorskip("torch")

from watched import PARTS, MetaCuda  # noqa: E402

from framewake.config import CLIP_L, CLIP_MEAN, CLIP_STD, HUNYUAN_DIT, HUNYUAN_VAE, LLAVA_LLAMA3_8B  # noqa: E402
from framewake.engine.contract import BY_TENSOR  # noqa: E402
from framewake.pipeline import Job, Pipeline, StageFinished, StageStarted, Tile  # noqa: E402
from framewake.request import Request  # noqa: E402
from framewake.weights.checkpoint.layouts import known_layout  # noqa: E402
from framewake.weights.checkpoint.load import Checkpoint, ImageProcessor  # noqa: E402
from framewake.weights.checkpoint.settings import Settings  # noqa: E402
from framewake.weights.stores.by_tensor import ByTensor  # noqa: E402
from framewake.weights.stores.store import Resident  # noqa: E402
from framewake.weights.stores.streamed import Streamed  # noqa: E402

GB = 10**9
TEXT = ("encode text", "encode image")  # stages that are forecast for the longest prompt, or for the decode
BLOCKS = {"double_blocks": 1, "single_blocks": 2}  # one after another: how many there are changes no peak


class Bytes:
    """Weights of a file that nobody has: arrays of which no page is ever touched."""

    def __init__(self, shapes):
        self.shapes = shapes

    def values(self, name, dtype, *, empty=None):
        return np.zeros(self.shapes[name], "uint16" if dtype == "bfloat16" else dtype)

    def joined(self, stretches, dtype, *, empty=None):
        return np.zeros(sum(each.numbers for each in stretches), "uint16" if dtype == "bfloat16" else dtype)


class Hollow(Checkpoint):
    """The published sizes with a toy's tokenizers; its weights have no numbers."""

    def _configure(self):
        super()._configure()
        toy = self.configs["llava"]
        text = dataclasses.replace(LLAVA_LLAMA3_8B.text, layers=4)
        ids = {"image_token_id": toy.image_token_id, "pad_token_id": toy.pad_token_id}
        self.configs = {
            "dit": dataclasses.replace(HUNYUAN_DIT, **BLOCKS),
            "vae": HUNYUAN_VAE,
            "llava": dataclasses.replace(LLAVA_LLAMA3_8B, text=text, **ids),
            "clip_text": dataclasses.replace(CLIP_L, eos_token_id=self.configs["clip_text"].eos_token_id),
        }
        self.settings = Settings()
        self.image_processor = ImageProcessor(LLAVA_LLAMA3_8B.vision.image_size, CLIP_MEAN, CLIP_STD)

    def check(self, component, shapes):
        return Bytes(shapes)

    def store(self, component, engine, dtype, *, shapes, streams=()):
        if tuple(streams) == BY_TENSOR:
            return ByTensor(engine, Bytes(shapes), dtype, shapes=shapes)
        if streams:
            return Streamed(engine, Bytes(shapes), dtype, names=shapes, streams=streams)
        return Resident({name: engine.zeros(shape, dtype) for name, shape in shapes.items()})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    return write_picture(tmp_path_factory.mktemp("pictures") / "picture.png", 720, 1280)


def made(folder, *, memory=None, is_eight_bit=False):
    pipeline = Pipeline(Hollow(known_layout(folder)), MetaCuda(is_eight_bit=is_eight_bit), memory=memory)
    pipeline.parts.keeps_all = False  # as it is with all blocks
    return pipeline


def peaks(pipeline, request):
    """Stage -> most bytes alive in it, and what was forecast; up to the first tile."""
    watch, found, stage = pipeline.engine.watch, {}, ""
    with watch:
        events = pipeline.run(request)
        for event in events:
            if isinstance(event, StageStarted):
                stage = event.stage
                watch.since()
            if isinstance(event, StageFinished | Tile) and stage in PARTS:
                found[stage] = watch.peak, max(pipeline.parts.placements[part].peak for part in PARTS[stage])
            if isinstance(event, Tile):
                break
        events.close()
    return found


def check(found):
    for stage, (peak, forecast) in found.items():
        assert peak <= forecast, (stage, peak, forecast)
    for stage in ("denoise", "decode"):
        assert found[stage][1] <= 1.1 * found[stage][0], (stage, found)


@pytest.mark.parametrize(
    ("resolution", "is_eight_bit", "is_whole", "guidance"),
    [
        ("720p", False, True, 1.0),
        ("720p", False, True, 2.0),
        ("720p", False, False, 1.0),
        ("720p", False, False, 2.0),
        ("540p", False, False, 1.0),
        ("360p", False, True, 2.0),
        ("360p", True, False, 1.0),
    ],
)
def test_peaks_are_what_was_forecast(folder, picture, resolution, is_eight_bit, is_whole, guidance):
    settings = {"prompt": "the red circle moves left", "image": str(picture), "resolution": resolution, "steps": 2}
    request = Request(**settings, guidance_scale=guidance, seed=3)
    pipeline = made(folder, is_eight_bit=is_eight_bit)
    if not is_whole:
        whole = pipeline.forecast(Job(request), is_timed=False).placements["dit"].peak
        pipeline = made(folder, memory=whole - 1, is_eight_bit=is_eight_bit)
    check(peaks(pipeline, request))
    assert (pipeline.parts.placements["dit"].chunk_tokens is None) == is_whole
