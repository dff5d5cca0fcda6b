"""Make the demonstration checkpoint: ``python -m demonstration all FOLDER`` (see docs/demo.md)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from demonstration.names import look_at_names
from demonstration.recipe import ADOPT, SHIP, STEPS, run_step
from demonstration.sample import look
from framewake import engine as engines
from framewake.console.ending import run_program
from framewake.console.logs import start_logging
from framewake.errors import InputError

LOOK, LOOK_PX = "look", (128, 128)
NAMES = "names"


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one step of the recipe, or all that are not done yet, and exit as ``framewake`` does."""
    run_program("demonstration", lambda: begin(arguments))


def begin(arguments: Sequence[str] | None) -> None:
    """Read the command line, and run what it asks for.

    Raises: FramewakeError of any kind.
    """
    parser = argparse.ArgumentParser(prog="python -m demonstration", description=__doc__)
    parser.add_argument(
        "step",
        choices=[*STEPS, "all", ADOPT, SHIP, LOOK, NAMES],
        help="a step of the recipe; all in order; adopt: the shipped weights as a start; ship: what was made, into the "
        "package; look: clips of every motion as training stands now, judged, and shown in look.png; names: how often "
        "it knows which of two shapes is meant",
    )
    parser.add_argument("folder", type=Path, help="where the run keeps its state; an interrupted run goes on there")
    parser.add_argument("--engine", default="torch:cpu")
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the recipe's clips and times; 0.001 is a trial of minutes"
    )
    given = parser.parse_args(arguments)
    start_logging("%(asctime)s %(message)s")
    run(given.step, given.engine, given.folder, share=given.share)


def run(step: str, engine_name: str, folder: Path, *, share: float) -> None:
    """What the command line asks for.

    Raises: InputError for a folder that is none, or a share that is none.
    """
    if not 0 < share < float("inf"):
        raise InputError(f"--share is {share:g}: expected more than 0, as 0.1 for a tenth; leave it out for all.")
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: name a folder, which is made if need be.")
    engine = engines.get(engine_name)
    if step == LOOK:
        look(engine, folder, size_px=LOOK_PX, per_motion=1)
        return
    if step == NAMES:
        look_at_names(engine, folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    for each in STEPS if step == "all" else [step]:
        run_step(each, engine, folder, share=share)


if __name__ == "__main__":
    main()
