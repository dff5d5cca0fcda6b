"""Training with frozen weights and a computation in bfloat16; the factors stay float32."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import load_file

from framewake.errors import InputError
from framewake.train.events import Update
from framewake.train.state import state_path


def losses(events):
    return [event.loss for event in events if isinstance(event, Update)]


# In bfloat16 the model is told 6016 for a guidance of 6, as the original does; 4000 has no such rounding.
EXACT = {"guidance": 4.0}


@pytest.fixture
def able(engine):
    """An engine that computes in bfloat16."""
    if engine.name == "mindspore:cpu":
        pytest.skip("MindSpore has no bfloat16 matrix product on a CPU; the refusal is tested below")
    return engine


def test_the_losses_are_those_of_float32_up_to_rounding(able, trainer_of):
    exact, coarse = (
        losses(trainer_of(f"{precision}.safetensors", steps=4, precision=precision, **EXACT).run(able))
        for precision in ("float32", "bfloat16")
    )
    assert exact != coarse, "it computed in float32"
    apart = [abs(one - other) / one for one, other in zip(exact, coarse, strict=True)]
    # Behind the first update the factors differ too: Adam makes whole steps of the signs of small gradients.
    assert apart[0] < 0.01 and max(apart) < 0.05, f"relative differences {apart}"


def test_the_loss_goes_down(able, trainer_of):
    settings = {"caption_drop": 0.0, "picture_drop": 0.0, "batch": 2, "learning_rate": 2e-2, "precision": "bfloat16"}
    found = losses(trainer_of(steps=24, **settings).run(able))
    assert np.mean(found[-6:]) < 0.8 * np.mean(found[:6])


def test_a_run_in_two_parts_is_the_same_to_the_byte(able, trainer_of, tmp_path):
    whole = losses(trainer_of("whole.safetensors", steps=4, precision="bfloat16").run(able))
    first = losses(trainer_of("part.safetensors", steps=2, precision="bfloat16").run(able))
    second = losses(trainer_of("part.safetensors", resumes=True, steps=4).run(able))
    assert first + second == whole
    assert (tmp_path / "part.safetensors").read_bytes() == (tmp_path / "whole.safetensors").read_bytes()


def test_the_factors_stay_float32(able, trainer_of, tmp_path):
    list(trainer_of(steps=2, precision="bfloat16").run(able))
    for path in (tmp_path / "a.safetensors", state_path(tmp_path / "a.safetensors")):
        factors = {name: x for name, x in load_file(path).items() if "lora_up" in name}
        assert factors and {x.dtype for x in factors.values()} == {np.dtype(np.float32)}
        # Bits that bfloat16 does not have: they were never rounded to it.
        assert any((x.view(np.uint32) & 0xFFFF).any() for x in factors.values())


def test_mindspore_on_a_cpu_refuses_it_before_any_work(engine, trainer_of, tmp_path):
    if engine.name != "mindspore:cpu":
        pytest.skip("this engine can")
    with pytest.raises(InputError, match="no bfloat16 matrix product") as refusal:
        list(trainer_of(precision="bfloat16").run(engine))
    # Training has no float16, so it must not be named as a way out.
    assert "float32" in str(refusal.value) and "float16" not in str(refusal.value).replace("bfloat16", "")
    assert not list(tmp_path.iterdir())
