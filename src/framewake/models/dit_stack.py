"""All blocks of one call of the transformer, as a function of the image tokens that may be run whole, in part or not.

Step caches are wrappers of this function. Nothing is asked of the weights before a block is run, so a step that is
skipped streams nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.models.dit_blocks import TokenCounts
from framewake.models.dit_shares import Share
from framewake.models.source import WeightSource
from framewake.nn.modulation import modulation_vectors, normed_and_modulated
from framewake.nn.rope import with_plain_tokens


class Surroundings(NamedTuple):
    """What the blocks get beside the image tokens; ``lengths`` where they are not built into the blocks.

    Among several devices, all of it is of this one's ``share``.

    Shapes: text (B, T, D), conditions (B, D) per image group, rope two (N, E).
    """

    text: Tensor
    conditions: tuple[Tensor, ...]
    rope: tuple[Tensor, Tensor]
    counts: TokenCounts
    share: Share
    lengths: Any = None


class BlockStack:
    """Image tokens through every block. Shapes: (B, N, D) -> (B, N, D)."""

    def __init__(
        self,
        engine: Engine,
        config: DiTConfig,
        weights: WeightSource,
        blocks: tuple[Callable, Callable],
        around: Surroundings,
        see: Callable[[str, Tensor], None],
    ) -> None:
        self.engine = engine
        self.config = config
        self.around = around
        self._weights = weights
        self._double, self._single = blocks
        self._see = see
        self._rest: Iterator[Weights] | None = None
        self._first: Weights | None = None

    def __call__(self, image: Tensor) -> Tensor:
        """Everything."""
        return self.after(self.first(image))

    def signal(self, image: Tensor) -> Tensor:
        """What the first block sees of the image: normed, and modulated by the timestep. Shapes: (B, N, D)."""
        engine, around = self.engine, self.around
        vectors = modulation_vectors(engine, self._first_weights(), "img_mod.linear", around.conditions, 6)
        shifts, scales = [each[0] for each in vectors], [each[1] for each in vectors]
        return normed_and_modulated(engine, image, around.counts.image, shifts, scales)

    def first(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Image and text tokens after the first double block."""
        text = self.around.text
        if self.config.double_blocks == 0:
            return image, text
        return self._through(0, self._first_weights(), image, text)

    def after(self, started: tuple[Tensor, Tensor]) -> Tensor:
        """The image tokens after all blocks, from what ``first`` gave."""
        engine, around = self.engine, self.around
        image, text = started
        del started  # at full size each of these is most of a gigabyte
        self._first = None  # and so is a block, of which streamed weights have room for two
        for number, w in enumerate(self._rest or (), start=1):
            image, text = self._through(number, w, image, text)
        self._rest = None
        x = engine.concat([image, text], 1)
        del image, text
        rope = with_plain_tokens(engine, around.rope[0], around.rope[1], around.counts.text)
        for number, w in enumerate(self._weights.blocks("single_blocks", self.config.single_blocks)):
            x = self._single(w, x, around.conditions, rope, around.lengths)
            self._see(f"single_{number}", x)
        return x[:, : sum(around.counts.image)]

    def _through(self, number: int, w: Weights, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        around = self.around
        image, text = self._double(w, image, text, around.conditions, around.rope, around.lengths)
        self._see(f"double_{number}_img", image)
        self._see(f"double_{number}_txt", text)
        return image, text

    def _first_weights(self) -> Weights:
        """The first double block's weights, taken once: a store that streams would read them twice."""
        if self._first is None:
            self._rest = iter(self._weights.blocks("double_blocks", self.config.double_blocks))
            self._first = next(self._rest)
        return self._first
