"""What is said before a run: the parts of the formulas, the choices, and that a run does what was chosen."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest
from engines_here import FIRST
from toy_checkpoint import write_toy

from framewake.config import HUNYUAN_DIT, DiTConfig
from framewake.errors import InputError, ResourceError
from framewake.models.arrangement import Arrangement
from framewake.models.dit import DiT
from framewake.models.llava import Llava
from framewake.pipeline import Job, Pipeline, Result
from framewake.pipeline.forecast import Links, about, cost, forecast, measured_rates, parse_memory
from framewake.pipeline.forecast.choose import placements
from framewake.pipeline.forecast.duration import duration
from framewake.pipeline.forecast.pace import Line, Pace
from framewake.pipeline.forecast.place import Placement, fitting
from framewake.pipeline.forecast.probe import Rates
from framewake.pipeline.forecast.setup import arrangement_of, scene_of
from framewake.pipeline.precision import choose_precision
from framewake.pipeline.run import Making
from framewake.weights.stores.streamed import Streamed

GIB = 2**30
RATES = Rates(1e12, 1e12, 1e9)


@pytest.fixture(scope="module")
def pipeline(toy, engine):
    return Pipeline.load(toy, engine=engine)


def test_bytes_of_weights_are_those_of_the_shapes(pipeline):
    for name, kinds in (("dit", DiT), ("llava", Llava)):
        model = pipeline.parts.models[name]
        assert isinstance(model, kinds)
        found = cost.weights(model.shapes(), model.streams(), "float16")
        assert found.whole == 2 * sum(math.prod(shape) for shape in model.shapes().values())
        inside = [shape for n, shape in model.shapes().items() if n.startswith(tuple(s + "." for s in model.streams()))]
        assert found.kept == found.whole - 2 * sum(math.prod(shape) for shape in inside)
        assert 0 < found.block < found.whole and found.streamed == found.kept + 2 * found.block


def test_operations_are_those_of_the_matrices(pipeline):
    model = pipeline.parts.models["dit"]
    scene = cost.Scene(1, 100, 0, "float32", False)
    matrices = [
        math.prod(shape)
        for name, shape in model.shapes().items()
        if name.startswith(("double_blocks", "single_blocks")) and len(shape) == 2 and "mod" not in name
    ]
    text = [
        math.prod(shape)
        for name, shape in model.shapes().items()
        if ".txt_" in name and len(shape) == 2 and "mod" not in name
    ]
    pairs = 4.0 * 2 * 100**2 * model.config.hidden_size
    # Image tokens never pass through the text's own matrices.
    assert cost.step_operations(model.config, scene) == 2.0 * 100 * (sum(matrices) - sum(text)) + pairs


def test_chunks_and_fused_attention_take_less():
    config = HUNYUAN_DIT
    whole = cost.Scene(1, 50_000, 256, "bfloat16", False)
    assert cost.step_bytes(config, whole, chunk=2048) < cost.step_bytes(config, whole) / 2
    assert cost.step_bytes(config, whole._replace(is_composed=True)) > cost.step_bytes(config, whole)
    assert cost.step_bytes(config, whole._replace(batch=2)) > 1.9 * cost.step_bytes(config, whole)


def test_the_fastest_placement_that_fits_is_taken():
    held = cost.Weights(100, 10, 5)
    sizes = [(None, 80), (4096, 30), (2048, 20)]
    taken = [fitting(held, sizes, room, has_streams=True)[:2] for room in (180, 150, 120, 119, 50, 40, 39)]
    assert taken == [
        *((False, None), (False, 4096), (False, 2048)),
        *((True, None), (True, 4096), (True, 2048)),
        (True, 2048),  # nothing fits: the smallest, for the message
    ]
    assert not fitting(held, sizes, 50, has_streams=False).is_streamed


def test_a_forecast_says_every_choice_with_its_reason(pipeline, request_of):
    setup_lines = pipeline.forecast(Job(request_of()), is_timed=False).lines
    text = "\n".join(setup_lines)
    for word in (
        "engine",
        "precision",
        "attention",
        "autoencoder: resident",
        "transformer: resident",
        "peak",
        "fit into",
    ):
        assert word in text, (word, text)
    assert "5 frames" in text and "2 steps" in text


@pytest.mark.parametrize(
    ("neighbours", "groups", "expected"),
    [(2, 1, 43.9), (4, 1, 33.0), (8, 1, 19.3), (4, 2, 27.5), (1, 8, 76.6), (5, 1, 28.2), (8, 2, 15.2), (16, 1, 10.4)],
)
def test_what_devices_send_is_the_published_count(neighbours, groups, expected):
    """Gigabytes from each device in a step at 720x1280x129. Source: specification of several devices, section 7."""
    scene = cost.Scene(1, 118_800, 400, "bfloat16", False, devices=neighbours * groups)
    assert cost.sent_bytes(HUNYUAN_DIT, scene, Arrangement(neighbours, groups)) / 1e9 == pytest.approx(
        expected, rel=0.005
    )


def test_each_of_several_devices_takes_less(pipeline, request_of):
    plan, precision = pipeline.plan(Job(request_of())), choose_precision("auto", pipeline.engine)
    found = {}
    for devices in (1, 2):
        setup = pipeline._setup(precision)._replace(devices=devices)
        found[devices] = forecast(setup, plan, room=8 * GIB, rates=RATES)
    assert found[2].step_seconds < found[1].step_seconds and found[2].seconds < found[1].seconds
    scene = scene_of(setup, plan)
    sent = cost.sent_bytes(setup.checkpoint.dit, scene, arrangement_of(setup, plan))
    linked = setup._replace(links=Links(sent / 3, 0.0))
    made = forecast(linked, plan, room=8 * GIB, rates=RATES)
    assert made.step_seconds == pytest.approx(found[2].step_seconds + 3)
    assert made.seconds == pytest.approx(found[2].seconds + 3 * plan.request.steps)
    model, dit = setup.models["dit"], made.placements["dit"]
    held = cost.weights(model.shapes(), model.streams(), scene.dtype)
    shared = duration(linked, plan, scene, RATES, {**made.placements, "dit": dit._replace(is_shared=True)})
    assert shared.step == pytest.approx(made.step_seconds + 3 * (held.whole - held.kept) / 2 / sent)
    both = dit._replace(is_shared=True, is_streamed=True)
    streamed = duration(linked, plan, scene, RATES, {**made.placements, "dit": both})
    numbers = sum(math.prod(shape) for shape in model.shapes().values())
    assert streamed.step == pytest.approx(shared.step + 2 * numbers / RATES.disk)
    alone = cost.Scene(1, 118_800, 400, "bfloat16", False)
    assert cost.step_bytes(HUNYUAN_DIT, alone._replace(devices=2)) < 0.7 * cost.step_bytes(HUNYUAN_DIT, alone)
    assert "2 devices" in "\n".join(found[2].lines) and "devices:" not in "\n".join(found[1].lines)


def test_text_to_video_has_no_picture_among_its_text_tokens(tmp_path, request_of):
    pipeline = Pipeline.load(write_toy(tmp_path, "none"), engine=FIRST)
    limit = pipeline.reader.layout.prompt_limit
    found = pipeline.forecast(Job(request_of(image=None)), is_timed=False)
    assert found.lines[0].endswith(f"up to {limit} text tokens")


class Thinned(DiTConfig):
    """A transformer that wants every so many of the picture's tokens."""

    image_interleave = 6


@pytest.mark.parametrize(
    ("condition", "is_thinned"), [("token_replace", False), ("token_replace", True), ("none", False)]
)
def test_text_tokens_are_those_that_the_models_work_on(tmp_path, engine, condition, is_thinned):
    """What is counted for a prompt, short or too long, is what the encoder computes and the transformer gets."""
    pipeline = Pipeline.load(write_toy(tmp_path, condition), engine=engine)
    reader, checkpoint = pipeline.reader, pipeline.checkpoint
    if is_thinned:  # above 5 the original thins out nothing
        checkpoint.configs["dit"] = Thinned(**dataclasses.asdict(checkpoint.dit))
    semantic = None if condition == "none" else np.zeros((1, 3, 28, 28), np.float32)
    llava = pipeline.parts.get("llava", "float32")
    pixels = None if semantic is None else engine.asarray(semantic)
    lengths = []
    for prompt in ("the red circle moves left", "red " * 400):
        tokens = reader.tokens(prompt)
        hidden = llava.model(llava.weights, *tokens.llava[:2], pixels)
        states = reader.states(pipeline.parts, [tokens], semantic, "float32")
        lengths.append(reader.lengths(prompt))
        assert lengths[-1] == (hidden.shape[1], states.lengths[0])
    assert lengths[1] == reader.limit() and lengths[0] < lengths[1]


def test_a_longer_prompt_takes_longer_and_no_more_memory(pipeline, request_of):
    slow = RATES._replace(products=1e9)
    plan, setup = pipeline.plan(Job(request_of())), pipeline._setup(choose_precision("float32", pipeline.engine))
    limit, short = pipeline.reader.limit(), pipeline.reader.lengths("the red circle moves left")
    found = [forecast(setup, plan, room=64 * GIB, rates=slow, text=text) for text in (None, limit, short)]
    assert found[0] == found[1] and found[0].placements == found[2].placements
    saved = cost.text_operations(
        pipeline.checkpoint.configs["llava"], parameters(pipeline, "llava"), limit.read - short.read
    )
    less = found[0].stages["encode text"] - found[2].stages["encode text"]
    assert less == pytest.approx(saved / 1e9 / pipeline.engine.traits.product_share)


def parameters(pipeline, name):
    """How many numbers a model has."""
    return sum(math.prod(shape) for shape in pipeline.parts.models[name].shapes().values())


def test_a_longer_clip_takes_more_of_everything(pipeline, request_of):
    setup = pipeline._setup(choose_precision("float32", pipeline.engine))
    found = [
        forecast(setup, pipeline.plan(Job(request_of(frames=frames))), room=64 * GIB, rates=RATES)
        for frames in (5, 33, 129)
    ]
    for name in ("step_seconds", "seconds"):
        values = [getattr(each, name) for each in found]
        assert values == sorted(values) and values[0] > 0
    works = [each.placements["dit"].work for each in found]
    assert works == sorted(works) and works[0] < works[2]


def test_stages_add_up_to_the_run_and_each_pays_for_its_own_start(pipeline, request_of):
    setup = pipeline._setup(choose_precision("float32", pipeline.engine))
    plan = pipeline.plan(Job(request_of()))

    def told(rates):
        return forecast(setup, plan, room=64 * GIB, rates=rates)

    pace = Pace(*(Line(0.0, 1e-9) for _ in Pace._fields))
    plain = told(RATES._replace(pace=pace, is_measured_now=False))
    assert plain.seconds == pytest.approx(sum(plain.stages.values()))
    starts = Pace(*(line._replace(first=0.5 * 2**place) for place, line in enumerate(pace)))
    cold = told(RATES._replace(pace=starts, is_measured_now=False))
    added = {stage: cold.stages[stage] - seconds for stage, seconds in plain.stages.items()}
    assert added == pytest.approx({"encode text": 0.0, "encode image": 4.0, "denoise": 3.5, "decode": 8.0})
    assert told(RATES._replace(pace=starts)).seconds == pytest.approx(plain.seconds), "paid while measuring"
    # A byte a second: what the decoder takes for the first time is said beside all the rest.
    fresh = told(RATES._replace(pace=pace, is_measured_now=False, fresh=1.0))
    assert fresh.stages["decode"] - plain.stages["decode"] >= fresh.placements["vae"].work
    assert fresh.stages["denoise"] - plain.stages["denoise"] >= fresh.placements["dit"].weights


def test_streamed_weights_are_read_in_the_steps_and_not_before_them_too(pipeline, request_of):
    setup = pipeline._setup(choose_precision("float32", pipeline.engine))
    plan = pipeline.plan(Job(request_of()))
    scene, slow = scene_of(setup, plan), RATES._replace(disk=1.0)  # the disk is all that takes time
    resident = placements(setup, plan, scene, 64 * GIB)
    streamed = resident | {"dit": resident["dit"]._replace(is_streamed=True)}
    seconds = [duration(setup, plan, scene, slow, places).stages["denoise"] for places in (resident, streamed)]
    read = cost.weights(setup.models["dit"].shapes(), (), "bfloat16").whole
    assert seconds == pytest.approx([read, plan.request.steps * read], rel=1e-3)


def test_rates_come_back_from_the_cache_as_they_were():
    from framewake.pipeline.forecast import rates_from_plain, rates_to_plain

    pace = Pace(*(Line(float(place), 2.0, 0.5) for place in range(5)))
    rates = Rates(1e12, 2e12, 3e9, False, pace, 0.25, 4e9)
    assert rates_from_plain(json.loads(json.dumps(rates_to_plain(rates)))) == rates
    with pytest.raises((TypeError, ValueError)):
        rates_from_plain(rates_to_plain(rates) | {"pace": [[0.0, 1.0, 0.0]] * 4})


def test_what_cannot_fit_is_said_with_what_does(toy, engine, request_of):
    used = engine.memory()["used"]
    limited = Pipeline.load(toy, engine=engine, memory=used + (400 << 20))
    assert limited.parts.room() <= 400 << 20
    asked = {"frames": 1025, "resolution": "720p", "vae_tiling": False}
    with pytest.raises(ResourceError, match=r"largest that fits: --frames \d+, or --resolution") as raised:
        limited.forecast(Job(request_of(**asked)), is_timed=False)
    assert raised.value.bytes_needed > raised.value.bytes_free
    # Everything that is offered fits, and four frames more do not.
    offered = re.findall(r"(?:--resolution (\w+) )?--frames (\d+)", str(raised.value))
    assert offered[0][0] == "" and len(offered) > 1
    for resolution, frames in offered:
        there = asked | {"resolution": resolution or "720p", "frames": int(frames)}
        limited.forecast(Job(request_of(**there)), is_timed=False)
        if int(frames) < 1025:
            with pytest.raises(ResourceError):
                limited.forecast(Job(request_of(**there | {"frames": int(frames) + 4})), is_timed=False)


def test_what_never_fits_is_said(toy, engine, request_of):
    limited = Pipeline.load(toy, engine=engine, memory=1)
    with pytest.raises(ResourceError, match="Not even one frame of the smallest size"):
        limited.forecast(Job(request_of()), is_timed=False)


def made(pipeline, request, placements):
    """The frames of a run with given placements, and whether the transformer's weights were streamed."""
    plan = pipeline.plan(Job(request))
    clip = Making(plan, choose_precision("float32", pipeline.engine), {})
    pipeline.parts.keeps_all = False
    pipeline.parts.placements = placements
    frames, streamed = None, False
    for event in pipeline._run([clip], is_roomy=True):
        held = pipeline.parts._loaded.values()
        streamed = streamed or any(isinstance(store, Streamed) for _, store in held)
        frames = event.frames if isinstance(event, Result) else frames
    return frames, streamed


def test_a_streamed_run_makes_the_very_same_frames(toy, engine, request_of):
    pipeline = Pipeline.load(toy, engine=engine)
    resident, was_streamed = made(pipeline, request_of(), {})
    assert not was_streamed
    place = Placement(True, None, 0, 0, "a test")
    streamed, was_streamed = made(pipeline, request_of(), {name: place for name in ("dit", "llava", "clip_text")})
    assert was_streamed and np.array_equal(streamed, resident)
    assert not any(isinstance(store, Streamed) for _, store in pipeline.parts._loaded.values()), "still open"
    chunked, _ = made(pipeline, request_of(), {"dit": place._replace(chunk_tokens=16)})
    assert np.abs(chunked.astype(int) - resident).max() <= 1


def test_the_probe_is_measured_once(engine, toy, tmp_path):
    weights = next(toy.glob("transformer/*.safetensors"))
    first = measured_rates(engine, "float32", weights, cache=tmp_path)
    again = measured_rates(engine, "float32", weights, cache=tmp_path)
    assert first.is_measured_now and not again.is_measured_now and first[:3] == again[:3]
    assert all(rate > 1e5 for rate in first[:3])
    for damaged in ("", "[]", '{"format": 1, "rates": {"x": 3}}', json.dumps({"format": 1, "rates": []})):
        (tmp_path / "probe.json").write_text(damaged)
        assert measured_rates(engine, "float32", weights, cache=tmp_path).is_measured_now
    (tmp_path / "file").write_text("")
    assert measured_rates(engine, "float32", weights, cache=tmp_path / "file").is_measured_now


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("8GB", 8 * 10**9),
        ("7.5 GiB", 7.5 * GIB),
        ("500mb", 5 * 10**8),
        ("8g", 8 * 10**9),
        ("8,5GB", 85 * 10**8),
        ("1TiB", 2**40),
        (None, None),
    ],
)
def test_sizes_as_people_write_them(text, count):
    assert parse_memory(text) == count


@pytest.mark.parametrize("text", ["", "8 apples", "-1GB", "0GB", "GB", "1e9", "1,024MB", "nan", "inf", "0", "8 8GB"])
def test_sizes_that_are_none(text):
    with pytest.raises(InputError, match="--memory"):
        parse_memory(text)


@pytest.mark.parametrize("text", ["8", "8B", "24 "])
def test_a_size_without_a_unit_is_asked_back(text):
    with pytest.raises(InputError, match=r"did you mean \d+GB\?"):
        parse_memory(text)


def test_long_times_are_told_in_minutes_and_hours():
    told = {
        0.0432: "0.043 s",
        99.4: "99 s",
        99.6: "1.7 min",
        150: "2.5 min",
        5970: "1.7 h",
        360_000: "100 h",
        1e6: "278 h",
    }
    assert [about(seconds) for seconds in told] == list(told.values())
