"""The whole pipeline on the branch for CUDA, with every operation watched (see watched.py)."""

from __future__ import annotations

import dataclasses

import pytest
from lora_files import write
from toy_checkpoint import DIT, VAE, write_toy

torch = pytest.importorskip("torch")

from watched import PARTS, MetaCuda  # noqa: E402

from framewake.golden import rule  # noqa: E402
from framewake.models.dit import DiT  # noqa: E402
from framewake.pipeline import Job, Pipeline, StageFinished, StageStarted, Step  # noqa: E402
from framewake.pipeline.forecast import choose  # noqa: E402

# Wide enough that blocks are most of what the parts weigh; the decoder's widths stand to each other as published.
WIDE = dataclasses.replace(DIT, hidden_size=128, rope_dims=(16, 24, 24), double_blocks=4, single_blocks=2)
SHORT = dataclasses.replace(DIT, double_blocks=2, single_blocks=1)
NARROW = dataclasses.replace(VAE, block_out_channels=(4, 8, 8, 8))
# What a rule asks of the device in a step before it decides, and to learn from it: a number of each sample.
ASKED = {"first-block": 2, "tea": 2, "easy": 4}
FREQUENCIES = 512  # bytes, sent once for each embedder of a number

SETTINGS = {
    "bfloat16": {},
    "float16": {"precision": "float16"},
    "float32, dynamic": {"precision": "float32", "is_stable": False},
    "torch's noise, one frame": {"rng": "torch", "frames": 1},
    "classic guidance": {"guidance_scale": 2.0},
    "classic guidance, a cache": {"guidance_scale": 2.0, "cache": "easy:0.05"},
} | {name: {"cache": name} for name in ("fixed:2", "taylor1:2", "taylor2:2", "first-block:0.1", "tea:0.1", "easy:0.05")}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {}

    def folder(condition="token_replace", dit=SHORT):
        if (condition, dit) not in made:
            place = tmp_path_factory.mktemp(condition)
            made[condition, dit] = write_toy(place, condition, dit=dit, vae=NARROW)
        return made[condition, dit]

    return folder


@pytest.fixture(scope="module")
def lora(tmp_path_factory):
    shapes = DiT(None, WIDE).shapes()
    tensors = {}
    for name in ("double_blocks.1.img_mlp.fc1", "single_blocks.1.linear1", "txt_in.input_embedder"):
        rows, columns = shapes[f"{name}.weight"]
        tensors[f"diffusion_model.{name}.lora_A.weight"] = rule.weight(f"{name}.down", (4, columns), 5)
        tensors[f"diffusion_model.{name}.lora_B.weight"] = rule.weight(f"{name}.up", (rows, 4), 5)
    return write(tmp_path_factory.mktemp("loras") / "a.safetensors", tensors)


def watched_run(pipeline, request):
    """Every check of a run: how many steps a cache skipped."""
    watch = pipeline.engine.watch
    batch = 2 if (request.guidance_scale or 1.0) > 1 else 1
    stage, skipped, begun = "", 0, (0, 0)
    with watch:
        for event in pipeline.run(request):
            if isinstance(event, StageStarted):
                stage = event.stage
                watch.since()
                begun = len(watch.reads), len(watch.uploads)
            elif isinstance(event, StageFinished) and stage in PARTS:
                forecast = max(pipeline.parts.placements[part].peak for part in PARTS[stage])
                if request.loras and not pipeline.parts.placements["dit"].is_streamed:
                    forecast = pipeline.parts.memory  # merged weights stay where there is room for them
                assert watch.peak <= forecast, (stage, watch.peak, forecast)
            elif isinstance(event, Step):
                reads, sent = watch.reads[begun[0] :], watch.uploads[begun[1] :]
                begun = len(watch.reads), len(watch.uploads)
                if event.index == 1:  # the sizes of LoRAs beside what they change, for a note before the first step
                    reads = [shape for shape in reads if shape]
                check_step(event, reads, batch, ASKED.get(request.cache.partition(":")[0], 0))
                skipped += event.is_skipped
                if event.index > 1 and not pipeline.parts.placements["dit"].is_streamed:
                    assert sum(sent) <= 3 * FREQUENCIES or request.loras, sent
    return skipped


def check_step(step, reads, batch, asked):
    """Of the latents the host sees the middle frame, and once all, to look for NaN."""
    seen = [shape for shape in reads if len(shape) == 5]
    assert len(seen) == (2 if step.index == 1 else 1) and seen[0][2] == 1, reads
    others = [shape for shape in reads if len(shape) != 5]
    assert len(others) <= asked and set(others) <= {(batch,)}, reads


def made(folder, *, memory=None, **named):
    pipeline = Pipeline.load(folder, engine=MetaCuda(**named), memory=memory)
    pipeline.parts.keeps_all = False  # as it is where the checkpoint is large
    return pipeline


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (lambda x: x + torch.ones(4), "two devices"),
        (lambda x: torch.ones(4) + 1.0, "work on the host"),
        (lambda x: x + x.float(), "two types"),
        (lambda x: float(x.sum()), "a number is read"),
        (lambda x: x + x, None),
    ],
)
def test_the_watch_sees_what_a_card_would_refuse(fault, said):
    here = MetaCuda()
    with here.watch:
        x = here.zeros((4,), "bfloat16")
        if said is None:
            fault(x)
            assert here.watch.peak >= 2 * x.untyped_storage().nbytes()
        else:
            with pytest.raises(AssertionError, match=said):
                fault(x)


@pytest.mark.parametrize("name", SETTINGS)
def test_every_kind_of_step(folders, request_of, name):
    request = request_of(**{"steps": 6 if "cache" in SETTINGS[name] else 3, "frames": 9} | SETTINGS[name])
    skipped = watched_run(made(folders()), request)
    assert (skipped > 0) == ("cache" in SETTINGS[name])


@pytest.mark.parametrize(("condition", "guidance"), [("none", 2.0), ("latent_concat", 1.0)])
def test_the_other_transformers(folders, request_of, condition, guidance):
    changes = {"image": None, "resolution": "720p"} if condition == "none" else {}
    watched_run(made(folders(condition)), request_of(frames=9, guidance_scale=guidance, **changes))


@pytest.mark.parametrize(
    ("share", "name", "place"),  # of the memory for everything at once; whether it is streamed, tokens of a chunk
    [
        (1.0, "lora", (False, None)),
        (0.93, "guidance", (False, 32)),
        (0.93, "lora", (False, 32)),
        (0.74, "lora", (True, None)),
        (0.62, "lora", (True, 32)),
        (0.56, "cache", (True, 32)),
    ],
)
def test_wherever_the_weights_are(folders, request_of, lora, monkeypatch, share, name, place):
    changes = {
        "guidance": {"guidance_scale": 2.0, "negative_prompt": "a blue square"},
        "lora": {"loras": [f"{lora}:0-2=1,2-3=0.5"]},
        "cache": {"cache": "taylor1:2"},
    }[name]
    request = request_of(steps=3, frames=5, **changes)
    monkeypatch.setattr(choose, "CHUNKS", (32,))
    folder = folders(dit=WIDE)
    whole = made(folder).forecast(Job(request), is_timed=False).placements["dit"].peak
    pipeline = made(folder, memory=int(share * whole))
    watched_run(pipeline, request)
    assert pipeline.parts.placements["dit"][:2] == place
