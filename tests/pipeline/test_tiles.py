"""A decode of many tiles tells of each, and stops between two of them."""

from __future__ import annotations

import numpy as np
import pytest

from framewake.app.render import record
from framewake.models.tiling import tile_plan, tiled_decode
from framewake.pipeline import Pipeline, Tile, finish
from framewake.pipeline.precision import choose_precision

LATENT = (1, 40, 36)  # frames, height, width: two rows and two columns of tiles


@pytest.fixture
def decoding(toy, engine, request_of):
    """A pipeline, latents, and the events of their decode."""
    pipeline = Pipeline.load(toy, engine=engine)
    channels = pipeline.checkpoint.vae.latent_channels
    latents = np.random.default_rng(1).standard_normal((1, channels, *LATENT)).astype(np.float32)
    precision = choose_precision("float32", engine)
    return pipeline, latents, finish.decode(pipeline.parts, latents, request_of(), precision)


def test_every_tile_is_told_and_the_frames_are_the_same(decoding):
    pipeline, latents, events = decoding
    told = []
    try:
        while True:
            told.append(next(events))
    except StopIteration as end:
        frames = end.value
    checkpoint = pipeline.checkpoint
    count = tile_plan(LATENT, checkpoint.settings.tiling, checkpoint.vae, is_decode=True).tiles
    assert count == 4 and [(tile.index, tile.count) for tile in told] == [(n, count) for n in range(1, count + 1)]
    assert told[-1].seconds_left == 0 and all(isinstance(tile, Tile) and tile.seconds_left >= 0 for tile in told)
    assert record(told[0]) == {"event": "tile", "index": 1, "count": 4, "seconds_left": round(told[0].seconds_left, 3)}
    vae = pipeline.parts.get("vae", "float32")
    scaled = latents / np.float32(checkpoint.vae.scaling_factor)
    expected = finish.to_frames(tiled_decode(vae.model, vae.weights.part(""), scaled, checkpoint.settings.tiling))
    assert np.array_equal(frames, expected[checkpoint.dit.dropped_frames :])


def test_closing_stops_behind_the_tile(decoding):
    _, _, events = decoding
    assert next(events).index == 1
    events.close()
    with pytest.raises(StopIteration):
        next(events)
