"""Super-resolution: a clip becomes a larger one, stops and goes on, and is held to the specification written out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from engines_here import FIRST, needs_torch
from ranks_here import together
from toy15 import LARGER, SETTINGS, VAE, write_toy15

from framewake import engine as engines
from framewake.errors import InputError, ResourceError
from framewake.pipeline import Job, Output, Pipeline, Result
from framewake.pipeline.condition import image_latent
from framewake.pipeline.events import StageStarted, Step
from framewake.pipeline.forecast import forecast
from framewake.pipeline.forecast.duration import step_parts
from framewake.pipeline.forecast.probe import Rates
from framewake.pipeline.forecast.setup import scene_of
from framewake.pipeline.jobs import placed, plan_job, plan_size
from framewake.pipeline.latents import latents_path, load_latents
from framewake.pipeline.longer import Longer, plan_longer
from framewake.pipeline.precision import choose_precision
from framewake.pipeline.velocity import clip_rope
from framewake.request import Request
from framewake.weights.checkpoint.load import open_checkpoint
from framewake.weights.checkpoint.settings import Enlargement

SEED, BASE, STEPS = 3, 2, 4
CLOSE = 2e-5  # of the largest value


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_toy15(tmp_path_factory.mktemp("larger") / "i2v", enlarges=True)


def asked(picture, **changes):
    settings = {"prompt": 'a sign says "Open"', "image": str(picture), "seed": SEED, "super_resolution": True}
    return Request(**(settings | changes))


def made(pipeline, request):
    return list(pipeline.run(request))[-1].frames


def stopped(events, path, wanted):
    """What is saved when a run is stopped at the first event that is wanted."""
    for event in events:
        if wanted(event):
            break
    events.close()
    return load_latents(latents_path(path))


def at_step(number):
    """Behind a step of the larger clip; behind none, where its stage begins."""
    seen = []

    def wanted(event):
        seen.append(event)
        here = StageStarted("enlarge") in seen
        return here and (number == 0 or (isinstance(event, Step) and event.index == number))

    return wanted


def test_a_clip_becomes_larger(folder, engine, picture):
    pipeline = Pipeline(open_checkpoint(folder), engine)
    frames = made(pipeline, asked(picture))
    assert frames.shape == (5, 112, 160, 3)
    assert made(pipeline, asked(picture, super_resolution=False)).shape == (5, 80, 112, 3)
    assert np.array_equal(made(pipeline, asked(picture)), frames)
    assert not np.array_equal(made(pipeline, asked(picture, seed=4)), frames)
    assert not np.array_equal(made(pipeline, asked(picture, steps=3)), frames), "the smaller clip counts"
    first = getattr(test_a_clip_becomes_larger, "first", frames)
    assert np.abs(first.astype(int) - frames.astype(int)).max() <= 1, "on every engine the same"
    test_a_clip_becomes_larger.first = first


def test_without_a_picture(tmp_path, engine):
    folder = write_toy15(tmp_path / "t2v", enlarges=True, is_i2v=False)
    request = Request(prompt="a circle turns", seed=SEED, super_resolution=True)
    assert made(Pipeline(open_checkpoint(folder), engine), request).shape == (5, 96, 176, 3)


def test_several_clips_in_one_run(folder, picture, tmp_path):
    """Transformers take turns where only one has room, and a clip without super-resolution is among them."""
    pipeline = Pipeline(open_checkpoint(folder), engines.get(FIRST))
    pipeline.parts.keeps_all = False
    requests = [asked(picture), asked(picture, super_resolution=False), asked(picture, seed=4, cache="fixed:2")]
    found = [event.frames for event in pipeline.run_all(map(Job, requests)) if isinstance(event, Result)]
    assert pipeline.parts.held() == ()
    for request, frames in zip(requests, found, strict=True):
        assert np.array_equal(frames, made(Pipeline(open_checkpoint(folder), engines.get(FIRST)), request))


# --- the specification (1.5, section 13) once more, in NumPy


def bilinear(x, height, width):
    for axis, size in ((3, height), (4, width)):
        held = x.shape[axis]
        places = (np.arange(size) + 0.5) * held / size - 0.5
        x = np.apply_along_axis(lambda line, at=places, n=held: np.interp(at, np.arange(n), line), axis, x)
    return x


def convolved(weights, name, x):
    kernel = weights[f"{name}.conv.weight"]
    padded = np.pad(x, ((0, 0), (0, 0), (2, 0), (1, 1), (1, 1)), mode="edge")
    frames, height, width = x.shape[2:]
    out = np.zeros((1, kernel.shape[0], frames, height, width))
    for t, y, z in np.ndindex(3, 3, 3):
        piece = padded[:, :, t : t + frames, y : y + height, z : z + width]
        out += np.einsum("oi,bifhw->bofhw", kernel[:, :, t, y, z], piece)
    return out + weights[f"{name}.conv.bias"].reshape(1, -1, 1, 1, 1)


def upsampled(weights, x):
    def silu(y):
        return y / (1 + np.exp(-y))

    x = convolved(weights, "in_conv", x)
    for block in range(2):
        y = silu(convolved(weights, f"blocks.{block}.block.0", x))
        y = silu(convolved(weights, f"blocks.{block}.block.2", y))
        x = x + convolved(weights, f"blocks.{block}.block.4", y)
    return convolved(weights, "out_conv", x)


def noise(shape, key):
    return np.random.Generator(np.random.Philox(key=key)).standard_normal(shape, dtype=np.float32)


def test_the_steps_are_those_of_the_specification(folder, engine, picture, tmp_path):
    pipeline, output = Pipeline(open_checkpoint(folder), engine), Output(tmp_path / "clip.gif", save_every=1)
    plan = pipeline.plan(Job(asked(picture), output))
    small = stopped(pipeline.run_all([plan]), output.path, at_step(0))
    last = stopped(pipeline.run_all([plan]), output.path, lambda event: event == StageStarted("decode"))
    assert (small.step, small.lesser, last.step) == (BASE, None, BASE + STEPS)
    assert np.array_equal(last.lesser, small.latents)
    parts, larger, precision = pipeline.parts, plan.larger, choose_precision("auto", engine)
    shape = (1, *larger.latent)
    weights = {name: engine.numpy(x) for name, x in parts.get("upsampler", "float32").weights.part("").items()}
    lesser = upsampled(weights, bilinear(small.latents.astype(np.float64), *shape[3:]))
    lesser = 0.3 * lesser + 0.7 * noise(shape, SEED + 2**64)
    first = np.zeros((1, VAE.latent_channels + 1, *shape[2:]), np.float32)
    first[:, :-1, :1] = engine.numpy(image_latent(parts, larger.picture.pixels, precision))
    first[:, -1:, :1] = 1
    tokens = [pipeline.reader.tokens(larger.request.prompt)]
    text = pipeline.reader.states(parts, tokens, larger.picture.semantic, precision.text)
    model, held, manner = parts.get("larger_dit", precision.transformer)
    sigmas = np.linspace(1, 0, STEPS + 1)
    sigmas = 2 * sigmas / (1 + sigmas)
    x, seen = noise(shape, SEED), []
    for here, there in itertools.pairwise(sigmas):
        seen.append(bool(1000 * here >= 700))
        shown = np.concatenate([lesser, np.ones_like(lesser[:, :1])], 1) * seen[-1]
        channels = np.concatenate([x, first, shown], 1).astype(np.float32)
        velocity = model(
            held,
            engine.asarray(channels),
            timestep=engine.asarray(np.asarray([1000 * here], np.float32)),
            until=engine.asarray(np.asarray([1000 * there], np.float32)),
            text=text,
            rope=clip_rope(engine, LARGER, larger.latent, 5),
            guidance=None,
            manner=manner,
        )
        x = x + engine.numpy(velocity) * (there - here)
    assert seen == [True, True, False, False]
    assert np.abs(last.latents - x).max() <= CLOSE * np.abs(x).max()


# --- stopping and going on


@pytest.mark.parametrize("step", [0, 1, 3, STEPS])
def test_it_stops_at_every_step_and_goes_on_to_the_same_bytes(folder, engine, picture, tmp_path, step):
    request, output = asked(picture), Output(tmp_path / "clip.gif", save_every=2)
    pipeline = Pipeline(open_checkpoint(folder), engine)
    whole = list(pipeline.run(request, tmp_path / "whole.gif"))[-1]
    saved = stopped(pipeline.run(request, output), output.path, at_step(step))
    assert saved.step == BASE + step and (saved.lesser is None) == (step == 0)
    pipeline = Pipeline(open_checkpoint(folder), engine)
    events = list(pipeline.resume(saved, output, request=request))
    assert StageStarted("denoise") not in events
    assert [e.index for e in events if isinstance(e, Step)] == list(range(step + 1, STEPS + 1))
    assert np.array_equal(events[-1].frames, whole.frames)
    assert output.path.read_bytes() == (tmp_path / "whole.gif").read_bytes()
    assert latents_path(output.path).exists() == (step == STEPS), "of what only had to be decoded, others take care"


def test_what_was_saved_belongs_to_one_clip(folder, picture, tmp_path):
    pipeline, output = Pipeline(open_checkpoint(folder), engines.get(FIRST)), Output(tmp_path / "clip.gif")
    saved = stopped(pipeline.run(asked(picture), output), output.path, at_step(1))
    for wrong in (saved._replace(lesser=None), saved._replace(latents=saved.latents[:, :, :1]), saved._replace(step=9)):
        with pytest.raises(InputError, match="do not fit their own settings"):
            list(pipeline.resume(wrong, output))
    with pytest.raises(InputError, match="seed 5, saved 3"):
        list(pipeline.resume(saved, output, request=asked(picture, seed=5)))


def test_a_clip_that_was_begun_without_it_goes_on_where_the_parts_have_come(folder, picture, tmp_path):
    """Parts that a clip does not need are none of its sources."""
    plain = write_toy15(tmp_path / "plain")
    output = Output(tmp_path / "clip.gif", save_every=1)
    request = asked(picture, super_resolution=False)
    events = Pipeline(open_checkpoint(plain), engines.get(FIRST)).run(request, output)
    saved = stopped(events, output.path, lambda event: isinstance(event, Step))
    pipeline = Pipeline(open_checkpoint(folder), engines.get(FIRST))
    assert isinstance(list(pipeline.resume(saved, output, request=request))[-1], Result)


# --- what is known beforehand


def test_it_is_refused_where_it_cannot_be(toy, folder, picture, tmp_path):
    with pytest.raises(InputError, match="has no super-resolution: nobody has published one for it") as error:
        plan_job(Job(replace(asked(picture), resolution="360p")), open_checkpoint(toy))
    assert error.value.about == "super_resolution"
    plain = write_toy15(tmp_path / "plain")
    with pytest.raises(InputError, match=r"has no latent upsampler and no super-resolution transformer: add --part up"):
        plan_job(Job(asked(picture)), open_checkpoint(plain))
    silent = write_toy15(tmp_path / "x", enlarges=True, settings=replace(SETTINGS, enlargement=Enlargement()))
    with pytest.raises(InputError, match=r"framewake\.json does not say how clips are enlarged"):
        plan_job(Job(asked(picture)), open_checkpoint(silent))


def test_plans(folder, picture, tmp_path):
    checkpoint = open_checkpoint(folder)
    plan = plan_job(Job(asked(picture, cache="fixed:2", loras=())), checkpoint)
    larger = plan.larger
    assert (plan.made, larger.shape) == ((5, 112, 160), (5, 112, 160)) and plan.shape == (5, 80, 112)
    assert (larger.request.steps, larger.request.flow_shift, larger.request.guidance_scale) == (STEPS, 2.0, 1.0)
    assert larger.cache is None and larger.picture.pixels.shape == (112, 160, 3)
    assert plan_size(asked(picture), checkpoint, (51, 70)).made == plan.made
    other = placed(plan, None, seed=9)
    assert (other.request.seed, other.larger.request.seed) == (9, 9)
    longer = Longer((asked(picture), asked(picture, seed=4)), Output(tmp_path / "long.mp4"))
    assert [each.made for each in plan_longer(longer, checkpoint)] == [plan.made, plan.made]


def test_memory_and_time_are_forecast(folder, picture):
    pipeline = Pipeline(open_checkpoint(folder), engines.get(FIRST))
    plans = [pipeline.plan(Job(asked(picture, super_resolution=wanted))) for wanted in (False, True)]
    setup = pipeline._setup(choose_precision("auto", pipeline.engine))
    rates = Rates(1e12, 1e12, 1e9)
    plain, larger = (forecast(setup, plan, room=1 << 40, rates=rates) for plan in plans)
    step = sum(step_parts(pipeline.engine, LARGER, scene_of(setup, plans[1].larger), rates))
    read = 2 * sum(pipeline.parts.bytes_needed(name, "float16") // 2 for name in ("larger_dit", "upsampler")) / 1e9
    assert "enlarge" not in plain.stages and larger.stages["enlarge"] == pytest.approx(STEPS * step + read)
    assert larger.seconds > plain.seconds and larger.stages["decode"] > plain.stages["decode"]
    assert set(larger.placements) - set(plain.placements) == {"upsampler", "larger_dit"}
    assert any(
        line.startswith("super-resolution to 160x112, 4 steps: 140 image tokens, about") for line in larger.lines
    )
    most = max(place.peak for place in plain.placements.values())
    with pytest.raises(ResourceError, match="Without super-resolution it fits"):
        forecast(setup, plans[1], room=most)


def test_its_weights_are_streamed_where_they_do_not_fit(folder, engine, picture):
    plain = made(Pipeline(open_checkpoint(folder), engine), asked(picture))
    pipeline = Pipeline(open_checkpoint(folder), engine)
    pipeline.parts.keeps_all = False
    found, told = pipeline._forecast, {"is_streamed": True, "chunk_tokens": 33}

    def streamed(plan, precision, *, is_timed):
        before = found(plan, precision, is_timed=is_timed)
        larger = before.placements["larger_dit"]._replace(**told)
        return replace(before, placements=before.placements | {"larger_dit": larger})

    pipeline._forecast = streamed
    frames = made(pipeline, asked(picture))
    assert np.abs(frames.astype(int) - plain.astype(int)).max() <= 1
    assert pipeline.parts.held() == (), "nothing stays behind"


@needs_torch
def test_several_devices_share_it(folder, picture):
    alone = made(Pipeline(open_checkpoint(folder), engines.get("torch:cpu")), asked(picture))

    def one(rank):
        pipeline = Pipeline(open_checkpoint(folder), rank)
        if rank.rank() > 0:
            return pipeline.follow()
        try:
            return made(pipeline, asked(picture))
        finally:
            pipeline.close()

    shared = together(engines.get("torch:cpu"), 2, one)[0]
    assert np.abs(shared.astype(int) - alone.astype(int)).max() <= 1
