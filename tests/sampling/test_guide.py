"""The loop over steps and the wrappers around the transformer."""

import dataclasses

import numpy as np
import pytest

from framewake.request import Request
from framewake.sampling.flow import schedule
from framewake.sampling.guide import put_first_frame, sample, with_first_frame, with_image_channels, with_negative
from framewake.sampling.noise import draw
from framewake.sampling.solvers import SOLVERS, Euler


@pytest.fixture
def noise(engine):
    return engine.asarray(draw((1, 4, 3, 4, 6), 1))


@pytest.fixture
def image(engine):
    return engine.asarray(draw((1, 4, 1, 4, 6), 2))


def test_a_straight_flow_ends_in_the_data(engine, noise):
    data = engine.asarray(draw((1, 4, 3, 4, 6), 3))
    steps = list(sample(engine, lambda x, t: noise - data, noise, schedule(5, 7.0)))
    assert [step.index for step in steps] == [0, 1, 2, 3, 4]
    assert np.abs(engine.numpy(steps[-1].latents) - engine.numpy(data)).max() < 1e-6


def test_a_request_chooses_among_the_solvers():
    (setting,) = (field.metadata["setting"] for field in dataclasses.fields(Request) if field.name == "solver")
    assert setting.choices == tuple(SOLVERS)


def test_another_solver_takes_the_place_of_eulers(engine, noise):
    """One that goes half as far as Euler's: the loop leaves it to the solver where a step ends."""

    class Half(Euler):
        def __call__(self, index, latents, velocity):
            return super().__call__(index, latents, velocity * 0.5)

    (whole,) = sample(engine, lambda x, t: x, noise, schedule(1, 7.0))
    (half,) = sample(engine, lambda x, t: x, noise, schedule(1, 7.0), make_solver=Half)
    moved, expected = (engine.numpy(noise - step.latents) for step in (half, whole))
    assert np.abs(2 * moved - expected).max() < 1e-6 < np.abs(moved).max()


def test_the_model_sees_each_timestep_once(engine, noise):
    seen, made = [], schedule(4, 7.0)

    def denoise(latents, timestep):
        seen.append(timestep)
        return latents * 0.0

    list(sample(engine, denoise, noise, made))
    assert seen == made.timesteps.tolist()


def test_the_first_frame_is_given_and_never_stepped(engine, noise, image):
    inputs = []

    def denoise(latents, timestep):
        inputs.append(engine.numpy(latents[:, :, :1]))
        return latents * 0.5 + 1.0

    shown = with_first_frame(engine, denoise, image)
    for step in sample(engine, shown, noise, schedule(3, 7.0), first_frame=image):
        assert np.array_equal(engine.numpy(step.latents[:, :, :1]), engine.numpy(image))
    assert len(inputs) == 3
    assert all(np.array_equal(frame, engine.numpy(image)) for frame in inputs)


def test_one_frame_is_the_image_itself(engine, image):
    assert np.array_equal(engine.numpy(put_first_frame(engine, image * 0.0, image)), engine.numpy(image))


def test_half_precision_noise_is_float32_after_the_first_step(engine, noise, image):
    half = engine.cast(noise, "float16")
    kinds = []

    def denoise(latents, timestep):
        kinds.append(engine.dtype(latents))
        return latents

    list(sample(engine, denoise, half, schedule(2, 7.0), first_frame=engine.cast(image, "float16")))
    assert kinds == ["float16", "float32"]


def test_classic_guidance_asks_for_negative_then_positive(engine, noise):
    def denoise(latents, timestep):
        assert latents.shape[0] == 2
        assert np.array_equal(engine.numpy(latents[:1]), engine.numpy(latents[1:]))
        return engine.concat([latents[:1] * 2.0, latents[1:] * 5.0], 0)

    guided = with_negative(engine, denoise, 3.0)(noise, 500.0)
    assert np.abs(engine.numpy(guided) - engine.numpy(noise) * (2 + 3 * (5 - 2))).max() < 1e-5


def test_image_channels_are_latents_image_and_mask(engine, noise, image):
    seen = []
    with_image_channels(engine, lambda x, t: seen.append(engine.numpy(x)), image)(noise, 1.0)
    (given,) = seen
    assert given.shape == (1, 9, 3, 4, 6)
    assert np.array_equal(given[:, :4], engine.numpy(noise))
    assert np.array_equal(given[:, 4:8, :1], engine.numpy(image))
    assert np.abs(given[:, 4:, 1:]).max() == 0
    assert np.array_equal(given[:, 8, 0], np.ones((1, 4, 6), np.float32))


def test_closing_the_loop_cancels_it(engine, noise):
    calls = []

    def denoise(latents, timestep):
        calls.append(timestep)
        return latents

    steps = sample(engine, denoise, noise, schedule(10, 7.0))
    next(steps)
    steps.close()
    assert len(calls) == 1
