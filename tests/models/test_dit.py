"""What the transformer promises beyond the original's arrays."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dit_toy import Toy, largest
from engines_here import FIRST, needs_torch

from framewake import engine as engines
from framewake.config import HUNYUAN_DIT
from framewake.errors import CheckpointError, InputError
from framewake.models.dit import DiT, TextStates, joined_texts
from framewake.models.manner import Manner
from framewake.weights.stores.store import Resident

KEYS = Path(__file__).parent.parent / "data" / "dit-keys.json"


def sample_of(inputs, index, length):
    """One sample of a batch as a batch of its own, without its padding."""
    text = inputs["text"]
    one = slice(index, index + 1)
    alone = TextStates(text.states[one, :length], (length,), text.pooled[one])
    named = {name: inputs[name][one] for name in ("latents", "timestep", "guidance")}
    return named | {"text": alone, "rope": inputs["rope"]}


def test_the_published_model_has_856_tensors_of_the_published_shapes():
    published = {name: tuple(shape) for name, shape in json.loads(KEYS.read_text()).items()}
    assert DiT(engines.get(FIRST), HUNYUAN_DIT).shapes() == published
    without = DiT(engines.get(FIRST), replace(HUNYUAN_DIT, has_guidance=False)).shapes()
    assert len(published) - len(without) == 4


@pytest.mark.parametrize("lengths", [(5, 3, 6), (4, 4, 4)])
def test_a_batch_equals_its_samples_one_by_one(engine, lengths):
    toy = Toy(engine)
    inputs = toy.inputs(batch=3, lengths=lengths)
    together = toy(**inputs)
    alone = [toy(**sample_of(inputs, index, length)) for index, length in enumerate(lengths)]
    assert largest(together, np.concatenate(alone)) < 5e-6


def test_padding_has_no_influence(engine):
    toy = Toy(engine)
    inputs = toy.inputs(batch=2, lengths=(5, 3))
    states = np.array(engine.numpy(inputs["text"].states))
    states[0, 5:], states[1, 3:] = 50.0, -70.0
    changed = inputs | {"text": inputs["text"]._replace(states=engine.asarray(states))}
    assert largest(toy(**changed), toy(**inputs)) == 0


def test_compiled_blocks_give_the_same(engine):
    inputs = {"batch": 2, "lengths": (5, 3)}
    plain, compiled = Toy(engine), Toy(engine)
    compiled.manner = Manner(is_compiled=True)
    for _ in range(2):  # the second call finds everything compiled
        assert largest(compiled(**compiled.inputs(**inputs)), plain(**plain.inputs(**inputs))) < 5e-6


@needs_torch
def test_prompts_of_many_lengths_share_their_programs(monkeypatch):
    """On CUDA: one program a block for text up to 64 tokens, one up to 128."""
    import torch
    from cuda_here import CudaHere, build_nothing

    build_nothing(monkeypatch)
    engine = CudaHere()
    plain, compiled = Toy(engine), Toy(engine)
    compiled.manner = Manner(is_compiled=True)
    for lengths in [(n,) for n in (5, 9, 12, 17, 23, 31, 40, 52, 64, 70, 90)] + [(33, 21), (64, 3), (50, 50)]:
        given = {"batch": len(lengths), "lengths": lengths, "tokens": max(lengths)}
        assert largest(compiled(**compiled.inputs(**given)), plain(**plain.inputs(**given))) < 5e-6
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 6 and not counters["graph_break"] and engine.plain_reason == ""


@needs_torch
def test_a_service_makes_two_programs_for_each_size(monkeypatch):
    """For each size of latents and number of samples, of text up to 64 tokens: whatever LoRAs and caches there are."""
    import torch
    from cuda_here import CudaHere, build_nothing

    build_nothing(monkeypatch)
    engine = CudaHere()
    toy, merged = Toy(engine), Toy(engine)
    merged.dit = toy.dit  # a LoRA is other weights in the same blocks
    merged.weights = Resident({name: value * 1.25 for name, value in toy.tensors.items()})
    toy.manner = merged.manner = Manner(is_compiled=True)
    cached = {"run_blocks": lambda run, x: run.after(run.first(x))}, {"run_blocks": lambda run, x: x + run.signal(x)}
    sizes = [(1, (3, 4, 6)), (2, (3, 4, 6)), (1, (2, 6, 4)), (1, (1, 4, 4))]
    for _ in range(2):  # a second clip of a size finds everything
        for batch, size in sizes:
            for lengths in ((5,) * batch, (31, 64)[:batch]):
                given = {"batch": batch, "size": size, "lengths": lengths, "tokens": max(lengths)}
                for each in (toy, merged):
                    for wrapped in ({}, *cached):
                        each(**each.inputs(**given), **wrapped)
    counters = torch._dynamo.utils.counters
    assert counters["stats"]["unique_graphs"] == 2 * len(sizes)
    assert not counters["graph_break"] and engine.plain_reason == ""


def test_sizes_without_end_are_not_kept_for_ever():
    toy = Toy(engines.get(FIRST))
    for count in range(1, 20):
        toy(**toy.inputs(lengths=(count,), tokens=count))
    assert len(toy.dit._functions) == 16


@needs_torch
def test_bfloat16_stays_near_float32():
    engine = engines.get("torch:cpu")  # MindSpore has no bfloat16 on a CPU
    wide, half = Toy(engine), Toy(engine, "bfloat16")
    inputs = {"batch": 2, "lengths": (5, 3)}
    assert largest(half(**half.inputs(**inputs)), wide(**wide.inputs(**inputs))) < 0.03
    assert largest(half(**half.inputs()), wide(**wide.inputs())) < 0.03


def test_the_blocks_can_be_replaced(engine):
    toy, shapes = Toy(engine), []

    def twice_seen(run, x):
        shapes.append(tuple(x.shape))
        return x + (run(x) - x)

    inputs = toy.inputs()
    assert largest(toy(**inputs, run_blocks=twice_seen), toy(**inputs)) < 5e-6
    assert shapes == [(1, 3 * 2 * 3, 48)]
    assert largest(toy(**inputs, run_blocks=lambda run, x: x), toy(**inputs)) > 0.1


def test_the_first_frame_ignores_timestep_and_guidance_until_attention(engine):
    toy = Toy(engine, double_blocks=0, single_blocks=0)
    seen = {}
    inputs = toy.inputs()
    other = inputs | {"timestep": inputs["timestep"] * 0.5, "guidance": inputs["guidance"] * 0.5}
    for name, call in (("one", inputs), ("other", other)):
        toy.dit(toy.weights, **call, observe=lambda key, x, name=name: seen.__setitem__((name, key), engine.numpy(x)))
    assert largest(seen["one", "token_replace_vec"], seen["other", "token_replace_vec"]) == 0
    assert largest(seen["one", "vec"], seen["other", "vec"]) > 0.1


def test_every_weight_gets_a_gradient(engine):
    toy = Toy(engine, double_blocks=1, single_blocks=1)
    inputs = toy.inputs(batch=2, lengths=(5, 3))
    latents = inputs.pop("latents")

    def loss(weights, latents):
        velocity = toy.dit(Resident(weights), latents, **inputs)
        return engine.mean(velocity * velocity, (0, 1, 2, 3, 4))

    value, gradients = engine.grad(loss)(toy.tensors, latents)
    assert np.isfinite(engine.numpy(value))
    sizes = {name: float(np.abs(engine.numpy(gradient)).max()) for name, gradient in gradients.items()}
    # The last double block's text MLP feeds the single blocks, so nothing is left out.
    assert set(sizes) == set(toy.tensors)
    assert min(sizes.values()) > 0, [name for name, size in sizes.items() if size == 0]
    # One weight against a finite difference.
    name, step = "single_blocks.0.linear2.bias", 1e-2
    moved = [np.array(engine.numpy(toy.tensors[name])) for _ in range(2)]
    moved[0][3] += step
    moved[1][3] -= step
    ends = [float(engine.numpy(loss(toy.tensors | {name: engine.asarray(end)}, latents))) for end in moved]
    assert abs((ends[0] - ends[1]) / (2 * step) - float(engine.numpy(gradients[name])[3])) < 1e-3


def test_texts_are_joined_with_padding(engine):
    toy = Toy(engine)
    short, long = toy.inputs(lengths=(4,), tokens=4)["text"], toy.inputs(lengths=(6,), tokens=7)["text"]
    text = joined_texts(engine, [short, long])
    assert (tuple(text.states.shape), text.lengths, tuple(text.pooled.shape)) == ((2, 7, 24), (4, 6), (2, 12))
    assert largest(engine.numpy(text.states)[0, :4], engine.numpy(short.states)[0]) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"guidance": None}, "embedded guidance"),
        ({"lengths": (9,)}, "do not fit"),
        ({"lengths": (0,)}, "do not fit"),
        ({"lengths": (3, 3)}, "do not fit"),
        ({"size": (3, 5, 6)}, "multiple of the patch"),
        ({"rope": 1}, "rotary table"),
        ({"in_channels": 9}, "9 channels"),
    ],
)
def test_what_does_not_fit_is_named(change, words):
    engine = engines.get(FIRST)
    toy = Toy(engine)
    inputs = toy.inputs(lengths=change.get("lengths", (7,)))
    if "guidance" in change:
        inputs["guidance"] = None
    if "size" in change:
        inputs["latents"] = engine.zeros((1, 4, *change["size"]))
    if "rope" in change:
        inputs["rope"] = tuple(table[1:] for table in inputs["rope"])
    if "in_channels" in change:
        inputs["latents"] = engine.zeros((1, 9, 3, 4, 6))
    with pytest.raises(InputError, match=words):
        toy(**inputs)


def test_a_missing_block_is_named():
    toy = Toy(engines.get(FIRST))
    few = Resident({name: tensor for name, tensor in toy.tensors.items() if not name.startswith("single_blocks.1.")})
    with pytest.raises(CheckpointError, match="2 blocks 'single_blocks'"):
        toy.dit(few, **toy.inputs())
