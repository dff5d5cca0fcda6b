"""LoRAs of HunyuanVideo-1.5: whole runs over the seams of the first model, and the files that its programs read."""

from __future__ import annotations

import json
import signal

import numpy as np
import pytest
from killed_run import killed, trainer
from toy15 import SPARSE, write_toy15
from toy_training import Task, apart, batch_of, losses

from framewake.errors import InputError
from framewake.golden import rule
from framewake.pipeline import Pipeline
from framewake.pipeline.adapters import targets_of
from framewake.pipeline.events import Result
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.request import Request
from framewake.train.cache import Cache
from framewake.train.events import Encoded, Sampled, Started, Update, Validated
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.lora.file import open_lora
from framewake.weights.lora.keys import FORMATS
from framewake.weights.lora.view import Merger
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores.streamed import Streamed
from framewake.weights.writing.convert import convert
from framewake.weights.writing.files import write_tensors

PROMPT = "a blue square moves right and up"


def test_the_loss_goes_down(engine, trainer15):
    found = losses(trainer15(steps=24, batch=2, caption_drop=0.0, learning_rate=2e-2).run(engine))
    assert np.mean(found[-6:]) < 0.8 * np.mean(found[:6])


def test_a_run_has_everything_that_the_first_model_has(engine, trainer15, picture, tmp_path):
    changes = {"validate_every": 2, "sample_every": 2, "sample_image": str(picture), "sample_prompt": PROMPT}
    events = list(trainer15(steps=2, cache=tmp_path / "cache", **changes).run(engine))
    started = events[0]
    assert isinstance(started, Started) and started.held == 1 and "rank 4" in started.forecast
    assert len([event for event in events if isinstance(event, Encoded)]) == 6
    held = [event for event in events if isinstance(event, Validated)]
    assert [event.step for event in held] == [0, 2] and held[0].loss != held[1].loss
    assert [event.path for event in events if isinstance(event, Sampled)] == [tmp_path / "a-000002.mp4"]
    said = TensorFile(tmp_path / "a.safetensors").metadata
    expected = {"ss_base_model_version": "hunyuan_video_1_5", "modelspec.architecture": "hunyuan-video-1.5/lora",
                "ss_discrete_flow_shift": "3.0", "ss_sd_model_name": "toy 1.5"}  # fmt: skip
    assert {name: said.get(name) for name in expected} == expected and "ss_guidance_scale" not in said


@pytest.mark.parametrize("changes", [{}, {"batch": 2, "accumulation": 2, "caption_drop": 0.5}])
def test_a_run_in_two_parts_is_the_same_to_the_byte(engine, trainer15, tmp_path, changes):
    whole = losses(trainer15("whole.safetensors", steps=4, **changes).run(engine))
    first = losses(trainer15("part.safetensors", steps=2, **changes).run(engine))
    second = losses(trainer15("part.safetensors", resumes=True, steps=4).run(engine))
    assert first + second == whole
    assert (tmp_path / "part.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_a_killed_run_goes_on_to_the_same_file(engine, toy15, clips15, tmp_path):
    whole, part = tmp_path / "whole.safetensors", tmp_path / "part.safetensors"
    list(trainer(toy15, clips15, whole).run(engine))
    assert killed(toy15, clips15, part, engine, "inside an update") == -signal.SIGKILL
    list(trainer(toy15, clips15, part, resumes=True).run(engine))
    assert part.read_bytes() == whole.read_bytes()


def test_streaming_changes_no_bit(engine, tmp_path):
    task = Task(engine, family=HUNYUAN15, condition="latent_concat")
    write_tensors(tmp_path / "dit.safetensors", rule.weights(task.shapes, 7))
    read = MappedTensors(TensorFile(tmp_path / "dit.safetensors"), same(task.shapes))
    store = Streamed(engine, read, "float32", names=task.shapes, streams=("double_blocks",))
    walk, batch = task.walk(), batch_of(engine, 2, family=HUNYUAN15)
    expected = walk(task.factors, task.resident(), batch)
    for _ in range(2):
        loss, found = walk(task.factors, store, batch)
        assert loss == expected[0] and apart(found, expected[1]) == 0
    store.close()


def test_a_base_in_eight_bits(engine, trainer15, toy15, tmp_path):
    list(convert(toy15, tmp_path / "int8", shapes=HUNYUAN15.shapes(toy15), dtype="int8", layout="framewake"))
    found = losses(trainer15(checkpoint=open_checkpoint(tmp_path / "int8"), steps=2).run(engine))
    assert len(found) == 2 and np.isfinite(found).all()


def test_every_format_is_read_as_what_it_is_and_does_the_same(engine, trainer15, toy15, tmp_path):
    targets, weights = targets_of(toy15), toy15.tensors("dit")
    merged = {}
    for style in FORMATS:
        list(trainer15(f"{style}.safetensors", steps=2, format=style, alpha=2.0).run(engine))
        lora = open_lora(tmp_path / f"{style}.safetensors", targets)
        assert lora.format == style and not lora.unmatched
        assert {lora.factor(update) for update in lora.updates} == {0.5}
        merger = Merger(engine, [lora])
        names = ("double_blocks.0.img_attn_qkv.weight", "byt5_in.fc1.weight", "final_layer.adaLN_modulation.1.weight")
        merged[style] = [engine.numpy(merger.merged(n, engine.asarray(weights.read(n)), [1.0])) for n in names]
    for style in FORMATS:
        assert max(np.abs(x - y).max() for x, y in zip(merged[style], merged["comfyui"], strict=True)) <= 1e-6


def test_the_original_s_file_is_that_of_its_trainer(engine, trainer15, tmp_path):
    list(trainer15(steps=1, alpha=8.0).run(engine))
    file = TensorFile(tmp_path / "a.safetensors")
    modules = {name.rpartition(".lora_")[0] for name in file.names()}
    assert set(file.names()) == {f"{module}.lora_{kind}.weight" for module in modules for kind in "AB"}
    assert {f"double_blocks.1.{kind}_attn_{part}" for kind in ("img", "txt") for part in "qkv"} <= modules
    assert not any(module.endswith("_qkv") for module in modules if module.startswith("double_blocks"))
    assert json.loads(file.metadata["lora_adapter_metadata"])["lora_alpha"] == 8
    kohya = [name.replace(".", "_") for name in modules]
    list(trainer15("b.safetensors", steps=1, format="kohya").run(engine))
    names = TensorFile(tmp_path / "b.safetensors").names()
    assert {name.partition(".")[0] for name in names} == {f"lora_unet_{module}" for module in kohya}


def test_a_trained_file_changes_a_clip(engine, trainer15, toy15, picture, tmp_path):
    list(trainer15(steps=4).run(engine))
    request = Request(prompt=PROMPT, image=str(picture), seed=3)
    asked = (request, Request(prompt=PROMPT, image=str(picture), seed=3, loras=(str(tmp_path / "a.safetensors"),)))
    plain, changed = (
        next(e.frames for e in Pipeline(toy15, engine).run(each) if isinstance(e, Result)) for each in asked
    )
    assert not np.array_equal(plain, changed)


def test_what_the_tower_saw_depends_on_the_crop(engine, trainer15, tmp_path):
    """SigLIP sees the bucket's crop; of another size, its states are others."""
    cache = tmp_path / "cache"
    list(trainer15(steps=1, cache=cache, caption_drop=0.0).run(engine))
    found = [Cache(cache).read(path.stem) for path in cache.glob("text-*")]
    assert len(found) == 3 and all(set(x) - {"byt5_in"} == {"states", "vision_in"} for x in found)
    assert sum("byt5_in" in x for x in found) == 1
    assert all(x["vision_in"].shape == (16, 16) for x in found)


def test_pictures_train_a_model_that_makes_clips_of_text(engine, trainer15, tmp_path):
    checkpoint = open_checkpoint(write_toy15(tmp_path / "t2v", is_i2v=False))
    events = list(trainer15(checkpoint=checkpoint, steps=2, cache=tmp_path / "cache").run(engine))
    assert all(np.isfinite(event.loss) for event in events if isinstance(event, Update))


@pytest.mark.parametrize("changes", [{"is_step_distilled": True}, {"tiles": SPARSE}])
def test_transformers_that_are_not_trained(trainer15, tmp_path, changes):
    checkpoint = open_checkpoint(write_toy15(tmp_path / "other", **changes))
    with pytest.raises(InputError, match="train on a variant that is neither step-distilled nor sparse"):
        trainer15(checkpoint=checkpoint)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"picture_drop": 0.1}, "--drop-picture: this model is never without its picture"),
        ({"guidance": 6.0}, "--embedded-guidance: this transformer is told no guidance"),
        ({"resolution": "360p"}, "resolution '360p' is not what .*: take 480p, or a checkpoint for 360p"),
        ({"frames": 1}, "the first frame is given, so at least 5 count"),
    ],
)
def test_settings_that_mean_nothing_to_it(trainer15, given, words):
    with pytest.raises(InputError, match=words):
        trainer15(**given)
