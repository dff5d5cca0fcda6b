"""Runs in little memory: the file is the same, and the forecast says how."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from toy_checkpoint import DIT, write_toy

from framewake.errors import InputError, ResourceError
from framewake.pipeline.adapters import targets_of
from framewake.pipeline.events import Note
from framewake.pipeline.forecast import cost
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.pipeline.precision import choose_precision
from framewake.pipeline.run import Pipeline
from framewake.train.encode import ExampleEncoder
from framewake.train.events import Started, Update
from framewake.train.state import load_run, save_run
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.file import open_lora
from framewake.weights.writing.convert import convert

MIB = 2**20


@pytest.fixture(scope="session")
def wide(tmp_path_factory):
    """170 MB of blocks, of which two are 80."""
    config = dataclasses.replace(
        DIT, hidden_size=512, heads=4, rope_dims=(16, 56, 56), double_blocks=2, single_blocks=6
    )
    return open_checkpoint(write_toy(tmp_path_factory.mktemp("wide"), dit=config))


def run(trainer, engine, *, room=None):
    """A run in so many bytes beside what the process holds; its events."""
    memory = None if room is None else engine.memory()["used"] + room
    return list(trainer.run(engine, memory=memory))


def forecast_of(events):
    (started,) = [event for event in events if isinstance(event, Started)]
    return started.forecast


def test_a_streamed_run_makes_the_same_file(engine, trainer_of, wide, tmp_path):
    events = run(trainer_of("all.safetensors", checkpoint=wide, steps=2), engine)
    assert "weights resident" in forecast_of(events)
    events = run(trainer_of("few.safetensors", checkpoint=wide, steps=2), engine, room=220 * MIB)
    said = forecast_of(events)
    assert "weights streamed" in said and "rank 4, 64x64 x 5 frames" in said and " s an update" in said
    assert (tmp_path / "few.safetensors").read_bytes() == (tmp_path / "all.safetensors").read_bytes()


def test_what_cannot_fit_is_refused_before_anything_is_encoded(engine, trainer_of, wide, clips, tmp_path):
    trainer = trainer_of(checkpoint=wide, cache=tmp_path / "cache")
    with pytest.raises(ResourceError, match=r"an update of 64x64 x 5 frames at rank 4 needs .* may take"):
        run(trainer, engine, room=20 * MIB)
    assert {path.name[:5] for path in (tmp_path / "cache").iterdir()} == {"look-"}


def test_factors_and_states_are_counted_once(engine, trainer_of, wide):
    """What a refusal asks for is enough, though a run holds its factors and states (220 MB) before it plans."""
    trainer = trainer_of(checkpoint=wide, rank=200, steps=1)
    with pytest.raises(ResourceError) as refused:
        run(trainer, engine, room=20 * MIB)
    assert "weights streamed" in forecast_of(run(trainer, engine, room=refused.value.bytes_needed + 40 * MIB))


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_a_base_in_eight_bits_is_trained_over(engine, trainer_of, toy, tmp_path, kind):
    list(convert(toy, tmp_path / kind, shapes=HUNYUAN.shapes(toy), dtype=kind, layout="framewake"))
    eight = open_checkpoint(tmp_path / kind)
    events = run(trainer_of(checkpoint=eight, steps=2), engine)
    assert all(np.isfinite(event.loss) for event in events if isinstance(event, Update))
    assert open_lora(tmp_path / "a.safetensors", targets_of(eight)).by_weight()


def test_products_in_eight_bits_are_refused(trainer_of):
    pytest.importorskip("torch")
    from cuda_here import CudaHere

    engine = CudaHere("cpu", is_eight_bit=True)
    with pytest.raises(InputError, match=r"has no gradients: train without \+fp8"):
        list(trainer_of().run(engine))


def test_a_saved_run_goes_on_as_it_began(engine, trainer_of, toy, tmp_path):
    """Runs of tokens round otherwise than all at once."""
    run(trainer_of(steps=1), engine)
    target = tmp_path / "a.safetensors"
    saved = load_run(target)
    assert not saved.recomputes
    save_run(target, saved._replace(recomputes=True))
    events = run(trainer_of(resumes=True, steps=2), engine)
    assert "tokens computed again in runs" in forecast_of(events)
    assert load_run(target).recomputes and not [e for e in events if isinstance(e, Note)]


def test_how_clips_are_encoded_depends_on_the_room(engine, trainer_of):
    trainer = trainer_of()
    encoder = ExampleEncoder(trainer.checkpoint, trainer.settings, choose_precision("float32", engine), engine.name)
    long = [encoder.keys(example._replace(frames=129, size=(512, 512))) for example in trainer.examples]

    def place(room):
        return encoder.autoencoder(Pipeline(trainer.checkpoint, engine, memory=engine.memory()["used"] + room), long)

    whole = place(4000 * MIB)
    found = place(whole.peak - 10 * MIB)
    assert whole.slab_numbers is None and found.slab_numbers == cost.ENCODED_NUMBERS and found.peak < whole.peak
    with pytest.raises(ResourceError, match=r"encoding 129 frames needs .* at the least .*: take fewer --frames"):
        place(100 * MIB)
