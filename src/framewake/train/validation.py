"""The loss on clips that training never sees: always the same noise at the same levels, so that it can be compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framewake.errors import InputError
from framewake.train.data import Example, some
from framewake.train.draws import HELD, LEVELS, generator
from framewake.train.encode import Prepared
from framewake.train.events import Validated
from framewake.train.settings import Training

SHARE = 0.1
MOST_SHARE = 0.5


class HeldOut(NamedTuple):
    """An encoded clip that is left out; ``digest`` is that of its content."""

    clip: Prepared
    digest: str


def parted(
    examples: list[Example],
    settings: Training,
    read: Callable[[Path], list[Example]],
    *,
    too_few: InputError | None = None,
) -> tuple[list[Example], list[Example]]:
    """The examples to train on, and those to validate with: none where validation is not asked for.

    ``read`` gives the examples of another place, ``too_few`` is raised where there is a single clip. Which ones a share
    leaves out depends on the seed and on what is in the clips, not on their names.
    Raises: InputError for a share that is none, too few clips, or clips that are in both.
    """
    if not settings.validate_every:
        return examples, []
    share = _share(settings.validation)
    if share is None:
        held = read(Path(str(settings.validation)))
        known = {example.digest for example in held}
        both = [example.path.name for example in examples if example.digest in known]
        if both:
            raise InputError(f"{some(both)}: trained on and in --validation {settings.validation}; take one copy away.")
        return examples, held
    digests = sorted({example.digest for example in examples})
    if len(digests) < 2:
        alone = "there is one clip only, none can be left out: name others with --validation DIR."
        raise too_few or InputError(alone)
    mixed = generator(settings.seed, HELD, 0).permutation(len(digests))
    left_out = {digests[i] for i in mixed[: max(round(share * len(digests)), 1)]}
    training = [example for example in examples if example.digest not in left_out]
    return training, [example for example in examples if example.digest in left_out]


def validated(step: int, held: list[HeldOut], loss_of: Callable[[HeldOut, int], float]) -> Validated:
    """The mean loss at each level; ``loss_of`` gives that of a clip at the level of a number."""
    levels = {f"{level:g}": float(np.mean([loss_of(each, n) for each in held])) for n, level in enumerate(LEVELS)}
    return Validated(step, float(np.mean(list(levels.values()))), levels)


def _share(text: str | None) -> float | None:
    """The share that a text means, None when it is a folder."""
    if text is None:
        return SHARE
    try:
        share = float(text)
    except ValueError:
        return None
    if Path(text).exists():
        return None
    if not 0 < share <= MOST_SHARE:
        raise InputError(f"--validation is {text}: expected a folder, or a share of the clips up to {MOST_SHARE}.")
    return share
