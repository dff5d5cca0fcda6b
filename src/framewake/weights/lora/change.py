"""What one update adds to its rows of a weight, for each method.

Precision: float32 throughout; the caller rounds once.
Source: the papers of LoRA, DoRA (W' = m (W + BA) / |W + BA|), LoHa (a Hadamard product of two products) and LoKr (a
Kronecker product); parts and scales as PEFT and LyCORIS write them.
"""

from __future__ import annotations

from collections.abc import Callable

from framewake.engine.contract import Engine, Tensor
from framewake.weights.lora.updates import WeightUpdate

_TINY, _HUGE = 1e-12, 3e38  # a row of zeros has no direction and stays what it is
# A part of an update as a matrix on the device.
Read = Callable[[str], Tensor]


def change(engine: Engine, update: WeightUpdate, read: Read, base: Tensor, *, factor: float, scale: float) -> Tensor:
    """What an update adds at a scale; ``factor`` is alpha over rank, or what stands for it.

    With magnitudes (DoRA), the whole change is scaled, as ComfyUI does: a scale of 0 is the base itself, where PEFT
    would scale only what stands inside of the norm. Every LoRA is measured against the base, so their order is of
    no account.
    Shapes: base (rows, columns) -> (rows, columns).
    """
    if update.method == "value":
        return (_turned(engine, update, read("value")) - base) * scale
    if "magnitude" not in update.keys:
        return _turned(engine, update, _added(engine, update, read, factor * scale))
    # In the order of rows that the file has, for magnitudes may be by row.
    old = _turned(engine, update, base)
    new = old + _added(engine, update, read, factor)
    magnitude = read("magnitude")
    axis = 1 if magnitude.shape[0] == new.shape[0] and magnitude.shape[1] == 1 else 0
    norm = engine.clip(engine.sqrt(engine.sum(new * new, (axis,), keepdims=True)), _TINY, _HUGE)
    return _turned(engine, update, (new * (magnitude / norm) - old) * scale)


def _added(engine: Engine, update: WeightUpdate, read: Read, factor: float) -> Tensor:
    match update.method:
        case "product":
            added = engine.matmul(read("up"), read("down"))
        case "hadamard":
            first = engine.matmul(read("hada_w1_a"), read("hada_w1_b"))
            added = first * engine.matmul(read("hada_w2_a"), read("hada_w2_b"))
        case "kronecker":
            added = _kronecker(engine, *(_matrix(engine, update, read, name) for name in ("lokr_w1", "lokr_w2")))
        case _:
            added = read("difference")
    return added if factor == 1.0 else added * factor  # which would change no bit, and take a fifth of the time


def _matrix(engine: Engine, update: WeightUpdate, read: Read, name: str) -> Tensor:
    return read(name) if name in update.keys else engine.matmul(read(f"{name}_a"), read(f"{name}_b"))


def _kronecker(engine: Engine, one: Tensor, other: Tensor) -> Tensor:
    """Every number of the one times all of the other. Shapes: (a, b), (c, d) -> (ac, bd)."""
    (a, b), (c, d) = one.shape, other.shape
    product = engine.reshape(one, (a, 1, b, 1)) * engine.reshape(other, (1, c, 1, d))
    return engine.reshape(product, (a * c, b * d))


def _turned(engine: Engine, update: WeightUpdate, rows: Tensor) -> Tensor:
    """Rows of the file in our order, and back."""
    if not update.place.is_swapped:
        return rows
    half = rows.shape[0] // 2
    return engine.concat([rows[half:], rows[:half]], 0)
