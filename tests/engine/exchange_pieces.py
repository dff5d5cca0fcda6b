"""What ranks send each other in tests: which piece, of which shape, with which numbers."""

from __future__ import annotations

import numpy as np

LAYOUTS = ("even", "uneven", "turned", "to the first", "none")
KINDS = ("float32", "float16", "bfloat16", "int64", "bool")


def shapes(layout: str, source: int, target: int) -> tuple[int, ...]:
    """What rank ``source`` sends to rank ``target``."""
    return {
        "even": (2, 3),
        "uneven": (1 + source, 2 + target),
        "turned": (3, 2, 2),
        "to the first": (4, 1 + source) if target == 0 else (0,),
        "none": (0, 3),
    }[layout]


def piece(layout: str, source: int, target: int, kind: str) -> np.ndarray:
    """Its numbers, small and whole: exact in every type. Some pieces are views in another order."""
    shape = shapes(layout, source, target)
    values = (np.arange(np.prod(shape)).reshape(shape) + 5 * source + 11 * target) % 97
    if layout == "turned":
        values = np.ascontiguousarray(values.T).T
    return values % 2 == 1 if kind == "bool" else values.astype("int64" if kind == "int64" else "float32")
