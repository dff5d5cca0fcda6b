"""How much a LoRA changes, measured from its file alone, and whether that can be intended."""

from __future__ import annotations

import math

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.lora.file import Lora
from framewake.weights.lora.updates import WeightUpdate

# What an update may add to a layer's outputs, for inputs of size one, at weight 1. The transformer's own layers give
# about 1, strong LoRAs some tenths of that, and factors of random numbers of size one at most some hundreds. Eight-bit
# numbers without their scales, of which each factor's largest is 127, 448 or more, come to 50,000 and above.
MOST_GAIN = 10_000.0
_ROWS = 1024


def square(lora: Lora, update: WeightUpdate) -> float:
    """The squared Frobenius norm of what an update adds at weight 1; of factors alone where it depends on the base.

    Raises: CheckpointError when a part holds NaN or infinity.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # told below, by name
        found = _square(lora, update) * lora.factor(update) ** 2
        parts = [lora.part(update, "magnitude")] if "magnitude" in update.keys else []
        total = found + sum(float(np.sum(part * part, dtype=np.float64)) for part in parts)
    if not math.isfinite(total):
        raise CheckpointError(f"{lora.path}: the factors of {update.module.name} hold NaN or infinity; it is damaged.")
    return max(found, 0.0)


def gain_of(update: WeightUpdate, squared: float) -> float:
    """What an update of a norm adds to a layer's outputs, for inputs of size one; their root mean square."""
    return math.sqrt(squared / (update.place.stop - update.place.start))


def check_sizes(lora: Lora) -> None:
    """Whether a LoRA's numbers can be meant.

    Raises: CheckpointError for NaN and infinity, and for changes that leave nothing of the model.
    """
    for update in lora.updates:
        found = gain_of(update, square(lora, update))
        if "magnitude" in update.keys:
            magnitude = lora.part(update, "magnitude")
            found = max(found, math.sqrt(float(np.mean(magnitude * magnitude))))
        if found > MOST_GAIN:
            kind = lora.tensors.dtype(next(iter(update.keys.values())))
            raise CheckpointError(
                f"{lora.path} would change {update.place.weight} by {found:.2g} times what its layers take in, where "
                f"about 1 is all that the model does: nothing would be left of it. It is stored as {kind}; its alpha "
                "or its scales may be missing. Take the file that it was made from."
            )


def _square(lora: Lora, update: WeightUpdate) -> float:
    def part(name: str) -> np.ndarray:
        return lora.part(update, name)

    if update.method == "product":  # from two rank by rank matrices instead of the whole product
        up, down = part("up"), part("down")
        return float(np.sum((up.T @ up) * (down @ down.T), dtype=np.float64))
    if update.method == "kronecker":
        return math.prod(_kronecker_square(lora, update, name) for name in ("lokr_w1", "lokr_w2"))
    if update.method == "hadamard":
        one, two, three, four = (part(f"hada_w{n}_{x}") for n in (1, 2) for x in "ab")
        starts = range(0, len(one), _ROWS)
        found = (((one[n : n + _ROWS] @ two) * (three[n : n + _ROWS] @ four)) for n in starts)
        return sum(float(np.sum(x * x, dtype=np.float64)) for x in found)
    values = part(update.method)
    return float(np.sum(values * values, dtype=np.float64))


def _kronecker_square(lora: Lora, update: WeightUpdate, name: str) -> float:
    if name in update.keys:
        values = lora.part(update, name)
    else:
        values = lora.part(update, f"{name}_a") @ lora.part(update, f"{name}_b")
    return float(np.sum(values * values, dtype=np.float64))
