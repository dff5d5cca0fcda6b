"""Make the demonstration checkpoint: ``python -m framewake.demo all FOLDER`` (see docs/demo.md)."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from framewake import engine as engines
from framewake.demo.recipe import ADOPT, STEPS, run_step


def main() -> int:
    """Run one step of the recipe, or all that are not done yet."""
    parser = argparse.ArgumentParser(prog="python -m framewake.demo", description=__doc__)
    parser.add_argument(
        "step",
        choices=[*STEPS, ADOPT, "all"],
        help="a step of the recipe, all in order, or adopt: the shipped weights as a start",
    )
    parser.add_argument("folder", type=Path, help="where the run keeps its state; an interrupted run goes on there")
    parser.add_argument("--engine", default="torch:cpu")
    parser.add_argument("--seconds", type=float, help="train for another time than the recipe's")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    engine = engines.get(arguments.engine)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for step in STEPS if arguments.step == "all" else [arguments.step]:
        run_step(step, engine, arguments.folder, seconds=arguments.seconds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
