"""An autoencoder whose large tensors stay in the file makes the numbers of one that is in memory."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from framewake.config import HUNYUAN_VAE
from framewake.config15 import HUNYUAN15_VAE
from framewake.engine.contract import BY_TENSOR
from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.models.vae import CausalVAE
from framewake.models.vae15 import CellVAE
from framewake.pipeline.forecast import cost
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores import by_tensor
from framewake.weights.stores.by_tensor import ByTensor
from framewake.weights.stores.store import Resident
from framewake.weights.writing.files import write_tensors

MODELS = {
    CausalVAE: replace(HUNYUAN_VAE, block_out_channels=(8, 16, 16, 16), norm_groups=4, layers_per_block=1),
    CellVAE: replace(HUNYUAN15_VAE, latent_channels=4, block_out_channels=(8, 8, 16, 32, 32), layers_per_block=1),
}


@pytest.fixture(params=MODELS, ids=lambda make: make.__name__)
def held(request, engine, tmp_path, monkeypatch):
    """A model, its weights in memory, and the same in a file of half precision; what is large is toy-sized too."""
    monkeypatch.setattr(by_tensor, "SMALL", 500)
    monkeypatch.setattr(by_tensor, "ROWS", 3000)
    monkeypatch.setattr(by_tensor, "ROUND", 2)
    model = request.param(engine, MODELS[request.param])
    shapes = model.shapes()
    values = {name: np.float16(rule.weight(name, shape, 7)) for name, shape in shapes.items()}
    write_tensors(tmp_path / "vae.safetensors", values)
    tensors = MappedTensors(TensorFile(tmp_path / "vae.safetensors"), same(shapes))
    resident = Resident({name: engine.asarray(np.float32(array)) for name, array in values.items()})
    return model, resident, ByTensor(engine, tensors, "float32", shapes=shapes)


def test_clips_are_those_of_weights_in_memory(held, engine):
    model, resident, read = held
    assert model.streams() == BY_TENSOR and 0 < len(dict(read.part(""))) < len(model.shapes())
    cells = (3, 4, 4)
    latents = engine.asarray(rule.input("latents", (1, model.config.latent_channels, *cells), 1))
    side = 4 * model.config.spatial_compression
    pixels = engine.asarray(rule.input("pixels", (1, 3, 5, side, side), 1))
    for work in (
        lambda w: model.decode(w, latents),
        lambda w: model.decode(w, latents[:, :, :1]),
        lambda w: model.decode_slabs(w, latents, 1),
        lambda w: model.moments(w, pixels),
        lambda w: model.moments(w, pixels[:, :, :1]),
        lambda w: model.moments_slabs(w, pixels, 1),
    ):
        expected, found = (engine.numpy(work(store.part(""))) for store in (resident, read))
        np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    assert len(dict(read.part(""))) < len(model.shapes()), "nothing large was kept"


def test_rows_are_those_of_the_tensor(held, engine):
    model, resident, read = held
    counts = set()
    for name in model.shapes():
        rows = [engine.numpy(part) for part in read.part("").rows(name)]
        np.testing.assert_array_equal(np.concatenate(rows), engine.numpy(resident.part("")[name]))
        assert len(rows) == 1 or max(part.size for part in rows) <= by_tensor.ROWS
        counts.add(len(rows))
    assert max(counts) > 1


def test_a_forecast_counts_what_is_there_at_a_time(held):
    model, _, read = held
    shapes = model.shapes()
    large = {name: shape for name, shape in shapes.items() if name not in read.part("")}
    found = cost.weights(shapes, model.streams(), "float32")
    everything, kept = (4 * sum(int(np.prod(shape)) for shape in table.values()) for table in (shapes, large))
    assert (found.whole, found.kept) == (everything, everything - kept)
    assert found.block <= 4 * max(int(np.prod(shape)) for shape in large.values())
    published = cost.weights(CellVAE(None, HUNYUAN15_VAE).shapes(), BY_TENSOR, "float32")
    assert published.streamed < published.whole / 12


def test_closed_weights_say_so(held):
    model, _, read = held
    name = next(name for name in model.shapes() if name not in read.part(""))
    with pytest.raises(KeyError):
        read.part("")["no.such.name"]
    read.close()
    with pytest.raises(CheckpointError, match="closed"):
        read.part("")[name]
