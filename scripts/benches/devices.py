"""A step of the middle transformer by several processes of one thread, beside one of them, in turns.

One process makes a step while the others sleep, all make it together, and each makes a whole one at the same time:
twice the first over the last is what the machine can give at the moment. Processor time depends less on who else is
there, but where two threads share a core it does. So that of the busiest process is compared with that of one alone, of
which it should be 0.56 at 2 processes, and with that of a whole step beside another. The bytes that are sent must be
those of the forecast's formula. The floor is an even share of one device's step, and the exchanges.

With --model what the specification's model says of a step of the 13B model on 1 to 16 devices is printed; nothing runs.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import clocks, record
from measuring.middle import LATENTS, MIDDLE_DIT, TEXTS, TIMESTEP
from measuring.shared_step import Counted, Turns

from framewake import engine as engines
from framewake.app.devices import Devices, variables
from framewake.app.start import start
from framewake.config import HUNYUAN_DIT
from framewake.engine.group import group_of
from framewake.golden import rule
from framewake.models.arrangement import ALONE, Arrangement, arrange, wasted
from framewake.models.dit import DiT, TextStates
from framewake.models.manner import Manner
from framewake.nn.rope import rope_table
from framewake.pipeline.forecast.cost import Scene, pair_operations, sent_bytes, step_operations
from framewake.weights.stores.store import Resident

NAME = "devices"
TARGET = 0.56
WARM = (1, 16, 16)  # latents of a first step that does not count
FOUND = "FRAMEWAKE_BENCH_FOUND"  # where the first process writes


def main() -> int:
    """Start the processes, or be one of them; write down what was found."""
    options = record.parser(__doc__, rounds=2)
    options.add_argument("--engine", default="torch:cpu")
    options.add_argument("--devices", type=int, default=2)
    options.add_argument("--grid", type=int, nargs=3, default=LATENTS["middle"], help="latent frames, height, width")
    options.add_argument("--model", action="store_true", help="print the model of 1 to 16 devices, and nothing else")
    given = options.parse_args()
    if given.model:
        sys.stdout.write("\n".join(modelled()) + "\n")
        return 0
    if group_of() is not None:
        measure(given)
        return 0
    with tempfile.TemporaryDirectory() as folder, clocks.Watch() as watch:
        told = {FOUND: str(Path(folder) / "found.json"), "OMP_NUM_THREADS": "1"}
        each = [own | told for own in variables(Devices(given.devices), given.engine)]
        if start([sys.executable, *sys.argv], each, given.devices) != 0:
            return 1
        found = json.loads(Path(told[FOUND]).read_text())
    found |= {"machine_was": watch.words()}
    record.write(NAME, found, [row(given, found)], has_notes=not given.no_notes)
    return int(found["sent"] != found["formula"])


class Step:
    """A step of the middle transformer with random weights; the same numbers in every process."""

    def __init__(self, engine: Counted) -> None:
        self.engine, self.dit = engine, DiT(engine, MIDDLE_DIT)
        weights = rule.weights(self.dit.shapes(), 3)
        self.store = Resident({name: engine.asarray(x) for name, x in weights.items()})

    def work(self, grid: Sequence[int], arrangement: Arrangement) -> Callable[[], tuple[float, float]]:
        """A function that makes the step: what was sent, and how long the exchanges took. Units: bytes, seconds."""
        engine, (frames, height, width) = self.engine, grid
        states = rule.input("states", (1, TEXTS["middle"][1], MIDDLE_DIT.text_width), 1)
        pooled = rule.input("pooled", (1, MIDDLE_DIT.pooled_width), 1)
        table = rope_table((frames, height // 2, width // 2), MIDDLE_DIT.rope_dims, MIDDLE_DIT.rope_theta)
        latents = engine.asarray(rule.input("latents", (1, MIDDLE_DIT.in_channels, *grid), 1))
        inputs = {
            "timestep": engine.full((1,), TIMESTEP),
            "text": TextStates(engine.asarray(states), states.shape[1:2], engine.asarray(pooled)),
            "rope": tuple(engine.asarray(x) for x in table),
            "guidance": engine.full((1,), 6000.0),
            "manner": Manner(arrangement=arrangement),
        }

        def work() -> tuple[float, float]:
            engine.forget()
            self.velocity = engine.numpy(self.dit(self.store, latents, **inputs))
            return engine.sent(), engine.seconds

        return work


def measure(given: Any) -> None:
    """The turns of one process; the first one writes what was found."""
    engine = Counted(engines.join(given.engine))
    if group_of().is_scheduler:
        return
    step, together = Step(engine), arrange(given.devices, MIDDLE_DIT.heads)
    whole = step.work(given.grid, ALONE)
    works = {
        "warm": step.work(WARM, together),
        "alone": whole if engine.rank() == 0 else lambda: (0.0, 0.0),
        "together": step.work(given.grid, together),
        "at once": whole,
    }
    turns = Turns(engine, works)
    if not turns.follow():
        turns.run("warm")
        runs: dict[str, list[np.ndarray]] = {name: [] for name in works if name != "warm"}
        velocities = {}
        for _ in range(given.rounds):
            for name, told in runs.items():
                told.append(turns.run(name))
                velocities[name] = step.velocity
                record.say(name, " ".join(f"{value:.2f}" for value in told[-1][:, :2].reshape(-1)) + " s")
        turns.close()
        gap = np.abs(velocities["together"] - velocities["alone"]).max() / np.abs(velocities["alone"]).max()
        found = {"runs": {name: [run.tolist() for run in told] for name, told in runs.items()}}
        Path(os.environ[FOUND]).write_text(json.dumps(found | judged(given, runs) | {"difference": float(gap)}))
    engines.leave()


def judged(given: Any, runs: dict[str, list[np.ndarray]]) -> dict[str, Any]:
    """Medians over the rounds. Units: seconds and bytes."""
    walls = {name: statistics.median(run[0, 0] for run in told) for name, told in runs.items()}
    alone = statistics.median(run[0, 1] for run in runs["alone"])
    busiest = statistics.median(run[:, 1].max() for run in runs["together"])
    at_once = statistics.median(run[:, 1].mean() for run in runs["at once"])
    exchanges = statistics.median(run[:, 3].max() for run in runs["together"])
    tokens, text = math.prod(given.grid) // 4, TEXTS["middle"][1]
    scene = Scene(1, tokens, text, "float32", is_composed=False, devices=given.devices)
    return {
        "alone": walls["alone"],
        "together": walls["together"],
        "ceiling": given.devices * walls["alone"] / walls["at once"],
        "exchanges": exchanges,
        "floor": walls["alone"] / given.devices + exchanges,
        "processor_alone": alone,
        "processor_busiest": busiest,
        "processor_at_once": at_once,
        "share": busiest / alone,
        "share_at_once": busiest / at_once,
        "sent": round(runs["together"][-1][:, 2].max()),
        "formula": round(sent_bytes(MIDDLE_DIT, scene, arrange(given.devices, MIDDLE_DIT.heads))),
    }


def row(given: Any, found: dict[str, Any]) -> str:
    """A row of the table."""
    is_target = found["share"] <= TARGET if given.devices == 2 else None
    share = f"{found['share']:.3f}" + {None: "", True: ", target met", False: ", TARGET MISSED"}[is_target]
    sent = f"{found['sent'] / 1e6:.3f}, " + (
        "as the formula" if found["sent"] == found["formula"] else "NOT THE FORMULA'S"
    )
    return record.line(
        [
            f"{given.engine}, {given.devices} processes, {math.prod(given.grid) // 4} tokens",
            f"{found['alone']:.2f}",
            f"{found['together']:.2f}",
            f"{found['alone'] / found['together']:.2f} of {found['ceiling']:.2f}",
            f"{found['exchanges']:.2f}",
            f"{found['floor']:.2f}",
            f"{found['processor_alone']:.2f}, {found['processor_at_once']:.2f}, {found['processor_busiest']:.2f}",
            share,
            f"{found['share_at_once']:.3f}",
            sent,
            f"{found['difference']:.0e}",
            found["machine_was"],
            record.machine(),
        ]
    )


class Kind(NamedTuple):
    """A device and its links, assumed. Units: operations a second, bytes a second, seconds an exchange."""

    name: str
    linear: float
    attention: float
    link: float
    exchange: float = 80e-6


KINDS = (
    Kind("H100, 300 GB/s", 600e12, 550e12, 300e9),
    Kind("H100 over PCIe, 20 GB/s", 450e12, 350e12, 20e9),
    Kind("Ascend 910B, 150 GB/s", 250e12, 200e12, 150e9),
    Kind("Ascend 910B, 20 GB/s", 250e12, 200e12, 20e9),
)
COUNTS = (1, 2, 4, 8, 16)
PUBLISHED = (118800, 400)  # tokens of the picture and of the text, 720x1280x129


def modelled() -> list[str]:
    """What a step of the 13B model takes by the specification's model, for each kind and number of devices."""
    lines = ["model, not measured: a step at 720x1280x129 in bfloat16; nothing is hidden behind anything"]
    for kind in KINDS:
        lines.append(
            f"{kind.name}: {kind.linear / 1e12:g} and {kind.attention / 1e12:g} TFLOP/s in linear layers and in "
            f"attention, {kind.exchange * 1e6:g} us an exchange"
        )
        alone = model_seconds(kind, 1)
        for count in COUNTS:
            seconds, arrangement = model_seconds(kind, count), arrange(count, HUNYUAN_DIT.heads)
            shape = f"{arrangement.neighbours}x{arrangement.groups}"
            lines.append(f"  {count:2d} ({shape}): {seconds:6.2f} s, {alone / seconds:5.2f} times")
    return lines


def model_seconds(kind: Kind, count: int) -> float:
    """Linear work of a share of the tokens and all text, attention by the busiest one's heads, bytes, exchanges."""
    arrangement = arrange(count, HUNYUAN_DIT.heads)
    scene = Scene(1, *PUBLISHED, "bfloat16", is_composed=False, devices=count)
    pairs = pair_operations(HUNYUAN_DIT, scene)
    blocks = HUNYUAN_DIT.double_blocks + HUNYUAN_DIT.single_blocks
    seconds = (step_operations(HUNYUAN_DIT, scene) - pairs) / kind.linear
    seconds += pairs * wasted(HUNYUAN_DIT.heads, arrangement.neighbours) / kind.attention
    if count == 1:
        return seconds
    times = 1 + blocks * (1 if arrangement.neighbours == 1 else 2)
    return seconds + sent_bytes(HUNYUAN_DIT, scene, arrangement) / kind.link + times * kind.exchange


if __name__ == "__main__":
    sys.exit(main())
