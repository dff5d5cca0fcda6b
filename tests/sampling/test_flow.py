"""Schedules, steps and guidance numbers: exactly the original's."""

import json
from pathlib import Path

import numpy as np
import pytest
from engines_here import needs_torch

from framewake import engine as engines
from framewake.errors import InputError
from framewake.golden import rule
from framewake.sampling.flow import rounded_guidance, schedule
from framewake.sampling.solvers import euler_step

FOLDER = Path(__file__).parent.parent / "golden"
CASES = {case["id"]: case for case in json.loads((FOLDER / "cases.json").read_text())["cases"]}
STORED = np.load(FOLDER / "schedule.npz")
BF16_GUIDANCE = np.load(FOLDER / "guidance_rounding.npz")["guidance"]


@pytest.mark.parametrize("entry", CASES["schedule"]["config"]["combinations"], ids=str)
def test_schedules_are_exact(entry):
    made = schedule(entry["steps"], entry["shift"], is_reverse=entry["reverse"])
    assert made.sigmas.dtype == made.timesteps.dtype == np.float32
    assert np.array_equal(made.sigmas, STORED[f"sigmas_{entry['index']}"])
    assert np.array_equal(made.timesteps, STORED[f"timesteps_{entry['index']}"])


def test_even_spacing_is_that_of_torch_for_all_step_counts():
    torch = pytest.importorskip("torch")
    wrong = [n for n in range(1, 300) if not np.array_equal(schedule(n, 1.0).sigmas, torch.linspace(1, 0, n + 1))]
    assert wrong == []


def test_the_published_values():
    assert schedule(4, 7.0).timesteps.tolist() == [1000.0, 954.54541015625, 875.0, 700.0]
    assert schedule(50, 17.0).timesteps[-1] == pytest.approx(257.5758, abs=1e-4)


@pytest.mark.parametrize(("steps", "shift"), [(0, 7.0), (4, 0.0), (4, -1.0), (4, float("nan"))])
def test_impossible_schedules_are_refused(steps, shift):
    with pytest.raises(InputError, match="shift"):
        schedule(steps, shift)


def test_euler_steps_are_exact(engine):
    case, stored = CASES["schedule_step"], np.load(FOLDER / "schedule_step.npz")
    made = schedule(case["config"]["steps"], case["config"]["shift"])
    drawn = {name: rule.input(name, entry["shape"], case["seed"]) for name, entry in case["inputs"].items()}
    x = engine.asarray(drawn["sample"])
    for index in range(3):
        x = euler_step(
            engine, x, engine.asarray(drawn[f"velocity_{index}"]), made.sigmas[index], made.sigmas[index + 1]
        )
        assert np.abs(engine.numpy(x) - stored[f"sample_{index}"]).max() == 0


@needs_torch
def test_a_mixed_precision_step_is_exact():
    case, stored = CASES["schedule_step"], np.load(FOLDER / "schedule_step.npz")
    engine, made = engines.get("torch:cpu"), schedule(4, 7.0)
    drawn = {name: rule.input(name, entry["shape"], case["seed"]) for name, entry in case["inputs"].items()}
    x, velocity = engine.asarray(drawn["sample"], "float16"), engine.asarray(drawn["velocity_0"], "bfloat16")
    moved = euler_step(engine, x, velocity, made.sigmas[0], made.sigmas[1])
    assert engine.dtype(moved) == "float32"
    assert np.abs(engine.numpy(moved) - stored["sample_mixed"]).max() == 0


def test_guidance_is_rounded_to_bfloat16():
    scales = CASES["guidance_rounding"]["inputs"]["embedded_guidance_scale"]
    assert [rounded_guidance(scale, "bfloat16") for scale in scales] == BF16_GUIDANCE.tolist()


@pytest.mark.parametrize("precision", ["float32", "float16"])
def test_other_precisions_leave_usual_guidance_alone(precision):
    assert rounded_guidance(6.0, precision) == 6000.0


def test_guidance_must_be_finite():
    with pytest.raises(InputError, match="finite"):
        rounded_guidance(float("inf"), "bfloat16")
