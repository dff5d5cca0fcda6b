"""Step caches around a real transformer: what they skip, what they keep, and what they never change."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from dit_toy import Toy, largest

from framewake.cache import parse_cache
from framewake.errors import InputError
from framewake.models.manner import Manner
from framewake.pipeline.velocity import Condition, Wrapping
from framewake.sampling import guide
from framewake.sampling.cache.rules import Easy, FirstBlock, Tea, relative
from framewake.sampling.cache.state import State, load_state
from framewake.sampling.cache.step_cache import StepCache
from framewake.sampling.cache.tokens import HeldTokens
from framewake.sampling.flow import schedule
from framewake.weights.reading.files import TensorFile
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.names import same
from framewake.weights.stores.store import Resident
from framewake.weights.stores.streamed import Streamed
from framewake.weights.writing.files import write_tensors

COUNT = 8
IDLE = ["first-block:0", "tea:0", "easy:0", "fixed:1", "taylor1:1", "taylor2:1"]
BUSY = ["first-block:100", "tea:100", "easy:100", "fixed:3", "taylor1:3", "taylor2:3"]


class Counting(Resident):
    """A store that knows which block lists were asked for."""

    def __init__(self, tensors):
        super().__init__(tensors)
        self.taken = []

    def blocks(self, name, count=None):
        for block in super().blocks(name, count):
            self.taken.append(name)
            yield block


def cached(engine, text, **options):
    return None if text is None else StepCache(engine, parse_cache(text), COUNT, **options)


def sampled(toy, run_blocks, *, start=0, latents=None, stop=COUNT, **kinds):
    """Latents after the steps from ``start`` up to ``stop``."""
    engine, inputs = toy.engine, toy.inputs(**kinds)
    steps = schedule(COUNT, 7.0)
    size = tuple(int(count) for count in inputs["latents"].shape[1:])
    wrapping = Wrapping(engine, toy.config, size, 9, guidance=6.0, dtype="bfloat16")
    transformer = functools.partial(toy.dit, toy.weights, manner=toy.manner, run_blocks=run_blocks)
    denoise = wrapping.denoise(transformer, Condition(inputs["text"], inputs["latents"][:, :, :1]))
    latents = inputs["latents"] if latents is None else latents
    for step in guide.sample(engine, denoise, latents, steps, start=start):
        if step.index + 1 == stop:
            return step.latents
    raise AssertionError("no step was made")


@functools.cache
def compiled(engine):
    """One for all tests, which compiles once, and its latents without a cache. What torch builds: test_dit.py."""
    toy = Toy(engine)
    toy.manner = Manner(is_compiled=True)
    with pytest.MonkeyPatch.context() as patch:
        if engine.kind == "torch":
            from cuda_here import build_nothing

            build_nothing(patch)
        return toy, engine.numpy(sampled(toy, None))


@functools.cache
def uncached(engine, batch=1, lengths=(7,)):
    """Latents without a cache."""
    return engine.numpy(sampled(Toy(engine), None, batch=batch, lengths=lengths))


@pytest.mark.parametrize("text", IDLE)
@pytest.mark.parametrize("kinds", [{}, {"batch": 2, "lengths": (7, 4)}])
def test_a_threshold_of_zero_changes_no_bit(engine, text, kinds):
    cache = cached(engine, text)
    found = sampled(Toy(engine), cache, **kinds)
    assert np.array_equal(engine.numpy(found), uncached(engine, **kinds))
    assert cache.state.computed == tuple(range(COUNT)) and cache.state.skipped == ()


@pytest.mark.parametrize("text", ["first-block:0", "taylor2:1"])
def test_a_threshold_of_zero_changes_no_bit_compiled(engine, text):
    toy, expected = compiled(engine)
    assert np.array_equal(engine.numpy(sampled(toy, cached(engine, text))), expected)


def test_a_threshold_of_zero_changes_no_bit_in_chunks(engine):
    toy = Toy(engine)
    toy.manner = Manner(chunk_tokens=5)
    found, expected = sampled(toy, cached(engine, "first-block:0")), sampled(toy, None)
    assert np.array_equal(engine.numpy(found), engine.numpy(expected))


@pytest.mark.parametrize("text", ["first-block:0", "easy:0", "fixed:3"])
def test_streamed_weights_change_no_bit(engine, text, tmp_path):
    toy = Toy(engine)
    expected = engine.numpy(sampled(toy, cached(engine, text)))
    if text.endswith(":0"):
        assert np.array_equal(expected, uncached(engine))
    file = tmp_path / "dit.safetensors"
    write_tensors(file, {name: np.ascontiguousarray(engine.numpy(w)) for name, w in toy.tensors.items()})
    shapes = toy.dit.shapes()
    mapped = MappedTensors(TensorFile(file), same(shapes))
    toy.weights = Streamed(engine, mapped, "float32", names=shapes, streams=toy.dit.streams())
    found = engine.numpy(sampled(toy, cached(engine, text)))
    toy.weights.close()
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("text", BUSY)
def test_skipped_steps_ask_for_no_blocks(engine, text):
    toy = Toy(engine)
    toy.weights = Counting(toy.tensors)
    cache = cached(engine, text)
    found = engine.numpy(sampled(toy, cache))
    expected = (0, 1, 4, 7) if ":3" in text else (0, 1, 7)
    assert cache.state.computed == expected
    assert cache.state.skipped == tuple(n for n in range(COUNT) if n not in expected)
    # The first block shows two of the rules how far things have moved.
    looks = len(cache.state.skipped) if text.startswith(("first-block", "tea")) else 0
    assert toy.weights.taken.count("double_blocks") == 2 * len(expected) + looks
    assert toy.weights.taken.count("single_blocks") == 2 * len(expected)
    assert np.isfinite(found).all()
    assert largest(found, uncached(engine)) > 1e-4  # it did something


@pytest.mark.parametrize("text", ["first-block:0.02", "tea:0.5", "easy:0.05", "taylor2:2"])
def test_going_on_from_a_saved_state_changes_no_bit(engine, text):
    toy = Toy(engine)
    whole = cached(engine, text)
    expected = sampled(toy, whole)
    first = cached(engine, text)
    latents = sampled(toy, first, stop=4)
    second = cached(engine, text)
    second.restore(first.state.save(engine), 4)
    found = sampled(toy, second, start=4, latents=latents)
    assert np.array_equal(engine.numpy(found), engine.numpy(expected))
    assert (second.state.computed, second.state.skipped) == (whole.state.computed, whole.state.skipped)


def test_a_state_of_another_step_is_refused(engine):
    toy = Toy(engine)
    cache = cached(engine, "fixed:4")
    sampled(toy, cache, stop=3)
    saved = cache.state.save(engine)
    with pytest.raises(InputError, match="another run's step cache"):
        cached(engine, "fixed:4").restore(saved, 4)
    with pytest.raises(InputError, match="broken step cache"):
        cached(engine, "fixed:4").restore({}, 4)


@pytest.mark.parametrize("text", ["fixed:4", "first-block:0.02", "tea:0.5", "easy:0.05", "taylor2:2"])
def test_every_array_of_a_saved_state_is_looked_at(engine, text):
    toy = Toy(engine)
    cache = cached(engine, text)
    latents = sampled(toy, cache, stop=3)
    saved = cache.state.save(engine)
    tensors = [name for name in saved if name.startswith("cache_tensor_")]
    numbers = [name for name in saved if name.startswith("cache_number_")]
    assert tensors and numbers
    broken = [(name, saved | {name: saved[name][:, :-1]}) for name in tensors]
    broken += [(name, {key: x for key, x in saved.items() if key != name}) for name in tensors]
    broken += [(name, saved | {name: np.tile(saved[name], 9)}) for name in numbers]
    broken += [("cache_tensor_more", saved | {"cache_tensor_more": saved[tensors[0]]})]
    for name, arrays in broken:
        other = cached(engine, text)
        other.restore(arrays, 3)
        with pytest.raises(InputError, match="step cache of another size") as refusal:
            sampled(toy, other, start=3, latents=latents)
        assert "times" in name or "number" in name or name.removeprefix("cache_tensor_") in str(refusal.value)


def test_half_precision_is_saved_exactly(engine):
    values = engine.cast(engine.asarray(np.linspace(-3, 5, 1001).astype(np.float32)), "bfloat16")
    state = State((0,), (1,), {"past0": values}, {"times": (0.0,), "total": (0.1, 1 / 3)})
    back = load_state(engine, state.save(engine))
    assert engine.dtype(back.tensors["past0"]) == "bfloat16"
    assert np.array_equal(engine.numpy(back.tensors["past0"]), engine.numpy(values))
    assert back._replace(tensors=state.tensors) == state


def test_a_step_that_broke_leaves_no_trace(engine):
    toy = Toy(engine)
    cache = cached(engine, "easy:0.05")
    sampled(toy, cache, stop=2)
    before = cache.state

    def broken(image):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        for _ in range(COUNT):
            cache(broken, engine.zeros((1, 18, 48)))
            before = cache.state
    assert cache.state is before


class Along:
    """Blocks whose output is a polynomial in the number of the call."""

    def __init__(self, engine, order):
        self.engine, self.order, self.number, self.calls = engine, order, -1, 0

    def value(self):
        return self.engine.full((1, 4, 3), float(2 + 3 * self.number + 0.5 * self.number**self.order))

    def __call__(self, image):
        self.calls += 1
        return self.value()


@pytest.mark.parametrize("order", [1, 2])
def test_taylor_is_exact_for_polynomials_of_its_order(engine, order):
    cache, stack = cached(engine, f"taylor{order}:3"), Along(engine, order)
    worst = 0.0
    for number in range(COUNT):
        stack.number = number
        has_all = len(cache.state.computed) > order
        found = cache(stack, engine.zeros((1, 4, 3)))
        if has_all:
            worst = max(worst, float(np.abs(engine.numpy(found) - engine.numpy(stack.value())).max()))
    assert cache.state.computed == (0, 1, 4, 7) and worst < 1e-4, worst


@pytest.mark.parametrize("text", ["taylor1:4", "taylor2:4", "fixed:4", "easy:1"])
def test_nothing_from_before_a_change_of_the_model_is_used_after_it(engine, text):
    """A LoRA gets another weight at step 3: from there on, a cache must do what it does without steps before."""

    def given(before):
        stack, found = Along(engine, 1), []
        cache = cached(engine, text, anew={3})
        for number in range(COUNT):
            stack.number = number if number >= 3 else before * (number + 1)
            found.append(engine.numpy(cache(stack, engine.full((1, 4, 3), 1.0 + number / 100))))
        return found[3:], cache.state.skipped

    one, other = given(1), given(-50)
    assert one[1] and 3 not in one[1]
    assert [step for step in one[1] if step > 3] == [step for step in other[1] if step > 3]
    assert all(np.array_equal(a, b) for a, b in zip(one[0], other[0], strict=True))


def test_steps_can_be_listed(engine):
    toy = Toy(engine)
    cache = cached(engine, "fixed:0,3,5,99")
    sampled(toy, cache)
    assert cache.state.computed == (0, 3, 5)


def test_every_sample_has_numbers_of_its_own(engine):
    x = engine.asarray(np.ones((2, 4, 3), np.float32))
    moved = engine.asarray(np.stack([np.full((4, 3), 1.5), np.full((4, 3), 0.9)]).astype(np.float32))
    assert relative(HeldTokens(engine), moved, x) == pytest.approx((0.5, 0.1), abs=1e-6)


def third_look(toy, kind, rows, threshold=1e9):
    """What a rule sees before the third step of some samples that drift at different paces."""
    engine, inputs = toy.engine, toy.inputs(batch=2, lengths=(7, 7))
    text = inputs["text"]
    text = text._replace(states=text.states[rows], pooled=text.pooled[rows], lengths=text.lengths[rows])
    inputs |= {name: inputs[name][rows] for name in ("timestep", "guidance")} | {"text": text}
    latents = inputs.pop("latents")
    pace = engine.asarray(np.array([0.01, 0.3], np.float32).reshape(2, 1, 1, 1, 1))
    rule, state, looks = kind(HeldTokens(engine), threshold), State(), []

    def watched(stack, image):
        nonlocal state
        look = rule.look(stack, image, state)
        looks.append(look)
        out = look.compute()
        tensors, numbers = rule.learn(look, image, out, state)
        state = State(tensors=tensors, numbers=numbers)
        return out

    for number in range(3):
        toy((latents * (pace * float(number) + 1.0))[rows], **inputs, run_blocks=watched)
    return looks[-1]


@pytest.mark.parametrize("kind", [FirstBlock, Tea, Easy])
def test_a_step_is_skipped_only_when_every_sample_allows_it(engine, kind):
    """Guidance puts both branches into one batch: each is watched as if it were alone."""
    toy = Toy(engine)
    calm, wild = (third_look(toy, kind, rows).numbers["total"][0] for rows in (slice(0, 1), slice(1, 2)))
    both = third_look(toy, kind, slice(0, 2), (calm + wild) / 2)
    assert both.numbers["total"] == pytest.approx((calm, wild), rel=1e-3)
    assert calm != pytest.approx(wild, rel=0.05) and not both.is_near
    assert third_look(toy, kind, slice(0, 2), max(calm, wild) * 1.01).is_near
