"""One of several processes with compiled blocks: the largest difference to plain ones, alone. Run with no words."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from dit_toy import Toy, largest

from framewake import engine as engines
from framewake.models.arrangement import Arrangement
from framewake.models.manner import PLAIN, Manner

# Programs are traced as ever, and run by torch's own kernels: building each takes many seconds, and test_dit.py does.
torch.compile = functools.partial(torch.compile, backend="aot_eager")


def main() -> None:
    engine = engines.join("torch:cpu")
    toy = Toy(engine, double_blocks=1, single_blocks=1)
    toy.manner = PLAIN
    expected = toy(**toy.inputs())
    toy.manner = Manner(is_compiled=True, arrangement=Arrangement(2, 1))
    worst = max(largest(toy(**toy.inputs()), expected) for _ in range(2))  # the second call finds everything compiled
    Path(f"worst{engine.rank()}").write_text(f"{worst} {engine.plain_reason}")
    engines.leave()


if __name__ == "__main__":
    main()
