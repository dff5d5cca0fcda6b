"""How a model works: what changes time and memory, and nothing that a person could see."""

from __future__ import annotations

from dataclasses import dataclass

from framewake.models.arrangement import ALONE, Arrangement


@dataclass(frozen=True)
class Manner:
    """Handed in with each call, and part of the key of what is compiled.

    ``is_compiled``: the transformer's blocks are compiled once for each size; ``chunk_tokens``: they work through so
    many tokens at a time; ``slab_numbers``: the decoder works through a tile a few frames at a time, of so many
    numbers; ``recomputes``: each run of tokens is computed again for a gradient. None: all at once, or as the engine
    does it by itself. ``arrangement``: how devices share the transformer.
    """

    is_compiled: bool = False
    chunk_tokens: int | None = None
    slab_numbers: int | None = None
    recomputes: bool = False
    arrangement: Arrangement = ALONE


PLAIN = Manner()
