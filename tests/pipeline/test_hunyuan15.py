"""HunyuanVideo-1.5 through the pipeline: what the first model can do, the second can, over the same seams."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from toy15 import SPARSE, VAE, write_toy15

from framewake.errors import InputError
from framewake.golden import rule
from framewake.pipeline import Job, Note, Output, Pipeline
from framewake.pipeline.hunyuan import family_of
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.pipeline.jobs import plan_job
from framewake.pipeline.latents import latents_path, load_latents
from framewake.pipeline.notes import notes_of
from framewake.request import Request
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.stores import by_tensor
from framewake.weights.writing.convert import convert
from framewake.weights.writing.files import write_tensors

QUOTED = 'a sign says "Open" and a circle turns'


@pytest.fixture(scope="module")
def toys(tmp_path_factory):
    """Folders by what they are."""
    root = tmp_path_factory.mktemp("toys15")
    return {
        "i2v": write_toy15(root / "i2v"),
        "t2v": write_toy15(root / "t2v", is_i2v=False),
        "step": write_toy15(root / "step", is_step_distilled=True),
        "sparse": write_toy15(root / "sparse", tiles=SPARSE),
    }


def asked(picture, **changes):
    return Request(**({"prompt": QUOTED, "image": str(picture), "seed": 3} | changes))


def frames(folder, engine, request, **options):
    return list(Pipeline(open_checkpoint(folder), engine, **options).run(request))[-1].frames


def far(one, two):
    return float(np.abs(one.astype(int) - two.astype(int)).max())


@pytest.mark.parametrize("kind", ["i2v", "step", "t2v", "sparse"])
def test_a_clip_is_made(toys, engine, picture, kind):
    request = asked(None if kind == "t2v" else picture, **({"image": None} if kind == "t2v" else {}))
    made = frames(toys[kind], engine, request)
    assert made.shape == (5, 64 if kind == "t2v" else 80, 112, 3)
    assert np.array_equal(made, frames(toys[kind], engine, request))
    assert not np.array_equal(made, frames(toys[kind], engine, replace(request, seed=4)))
    assert not np.array_equal(made, frames(toys[kind], engine, replace(request, prompt="a circle turns")))


def test_an_autoencoder_that_does_not_fit_stays_on_disk(tmp_path, engine, picture, monkeypatch):
    monkeypatch.setattr(by_tensor, "SMALL", 1 << 16)  # most of the published tensors are above it, and of these
    wide = replace(VAE, block_out_channels=(32, 64, 128, 256, 256))
    folder, request = write_toy15(tmp_path / "wide", vae=wide), asked(picture)
    whole = Pipeline(open_checkpoint(folder), engine)
    place = whole.forecast(Job(request), is_timed=False).placements["vae"]
    made = list(whole.run(request))[-1].frames
    assert not place.is_streamed and place.weights > 100 << 20
    whole.parts.keeps_all = False
    whole.parts.release(*whole.parts.held())
    limit = engine.memory()["used"] + place.peak - place.weights // 2
    events = list(Pipeline(open_checkpoint(folder), engine, memory=limit).run(request))
    assert any("autoencoder: streamed" in event.text for event in events if isinstance(event, Note))
    assert far(made, events[-1].frames) <= 1


def test_sparse_attention_reaches_the_clip_on_every_engine(toys, engine, picture):
    made = frames(toys["sparse"], engine, asked(picture))
    assert far(made, frames(toys["i2v"], engine, asked(picture))) > 0
    first = getattr(test_sparse_attention_reaches_the_clip_on_every_engine, "first", made)
    assert far(made, first) <= 1
    test_sparse_attention_reaches_the_clip_on_every_engine.first = first


def test_a_variant_knows_its_guidance_and_its_size(toys, picture):
    plain, step = (plan_job(Job(asked(picture)), open_checkpoint(toys[kind])).request for kind in ("i2v", "step"))
    assert (plain.guidance_scale, plain.flow_shift, plain.resolution) == (6.0, 5.0, "480p")
    assert (step.guidance_scale, step.flow_shift) == (1.0, 7.0)
    free = plan_job(Job(asked(picture, guidance_scale=2.0, is_stable=False)), open_checkpoint(toys["i2v"])).request
    assert (free.guidance_scale, free.flow_shift) == (2.0, 5.0)
    off = plan_job(Job(asked(picture, guidance_scale=1)), open_checkpoint(toys["i2v"])).request
    assert off.guidance_scale == 1.0
    for other in ("360p", "720p", "1080p"):
        told = (
            f"resolution '{other}' is not what this checkpoint was trained for: take 480p, or a checkpoint for {other}"
        )
        with pytest.raises(InputError, match=told):
            plan_job(Job(asked(picture, resolution=other)), open_checkpoint(toys["i2v"]))


def test_settings_that_change_nothing_are_told(toys, picture):
    checkpoint = open_checkpoint(toys["step"])
    reader = family_of(checkpoint).reader(checkpoint)

    def told(**changes):
        return list(notes_of(plan_job(Job(asked(picture, **changes)), checkpoint).request, None, reader))

    assert told() == told(embedded_guidance=6.0, guidance_scale=3.0, negative_prompt="blur") == []
    assert [
        note.partition(":")[0] for note in told(embedded_guidance=4.0, is_stable=False, negative_prompt="blur")
    ] == [
        "the embedded guidance changes nothing",
        "stable or dynamic changes nothing",
        "the negative prompt is not used",
    ]


def test_the_picture_and_the_negative_prompt_count(toys, engine, picture, tmp_path):
    from toy_checkpoint import write_picture

    made = frames(toys["i2v"], engine, asked(picture))
    other = write_picture(tmp_path / "other.png", 50, 71)
    assert not np.array_equal(made, frames(toys["i2v"], engine, asked(other)))
    assert not np.array_equal(made, frames(toys["i2v"], engine, asked(picture, negative_prompt="noise")))


@pytest.mark.parametrize("changes", [{"memory": "streamed"}, {"cache": "easy:0.05"}, {"cache": "fixed:2"}])
def test_over_the_seams(toys, engine, picture, changes):
    request = asked(picture, steps=4)
    plain = frames(toys["i2v"], engine, request)
    if "cache" in changes:
        made = frames(toys["i2v"], engine, replace(request, **changes))
        assert made.shape == plain.shape and np.isfinite(made).all()
        return
    pipeline = Pipeline(open_checkpoint(toys["i2v"]), engine)
    pipeline.parts.keeps_all = False
    found = pipeline._forecast

    def streamed(plan, precision, *, is_timed):
        made = found(plan, precision, is_timed=is_timed)
        places = {n: p._replace(is_streamed=n in ("dit", "qwen"), chunk_tokens=33 if n == "dit" else None)
                  for n, p in made.placements.items()}  # fmt: skip
        return replace(made, placements=places)

    pipeline._forecast = streamed
    assert far(list(pipeline.run(request))[-1].frames, plain) <= 1


def test_eight_bits(toys, engine, picture, tmp_path):
    checkpoint = open_checkpoint(toys["i2v"])
    shapes = HUNYUAN15.shapes(checkpoint)
    list(convert(checkpoint, tmp_path / "x", shapes=shapes, dtype="int8", layout="framewake"))
    made = frames(tmp_path / "x", engine, asked(picture))
    assert 0 < far(made, frames(toys["i2v"], engine, asked(picture))) < 60


@pytest.mark.parametrize("dialect", ["tencent", "diffusers", "comfyui"])
def test_a_lora_of_every_trainer(toys, engine, picture, tmp_path, dialect):
    names = {
        "tencent": ("double_blocks.0.img_attn_q", "double_blocks.1.txt_mlp.fc1", "byt5_in.fc1"),
        "diffusers": (
            "transformer.transformer_blocks.0.attn.to_q",
            "transformer.transformer_blocks.1.ff_context.net.0.proj",
            "transformer.context_embedder_2.linear_1",
        ),
        "comfyui": ("diffusion_model.double_blocks.0.img_attn_qkv", "diffusion_model.double_blocks.1.txt_mlp.fc1",
                    "diffusion_model.byt5_in.fc1"),
    }[dialect]  # fmt: skip
    rows = {0: 96 if dialect == "comfyui" else 32, 1: 128, 2: 12}
    columns = {0: 32, 1: 32, 2: 16}
    tensors = {}
    for place, name in enumerate(names):
        up = rule.weight(f"up{place}", (rows[place], 2), 1)
        if dialect == "comfyui" and place == 0:
            up[32:] = 0  # keys and values stay, as in the other files
            up[:32] = rule.weight("up0", (32, 2), 1)
        tensors |= {f"{name}.lora_A.weight": rule.weight(f"down{place}", (2, columns[place]), 1)}
        tensors |= {f"{name}.lora_B.weight": up}
    write_tensors(tmp_path / "lora.safetensors", tensors)
    request = asked(picture, loras=(f"{tmp_path / 'lora.safetensors'}:1.0",))
    made = frames(toys["i2v"], engine, request)
    assert far(made, frames(toys["i2v"], engine, asked(picture))) > 0
    reference = getattr(test_a_lora_of_every_trainer, "first", {})
    if engine.name in reference:
        assert far(made, reference[engine.name]) <= 1
    reference[engine.name] = made
    test_a_lora_of_every_trainer.first = reference


def test_a_stopped_clip_goes_on(toys, engine, picture, tmp_path):
    request = asked(picture, steps=4)
    whole = list(Pipeline(open_checkpoint(toys["step"]), engine).run(request, tmp_path / "whole.gif"))[-1].frames
    output = Output(tmp_path / "clip.gif", save_every=1)
    pipeline = Pipeline(open_checkpoint(toys["step"]), engine)
    events = pipeline.run(request, output)
    for event in events:
        if getattr(event, "index", 0) == 2:
            break
    events.close()
    saved = load_latents(latents_path(output.path))
    assert saved.step == 2
    assert np.array_equal(list(pipeline.resume(saved, output, request=request))[-1].frames, whole)


def test_the_files_say_which_family_it_is(toys):
    assert family_of(open_checkpoint(toys["i2v"])) is HUNYUAN15
