"""HunyuanVideo-1.5 at published sizes on the meta device, with super-resolution: peaks against forecasts."""

from __future__ import annotations

import dataclasses

import pytest
from toy15 import SETTINGS, write_toy15
from toy_checkpoint import write_picture

torch = pytest.importorskip("torch")

from test_published_sizes import GB, Hollow  # noqa: E402
from watched import MetaCuda  # noqa: E402

from framewake.config15 import (  # noqa: E402
    GLYPH_BYT5,
    HUNYUAN15_DIT,
    HUNYUAN15_UPSAMPLER,
    HUNYUAN15_VAE,
    QWEN25_VL_7B,
    SIGLIP_SO400M,
)
from framewake.pipeline import Pipeline, StageFinished, StageStarted, Tile  # noqa: E402
from framewake.request import Request  # noqa: E402
from framewake.weights.checkpoint.layouts import known_layout  # noqa: E402
from framewake.weights.checkpoint.load import Checkpoint, ImageProcessor  # noqa: E402
from framewake.weights.checkpoint.upsampler15 import ENLARGEMENTS  # noqa: E402

ONE = dataclasses.replace(HUNYUAN15_DIT, double_blocks=1)  # how many there are changes no peak
PARTS = {
    "encode text": ("qwen", "byt5", "siglip"),
    "encode image": ("vae",),
    "denoise": ("dit",),
    "enlarge": ("larger_dit", "upsampler"),
    "decode": ("vae",),
}


class Hollow15(Hollow):
    """The published sizes with a toy's tokenizers; its weights have no numbers."""

    def _configure(self):
        Checkpoint._configure(self)
        self.configs = {
            "dit": ONE,
            "vae": HUNYUAN15_VAE,
            "qwen": dataclasses.replace(QWEN25_VL_7B, layers=4),
            "byt5": GLYPH_BYT5,
            "siglip": SIGLIP_SO400M,
            "upsampler": HUNYUAN15_UPSAMPLER,
            "larger_dit": dataclasses.replace(ONE, in_channels=98, is_step_distilled=True),
        }
        enlargement = ENLARGEMENTS["480p"]
        self.settings = dataclasses.replace(SETTINGS, resolutions={"480p": 640}, frames=121, enlargement=enlargement)
        self.image_processor = ImageProcessor(SIGLIP_SO400M.image_size, (0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("memory", "frames", "is_whole", "is_read"),
    [(None, 121, True, False), (8 * GB, 121, False, False), (4 * GB, 41, False, True)],
)
def test_peaks_are_what_was_forecast(tmp_path, memory, frames, is_whole, is_read):
    folder, picture = write_toy15(tmp_path / "toy", enlarges=True), write_picture(tmp_path / "picture.png", 720, 1280)
    pipeline = Pipeline(Hollow15(known_layout(folder)), MetaCuda(), memory=memory)
    pipeline.parts.keeps_all = False  # as it is with all blocks
    request = Request('a sign says "Open"', image=str(picture), seed=3, steps=2, frames=frames, super_resolution=True)
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
    assert list(found) == list(PARTS)
    for stage, (peak, forecast) in found.items():
        assert peak <= forecast, (stage, peak, forecast)
        assert memory is None or peak <= memory
    # What the autoencoder is forecast is the larger of its two stages.
    found["decode"] = max(found["encode image"], found["decode"])
    for stage in ("denoise", "enlarge", "decode"):
        assert found[stage][1] <= 1.25 * found[stage][0], (stage, found)
    places = pipeline.parts.placements
    assert (places["larger_dit"].chunk_tokens is None) == is_whole and (places["vae"].slab_numbers is None) == is_whole
    assert places["vae"].is_streamed == is_read
