"""The benchmark of the autoencoder, in one direction."""

from __future__ import annotations

import functools

from measuring import pairs15, record, side_by_side
from measuring.floors import fewest_operations
from measuring.pairs import vae_pair


def run(name: str, description: str | None, *, is_decode: bool) -> int:
    """Time the autoencoder here and in diffusers, write down what was found."""
    arguments = side_by_side.parser(description).parse_args()
    found, rows, references = {}, [], {}
    for size in arguments.sizes:
        for dtype in arguments.types:
            second = size == pairs15.NAME
            make = pairs15.vae_pair if second else functools.partial(vae_pair, size)
            pair = make(dtype, is_decode=is_decode)
            operations = fewest_operations(pair.ours, pair.theirs)
            case = side_by_side.case(pair, dtype, arguments.rounds, references, size=size, operations=operations)
            found[f"{size} {dtype}"] = case
            rows.append(side_by_side.row(f"{size}, {dtype}", case))
    record.write(name, {"cases": found}, rows, has_notes=not arguments.no_notes)
    return 0
