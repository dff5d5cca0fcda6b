"""Do first frames know which of two shapes a prompt names? A look at a training run in which no clip is made."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

import numpy as np

from demonstration import transformer
from demonstration.foresight import HEAD, FirstFrames, double_blocks, first_tokens, fitted_head
from demonstration.pool import frozen_vae
from demonstration.state import begun_state, read_scale
from framewake.engine.contract import Engine

log = logging.getLogger(__name__)
BATCHES = 10  # of 64 prompts


class Known(NamedTuple):
    """Numbers of pictures with two shapes: all, those whose named shape was found, those whose named kind was."""

    of: int
    named: int
    kinds: int


def look_at_names(engine: Engine, folder: Path) -> dict[str, Known]:
    """What the transformer of a run knows, as prompts come and where they name a shape by its kind alone.

    Raises: InputError when there is nothing to look at yet.
    """
    state = begun_state(folder / "dit.safetensors")
    model = transformer.Model(engine, transformer.Texts(folder))
    weights = {n: engine.asarray(a) for n, a in state.average.items()}
    source = engine, frozen_vae(engine, folder), model.texts, read_scale(folder)
    head, blocks = fitted_head(model, weights, FirstFrames(*source)), double_blocks(model)
    found = {}
    for words, bare in (("as prompts come", 0.0), ("by the kind alone", 1.0)):
        frames, rng = FirstFrames(*source, bare=bare), np.random.default_rng(3)
        total = np.zeros(3, int)
        for _ in range(BATCHES):
            glances = frames.draw(rng)
            tokens = engine.numpy(first_tokens(model, blocks, weights, glances))
            said = tokens @ head[HEAD + "weight"].T + head[HEAD + "bias"]
            total += count_known(said, glances.covered, is_by_kind=bare == 1)
        found[words] = Known(*(int(n) for n in total))
        log.info("of %d pictures, %s: %d named shapes found, %d named kinds", total[0], words, *total[1:])
    return found


def count_known(said: np.ndarray, covered: np.ndarray, *, is_by_kind: bool) -> Known:
    """Count pictures of two shapes, of two kinds where ``is_by_kind``. Shapes: both (B, tokens, 1 + kinds)."""
    of = named = kinds = 0
    for says, covers in zip(said, covered, strict=True):
        place = covers[:, 0]
        other = covers[:, 1:].sum(axis=1) - place
        differ = np.count_nonzero(covers[:, 1:].any(axis=0)) == 2
        if other.sum() < 1e-3 or (is_by_kind and not differ):
            continue
        of += 1
        named += says[:, 0] @ place / place.sum() > says[:, 0] @ other / other.sum()
        kinds += np.argmax(place @ says[:, 1:]) == np.argmax(place @ covers[:, 1:])
    return Known(of, int(named), int(kinds))
