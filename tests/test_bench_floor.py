"""The floor that a benchmark of whole clips states beside its seconds."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from framewake import engine as engines
from framewake.pipeline import Pipeline
from framewake.pipeline.forecast import cost

torch = pytest.importorskip("torch")

ROOT = Path(__file__).parents[1]
FOUND = {
    "expected": 110 << 20,
    "peak": 100 << 20,
    "expected_seconds": 2.2,
    "seconds": 2.0,
    "floor": 0.5,
}
RUNS = [{"cold": 3.0, "warm": 2.0, "processor": 4.0, "first_step": 1.0, "peak": 100 << 20}]


@pytest.fixture
def bench(monkeypatch):
    """A benchmark or one of its parts, by name."""
    monkeypatch.syspath_prepend(str(ROOT / "scripts" / "benches"))
    return importlib.import_module


def columns(name: str) -> list[str]:
    """The head of a benchmark's table."""
    page = (ROOT / "docs" / "measurements" / f"{name}.md").read_text()
    return next(cells(line) for line in page.split("\n") if line.startswith("| date"))


def cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split("|")]


def test_rows_of_whole_clips_state_the_floor(bench):
    rows = {
        "memory": bench("memory").line("torch:cpu", "demo", FOUND),
        "clip": bench("clip").row("torch:cpu", {"torch:cpu": RUNS}, floor=0.5, words="idle"),
    }
    for name, row in rows.items():
        head, found = columns(name), cells(row)
        assert len(head) == len(found), name
        place = head.index("floor s")
        assert found[place : place + 2] == ["0.50", "25%"]


def test_the_work_of_a_clip_has_the_tokens_of_its_prompt(bench):
    """A floor with the longest prompt's tokens would lie above the work."""
    work = bench("measuring.clip_floor")
    pipeline = Pipeline.load("demo", engine="torch:cpu")
    text = pipeline.reader.lengths(work.PROMPT)
    assert text < pipeline.reader.limit()
    steps = [work.clip_work(count, 5)[0] for count in (1, 2)]
    scene = cost.Scene(1, 2 * 8 * 8, text.kept, "float32", False)  # latents of 2 x 16 x 16 in patches of 1 x 2 x 2
    assert steps[1] - steps[0] == pytest.approx(cost.step_operations(pipeline.checkpoint.dit, scene))


def test_a_floor_counts_what_the_engine_computes(bench):
    """torch's own counter knows neither oneDNN's products and convolutions nor the attention of a CPU."""
    engine = engines.get("torch:cpu")
    floors = bench("measuring.floors")
    x, clip = engine.full((1, 256, 64), 0.5), engine.full((1, 8, 3, 6, 6), 0.5)
    q, k = engine.full((1, 40, 2, 16), 0.5), engine.full((1, 30, 2, 16), 0.5)
    works = {
        lambda: engine.linear(x, engine.full((32, 64), 0.1), engine.zeros((32,)), activation="silu"): 256 * 64 * 32,
        lambda: engine.conv3d(clip, engine.full((16, 8, 3, 3, 3), 0.1)): 1 * 4 * 4 * 16 * 8 * 27,
        lambda: engine.conv3d(clip, engine.full((16, 8, 1, 1, 1), 0.1)): 3 * 6 * 6 * 16 * 8,
        lambda: engine.attention(q, k, k, scale=0.25): 2 * 40 * 30 * 2 * 16,
    }
    with torch.no_grad():
        assert [floors.counted_operations(work) for work in works] == [2 * count for count in works.values()]
        assert floors.fewest_operations(*works) == 2 * min(works.values())
