"""Bytes alive in an update at the published size, counted on torch's device without memory, against the forecast."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from counted_bytes import counted
from toy_training import update_of

from framewake.config import HUNYUAN_DIT
from framewake.config15 import HUNYUAN15_DIT
from framewake.errors import ResourceError
from framewake.models.dit import DiT
from framewake.pipeline.forecast import cost
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.pipeline.hunyuan15 import HUNYUAN15
from framewake.shapes import PUBLISHED_RESOLUTIONS, LatentShape, choose_bucket, token_count
from framewake.train.factors import chosen
from framewake.train.forecast import Clips, Planner, Way, Work, needs

torch = pytest.importorskip("torch")

TEXT = 256
SHAPES = DiT(None, HUNYUAN_DIT).shapes()
CLIPS = {
    "360p x 61": LatentShape(16, 16, 44, 80),
    "360p x 129": LatentShape(16, 33, 44, 80),
    "544x960 x 61": LatentShape(16, 16, 68, 120),
    "544x960 x 129": LatentShape(16, 33, 68, 120),
}
PLAIN, AGAIN = Way(True, True, False), Way(True, True, True)


class Flash(torch.autograd.Function):
    """What a flash kernel keeps and makes: the output and sums of rows; the queries' gradient in float32."""

    @staticmethod
    def forward(ctx, q, k, v):
        out = torch.empty_like(q)
        ctx.save_for_backward(q, k, v, out, torch.empty(q.shape[:3], dtype=torch.float32, device=q.device))
        return out

    @staticmethod
    def backward(ctx, dy):
        q, k, v, *_ = ctx.saved_tensors
        wide = torch.empty(q.shape, dtype=torch.float32, device=q.device)
        dk, dv = torch.empty_like(k), torch.empty_like(v)
        return wide.to(q.dtype), dk, dv


@pytest.fixture
def shapeless():
    """An engine whose tensors have shapes and no numbers; what goes to the host is gone."""
    from cuda_here import CudaHere

    class Shapeless(CudaHere):
        def attention(self, q, k, v, *, scale, mask=None, lengths=None):
            return Flash.apply(q, k, v)

        def to_host(self, x):
            return tuple(x.shape), x.dtype

        def to_device(self, x):
            return torch.empty(x[0], dtype=x[1], device="meta")

        def numpy(self, x):
            return np.broadcast_to(np.float32(0), tuple(x.shape))

    return Shapeless("meta")


def work_of(latent, rank, *, batch=1):
    trained = sum(rank * (rows + columns) for rows, columns in chosen(SHAPES, HUNYUAN.trained.modules).values())
    scene = cost.Scene(batch, token_count(latent), TEXT, "bfloat16", False)
    return Work(HUNYUAN_DIT, SHAPES, scene, trained, is_host=False)


@pytest.mark.parametrize(
    ("clip", "rank", "way"),
    [
        ("360p x 61", 16, PLAIN),
        ("360p x 129", 64, PLAIN),
        ("544x960 x 61", 16, PLAIN),
        ("544x960 x 129", 32, PLAIN),
        ("360p x 129", 16, AGAIN),
    ],
)
def test_an_update_takes_what_is_forecast(shapeless, clip, rank, way):
    # Blocks of a kind are alike, and of all frozen weights only two are on the device.
    few = dataclasses.replace(HUNYUAN_DIT, double_blocks=2, single_blocks=2)
    work, weights = update_of(shapeless, few, CLIPS[clip], rank=rank, text=TEXT, way=way)
    held = cost.weights(SHAPES, ("double_blocks", "single_blocks"), "bfloat16").streamed
    found = held + counted(work, weights, has_gradients=True)
    expected, _ = needs(work_of(CLIPS[clip], rank), way)
    assert abs(expected / found - 1) <= 0.1, (expected, found)


@pytest.mark.parametrize("way", [PLAIN, AGAIN])
def test_an_update_of_the_second_model_takes_what_is_forecast(shapeless, way):
    latent, text = LatentShape(65, 16, 30, 53), 985
    few = dataclasses.replace(HUNYUAN15_DIT, double_blocks=2)
    work, weights = update_of(shapeless, few, latent, rank=16, text=text, way=way, family=HUNYUAN15)
    shapes = HUNYUAN15.transformer(None, HUNYUAN15_DIT).shapes()
    held = cost.weights(shapes, ("double_blocks",), "bfloat16").streamed
    found = held + counted(work, weights, has_gradients=True)
    trained = sum(16 * (rows + columns) for rows, columns in chosen(shapes, HUNYUAN15.trained.modules).values())
    scene = cost.Scene(1, token_count(latent, (1, 1, 1)), text, "bfloat16", False)
    expected, _ = needs(Work(HUNYUAN15_DIT, shapes, scene, trained, is_host=False), way)
    assert abs(expected / found - 1) <= 0.1, (expected, found)


@pytest.mark.parametrize("rank", [16, 32, 64])
def test_what_fits_into_common_cards(rank):
    assert needs(work_of(CLIPS["360p x 129"], rank), PLAIN)[0] <= 9e9
    assert needs(work_of(CLIPS["544x960 x 61"], rank), PLAIN)[0] <= 11e9
    assert needs(work_of(CLIPS["544x960 x 129"], rank), PLAIN)[0] <= 16.5e9
    assert needs(work_of(CLIPS["360p x 129"], rank), AGAIN)[0] <= 7e9


def test_the_host_holds_inputs_and_states():
    work = work_of(CLIPS["360p x 129"], 16)
    unit = (token_count(CLIPS["360p x 129"]) + TEXT) * 3072 * 2
    assert needs(work, PLAIN)[1] == 60 * unit + 16 * work.trained
    on_device = needs(work, PLAIN._replace(keeps_on_host=False))
    assert on_device[0] - needs(work, PLAIN)[0] == 60 * unit and on_device[1] == 28 * work.trained


def planner(shapeless, latent, rank=16, *, is_host=False):
    size = (latent.height * 8, latent.width * 8)
    clips = Clips(latent, 4 * latent.frames - 3, size, "540p", PUBLISHED_RESOLUTIONS, choose_bucket)
    return Planner(shapeless, work_of(latent, rank)._replace(is_host=is_host), clips, rank=rank)


def test_the_fastest_way_that_fits_is_taken(shapeless):
    plan = planner(shapeless, CLIPS["360p x 129"])
    found = [plan.way(room * 10**9)[:3] for room in (50, 40, 25, 10, 7)]
    resident, on_host = (False, False, False), (False, True, False)
    assert found == [resident, on_host, (True, False, False), (True, True, False), (True, True, True)]
    assert plan.way(50 * 10**9, recomputes=True)[:3] == (False, False, True), "as a saved run did"
    assert plan.way(7 * 10**9, recomputes=False).recomputes, "there is no other"


def test_what_does_not_fit_is_refused_with_what_does(shapeless):
    with pytest.raises(ResourceError, match=r"960x544 x 129 frames at rank 16 needs 9\.0 GiB") as refusal:
        planner(shapeless, CLIPS["544x960 x 129"]).way(6 * 10**9)
    said = str(refusal.value)
    assert "The largest that fits: --frames 57, or --resolution 360p --frames 129." in said
    with pytest.raises(ResourceError, match="Nothing smaller fits"):
        planner(shapeless, CLIPS["360p x 61"]).way(10**9)
    # On a CPU the states count too.
    with pytest.raises(ResourceError, match="--rank 32"):
        planner(shapeless, CLIPS["360p x 61"]._replace(frames=2), 64, is_host=True).way(7 * 10**9)
