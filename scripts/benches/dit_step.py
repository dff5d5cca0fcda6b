"""One step of the transformer against diffusers: the same weights and inputs, in turns, in one process.

The demonstration's own transformer, and a random one of middle size (hidden 768, 4 + 8 blocks, 5,184 image tokens).
With --sizes middle-1.5 that of HunyuanVideo-1.5 (8 blocks as wide, as many tokens): wanted is 0.9 of diffusers' time.
Texts are padded for diffusers as its pipeline pads them; here padding is never computed.
"""

from __future__ import annotations

import sys

from measuring import pairs15, record, side_by_side
from measuring.middle import TEXTS
from measuring.pairs import dit_pair

from framewake.pipeline.forecast.cost import Scene, step_operations

NAME = "dit-step"


def main() -> int:
    """Time the steps, write down what was found."""
    options = side_by_side.parser(__doc__)
    options.add_argument("--grid", type=int, nargs=3, help="another latent size for the middle one")
    arguments = options.parse_args()
    found, rows, references = {}, [], {}
    for size in arguments.sizes:
        for dtype in arguments.types:
            case = measured(size, dtype, arguments, references)
            found[f"{size} {dtype}"] = case
            rows.append(side_by_side.row(f"{size}, {dtype}, {case['tokens']} tokens", case))
    record.write(NAME, {"cases": found}, rows, has_notes=not arguments.no_notes)
    return 0


def measured(size: str, dtype: str, arguments, references: dict) -> dict:
    """One size in one type."""
    grid, is_second = tuple(arguments.grid) if arguments.grid and size != "demo" else None, size == pairs15.NAME
    pair = pairs15.dit_pair(dtype, grid=grid) if is_second else dit_pair(size, dtype, grid=grid)
    rounds = arguments.rounds if size == "demo" else max(2, (arguments.rounds + 1) // 2)
    text = pairs15.SEEN + sum(pairs15.VALID) if is_second else TEXTS[size][1]
    scene = Scene(1, pair.tokens, text, dtype, False)
    operations = step_operations(pair.config, scene)
    case = side_by_side.case(pair, dtype, rounds, references, size=size, operations=operations)
    return case | {"tokens": scene.joined}


if __name__ == "__main__":
    sys.exit(main())
