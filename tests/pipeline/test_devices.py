"""A whole clip by several processes, against one: latents, frames, step caches, and going on with another number."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
from engines_here import needs_torch
from lora_files import keys_of, write
from ranks_here import together
from started import Ranks, finished, torchrun
from toy_checkpoint import DIT, write_toy

from framewake import engine as engines
from framewake.errors import EngineError, InputError
from framewake.models.tiles_shared import shared_out
from framewake.models.tiling import tile_plan
from framewake.pipeline import Draft, Drafts, Job, Output, Pipeline, Result, Step, finish
from framewake.pipeline.latents import latents_path, load_latents
from framewake.pipeline.precision import choose_precision
from framewake.request import Request
from framewake.shapes import token_count
from framewake.weights.stores.shared import Shared
from framewake.weights.stores.store import Resident

SCRIPT = Path(__file__).with_name("clip_check.py")
STEPS = 6
CLOSE = 2e-6


def stopped(events, output, step):
    """What is saved when the run of these events is stopped behind a step."""
    for event in events:
        if isinstance(event, Step) and event.index == step:
            events.close()
    return load_latents(latents_path(output))


def on_ranks(toy, size, work):
    """``work(pipeline)`` in the first of several processes, which are threads here; the others follow."""

    def one(rank):
        pipeline = Pipeline.load(toy, engine=rank)
        if rank.rank() > 0:
            return pipeline.follow()
        try:
            return work(pipeline)
        finally:
            pipeline.close()

    return together(engines.get("torch:cpu"), size, one)[0]


def largest(found, expected):
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def differing(found, expected):
    assert found.step == expected.step and found.cache.keys() == expected.cache.keys()
    for name, array in expected.cache.items():
        assert found.cache[name].shape == array.shape
        if name.startswith("cache_tensor_"):
            assert largest(found.cache[name], array) <= CLOSE, name
        else:  # signals: means of small differences, which are summed in another order
            np.testing.assert_allclose(found.cache[name], array, rtol=2e-3, atol=2e-5)
    for steps in ("cache_computed", "cache_skipped"):
        assert np.array_equal(found.cache.get(steps, 0), expected.cache.get(steps, 0))
    return largest(found.latents, expected.latents)


SETTINGS = {
    "plain": {},
    "guided": {"guidance_scale": 2.0},
    "dynamic": {"is_stable": False},
    "first block": {"cache": "first-block:0.1"},
    "guided and cached": {"guidance_scale": 2.0, "cache": "easy:0.05"},
    "taylor": {"cache": "taylor1:2"},
}


@needs_torch
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("size", [2, 3])
def test_threads_make_the_clip_of_one(toy, request_of, tmp_path, settings, size):
    request = request_of(steps=STEPS, **settings)
    one, many = tmp_path / "one.mp4", tmp_path / "many.mp4"
    alone = Pipeline.load(toy, engine="torch:cpu")
    expected = stopped(alone.run(request, one), one, STEPS - 1)
    found = on_ranks(toy, size, lambda pipeline: stopped(pipeline.run(request, many), many, STEPS - 1))
    assert differing(found, expected) <= CLOSE


@needs_torch
@pytest.mark.parametrize("cache", ["off", "first-block:0.1"])
def test_drafts_and_the_clip_behind_them_by_several(toy, request_of, tmp_path, cache):
    request, drafts = request_of(steps=STEPS, cache=cache), Drafts((2, 4))
    one, many = Output(tmp_path / "one.mp4", drafts=drafts), Output(tmp_path / "many.mp4", drafts=drafts)
    expected = list(Pipeline.load(toy, engine="torch:cpu").run(request, one))
    found = on_ranks(toy, 2, lambda pipeline: list(pipeline.run(request, many)))
    whole = on_ranks(toy, 2, lambda pipeline: list(pipeline.run(request, tmp_path / "whole.mp4")))
    clips = [[e.frames for e in events if isinstance(e, Draft | Result)] for events in (found, expected)]
    assert [len(frames) for frames in clips] == [3, 3]
    assert max(np.abs(a.astype(int) - b).max() for a, b in zip(*clips, strict=True)) <= 1
    assert np.array_equal(whole[-1].frames, found[-1].frames)


@needs_torch
def test_a_lora_that_comes_and_goes(toy, request_of, tmp_path):
    file = write(tmp_path / "a.safetensors", {key: x * np.float32(0.3) for key, x in keys_of("kohya").items()})
    request = request_of(steps=STEPS, loras=[f"{file}:0-2=1,4-6=0.5"])
    one, many = tmp_path / "one.mp4", tmp_path / "many.mp4"
    expected = stopped(Pipeline.load(toy, engine="torch:cpu").run(request, one), one, STEPS - 1)
    plain = stopped(Pipeline.load(toy, engine="torch:cpu").run(request_of(steps=STEPS), many), many, STEPS - 1)
    found = on_ranks(toy, 2, lambda pipeline: stopped(pipeline.run(request, many), many, STEPS - 1))
    assert differing(found, expected) <= CLOSE < largest(plain.latents, expected.latents)


@pytest.fixture(scope="module")
def deep(tmp_path_factory):
    """A transformer of 37 MB in many blocks: more than anything else takes."""
    dit = dataclasses.replace(DIT, hidden_size=160, heads=10, double_blocks=6, single_blocks=8)
    return write_toy(tmp_path_factory.mktemp("deep"), dit=dit)


@needs_torch
@pytest.mark.parametrize(
    ("room", "how"), [(50, None), (40, "shared by the devices"), (29, "shared by the devices and streamed")]
)
def test_devices_that_cannot_hold_the_weights_share_them(deep, request_of, tmp_path, room, how):
    request = request_of(steps=STEPS, frames=1)
    one, many = tmp_path / "one.mp4", tmp_path / "many.mp4"
    expected = stopped(Pipeline.load(deep, engine="torch:cpu").run(request, one), one, STEPS - 1)

    def work(pipeline):
        pipeline.parts.room = lambda: room * 10**6  # that of the process changes all the time
        told = pipeline.forecast(Job(request), is_timed=False).notes
        return told, stopped(pipeline.run(request, many), many, STEPS - 1), pipeline.parts.get("dit", "float32").weights

    told, found, weights = on_ranks(deep, 2, work)
    assert differing(found, expected) <= CLOSE
    assert [note.partition(" (")[0] for note in told] == ([] if how is None else [f"transformer: {how}"])
    assert isinstance(weights, Resident if how is None else Shared)


@needs_torch
@pytest.mark.parametrize("size", [2, 3, 5])
def test_tiles_of_all_ranks_give_the_same_bits(toy, request_of, size):
    alone = Pipeline.load(toy, engine="torch:cpu")
    latents = np.random.default_rng(1).standard_normal((1, alone.checkpoint.vae.latent_channels, 1, 40, 36))
    precision = choose_precision("float32", alone.engine)

    def decoded(pipeline):
        events = finish.decode(pipeline.parts, latents.astype(np.float32), request_of(), precision)
        told = []
        while True:
            try:
                told.append(next(events))
            except StopIteration as end:
                return end.value, [(tile.index, tile.count) for tile in told]

    def counted(pipeline):
        return *decoded(pipeline), *decoded(pipeline), len(pipeline.engine.sent)

    expected, told = decoded(alone)
    first, _, second, found, exchanges = on_ranks(toy, size, counted)
    assert np.array_equal(first, expected) and np.array_equal(second, expected) and found == told
    plan = tile_plan((1, 40, 36), alone.checkpoint.settings.tiling, alone.checkpoint.vae, is_decode=True)
    costs = [math.prod(cut.stop - cut.start for cut in window) for window in plan.windows()]
    assert exchanges == 1 + 2 * max(map(len, shared_out(costs, size))), "one to meet, and one for each turn"


@needs_torch
@pytest.mark.parametrize("cache", ["off", "first-block:0.1", "taylor1:2"])
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2)])
def test_a_saved_clip_goes_on_with_another_number(toy, request_of, tmp_path, cache, before, after):
    request = request_of(steps=STEPS, cache=cache)
    one, many = tmp_path / "one.mp4", tmp_path / "many.mp4"
    expected = stopped(Pipeline.load(toy, engine="torch:cpu").run(request, one), one, STEPS - 1)
    on_ranks(toy, before, lambda pipeline: stopped(pipeline.run(request, many), many, 3))
    saved = load_latents(latents_path(many))
    assert saved.step == 3
    found = on_ranks(toy, after, lambda pipeline: stopped(pipeline.resume(saved, Output(many)), many, STEPS - 1))
    assert differing(found, expected) <= CLOSE


def jobs_of(request, folder):
    """A clip that is stopped, goes on to its last step, and one with guidance and a step cache that is finished."""
    saved = str(folder / "clip.mp4.latents.safetensors")
    asked = [dataclasses.replace(request, steps=STEPS).to_dict()]
    asked += [dataclasses.replace(request, steps=STEPS, guidance_scale=2.0, cache="easy:0.05").to_dict()]
    return [
        {"request": asked[0], "output": str(folder / "clip.mp4"), "stop": 2},
        {"resume": saved, "output": str(folder / "clip.mp4"), "stop": STEPS - 1},
        {"request": asked[1], "output": str(folder / "guided.mp4")},
    ]


def made_alone(checkpoint, engine, request, folder):
    pipeline = Pipeline.load(checkpoint, engine=engine)
    folder.mkdir()
    expected = stopped(pipeline.run(dataclasses.replace(request, steps=STEPS), folder / "a.mp4"), folder / "a.mp4", 5)
    guided = dataclasses.replace(request, steps=STEPS, guidance_scale=2.0, cache="easy:0.05")
    [result] = [event for event in pipeline.run(guided, folder / "b.mp4") if isinstance(event, Result)]
    return expected, result.frames


def check_made(folder, expected, frames):
    assert differing(load_latents(folder / "clip.mp4.latents.safetensors"), expected) <= CLOSE
    found = np.load(folder / "guided.mp4.npy")
    assert found.shape == frames.shape and np.abs(found.astype(int) - frames).max() <= 1
    assert (folder / "guided.mp4").stat().st_size > 0 and not (folder / "guided.mp4.latents.safetensors").exists()


def test_processes_make_the_clip_of_one(toy, engine, request_of, tmp_path):
    expected, frames = made_alone(toy, engine, request_of(), tmp_path / "alone")
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps(jobs_of(request_of(), tmp_path)))
    finished(engine.kind, 2, tmp_path, SCRIPT, engine.name, str(toy), str(jobs))
    check_made(tmp_path, expected, frames)


@needs_torch
def test_torchrun_makes_the_demonstration_s_clip(tmp_path, picture):
    engine = engines.get("torch:cpu")
    request = Request("the red circle moves left", image=str(picture), frames=9, seed=3)
    expected, frames = made_alone("demo", engine, request, tmp_path / "alone")
    jobs = tmp_path / "jobs.json"
    jobs.write_text(json.dumps(jobs_of(request, tmp_path)))
    torchrun(tmp_path, SCRIPT, engine.name, "demo", str(jobs), size=2)
    check_made(tmp_path, expected, frames)


def ranks_at_work(size, toy, request, folder):
    """Processes in the middle of a clip of many steps, some of which are saved."""
    saved, jobs = folder / "clip.mp4.latents.safetensors", folder / "jobs.json"
    asked = dataclasses.replace(request, steps=1000).to_dict()
    jobs.write_text(json.dumps([{"request": asked, "output": str(folder / "clip.mp4")}]))
    ranks = Ranks("torch", size, folder, SCRIPT, "torch:cpu", str(toy), str(jobs))
    end = time.monotonic() + 120
    while not saved.exists() and time.monotonic() < end and ranks.processes[0].poll() is None:
        time.sleep(0.05)
    return ranks


@needs_torch
def test_when_a_follower_is_killed_the_first_says_so_and_the_latents_stay(toy, request_of, tmp_path):
    with ranks_at_work(2, toy, request_of(), tmp_path) as ranks:
        ranks.processes[1].kill()
        assert ranks.wait(60) == [1, -signal.SIGKILL], ranks.said()
        assert "PeerError: another of" in ranks.logs[0].read_text()
    saved = load_latents(latents_path(tmp_path / "clip.mp4"))
    again = Pipeline.load(toy, engine="torch:cpu").resume(saved, Output(tmp_path / "clip.mp4"))
    assert next(event.index for event in again if isinstance(event, Step)) == saved.step + 1 >= 6


@needs_torch
def test_when_the_first_is_killed_the_others_go(toy, request_of, tmp_path):
    with ranks_at_work(3, toy, request_of(), tmp_path) as ranks:
        ranks.processes[0].kill()
        assert ranks.wait(60) == [-signal.SIGKILL, 1, 1], ranks.said()
    assert load_latents(latents_path(tmp_path / "clip.mp4")).step >= 5


@needs_torch
def test_more_devices_than_tokens_are_refused_before_anything_starts(toy, request_of):
    job = Job(request_of(frames=1))
    alone = Pipeline.load(toy, engine="torch:cpu")
    tokens = token_count(alone.plan(job).latent, alone.checkpoint.dit.patch_size)
    assert tokens < 30
    with pytest.raises(InputError, match=f"{tokens + 1} devices cannot share {tokens} tokens"):
        on_ranks(toy, tokens + 1, lambda pipeline: pipeline.plan(job))


@needs_torch
@pytest.mark.parametrize(
    ("parts", "name", "told"),
    [
        (("transformer",), "torch:cuda:1", "the transformer is not"),
        (("transformer", "vae"), "torch:cuda:1", "the autoencoder and the transformer are not"),
        ((), "torch:cuda:1+fp8", "the engine is not"),
    ],
)
def test_a_process_with_other_weights_or_another_engine_is_refused_at_once(toy, tmp_path, parts, name, told):
    other = shutil.copytree(toy, tmp_path / "other")
    for part in parts:
        [weights] = (other / part).glob("*.safetensors")
        data = bytearray(weights.read_bytes())
        data[-3] ^= 1
        weights.write_bytes(data)

    def work(rank):
        rank.name = ("torch:cuda:0", name)[rank.rank()]
        Pipeline.load((toy, other)[rank.rank()], engine=rank)

    with pytest.raises(InputError, match=f"{told} what the first process has"):
        together(engines.get("torch:cpu"), 2, work)


def test_who_leads_follows_nobody(toy, engine):
    with pytest.raises(EngineError, match="follows nobody"):
        Pipeline.load(toy, engine=engine).follow()
