"""When a step may be skipped: each rule looks at what it can see without computing the step.

A rule gets the state of the last step and gives what it wants to remember. Numbers are one a sample: with classic
guidance each branch has its own, and a step is skipped only when every branch allows it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np

from framewake.cache import CacheChoice
from framewake.engine.contract import Tensor
from framewake.sampling.cache.state import State
from framewake.sampling.cache.tokens import HeldTokens

# From the change of what the first block sees to the change of what the last one gives, fitted by TeaCache's authors
# for HunyuanVideo (Liu et al., "Timestep Embedding Tells", CVPR 2025); highest power first.
TEA = (7.33226126e02, -4.01131952e02, 6.75869174e01, -3.14987800e00, 9.61237896e-02)


class Look(NamedTuple):
    """What a rule saw: ``base`` is what a skipped step adds to, ``compute`` makes the step after all.

    ``tensors`` and ``numbers`` are remembered also of a skipped step.
    """

    is_near: bool
    base: Tensor
    compute: Callable[[], Tensor]
    tensors: Mapping[str, Tensor] = {}
    numbers: Mapping[str, tuple[float, ...]] = {}


class Rule(Protocol):
    """Decides by what it sees. ``remembered`` are the tensors of spread tokens that a state has for it."""

    remembered: tuple[str, ...]

    def look(self, stack: Any, image: Tensor, state: State) -> Look:
        """Before a step: may it be skipped?"""

    def learn(self, look: Look, image: Tensor, out: Tensor, state: State) -> tuple[dict, dict]:
        """After a computed step: tensors and numbers to remember."""


class Scheduled:
    """Known beforehand: every so many steps, or a list."""

    remembered: tuple[str, ...] = ()

    def __init__(self, computed: frozenset[int]) -> None:
        self.computed = computed

    def look(self, stack: Any, image: Tensor, state: State) -> Look:
        """Near unless the step's number is on the list."""
        number = len(state.computed) + len(state.skipped)
        return Look(number not in self.computed, image, lambda: stack(image))

    def learn(self, look: Look, image: Tensor, out: Tensor, state: State) -> tuple[dict, dict]:
        """Nothing to remember."""
        return {}, {}


class FirstBlock:
    """The first block is computed; what it adds must have changed by less than the threshold since the last step.

    Source: ParaAttention's first-block cache.
    """

    remembered: tuple[str, ...] = ("change",)

    def __init__(self, tokens: HeldTokens, threshold: float) -> None:
        self.tokens = tokens
        self.threshold = threshold

    def look(self, stack: Any, image: Tensor, state: State) -> Look:
        """Compares what the first block adds with what it added at the last computed step."""
        started = stack.first(image)
        change = self.tokens.spread(started[0] - image)
        numbers = {}
        if "change" in state.tensors:
            numbers["total"] = relative(self.tokens, change, state.tensors["change"])
        is_near = bool(numbers) and _below(numbers["total"], self.threshold)
        return Look(is_near, started[0], lambda: stack.after(started), {}, numbers)

    def learn(self, look: Look, image: Tensor, out: Tensor, state: State) -> tuple[dict, dict]:
        """What the first block added this time."""
        return {"change": self.tokens.spread(look.base - image)}, {}


class Tea:
    """Sums up, through the published polynomial, how far the first block's input has moved since the last step.

    Source: Liu et al., "Timestep Embedding Tells: It's Time to Cache for Video Diffusion Model" (TeaCache).
    """

    remembered: tuple[str, ...] = ("signal",)

    def __init__(self, tokens: HeldTokens, threshold: float) -> None:
        self.tokens = tokens
        self.threshold = threshold

    def look(self, stack: Any, image: Tensor, state: State) -> Look:
        """Adds this step's movement to what was moved since the last computed step."""
        signal = self.tokens.spread(stack.signal(image))
        total = state.numbers.get("total", (0.0,) * self.tokens.samples(image))
        is_near = "signal" in state.tensors
        if is_near:
            moved = relative(self.tokens, signal, state.tensors["signal"])
            total = tuple(t + float(np.polyval(TEA, m)) for t, m in zip(total, moved, strict=True))
            is_near = _below(total, self.threshold)
        return Look(is_near, image, lambda: stack(image), {"signal": signal}, {"total": total})

    def learn(self, look: Look, image: Tensor, out: Tensor, state: State) -> tuple[dict, dict]:
        """A new beginning."""
        return dict(look.tensors), {"total": (0.0,) * self.tokens.samples(image)}


class Easy:
    """Sums up how far the output should have moved since it was computed, from how far the input has.

    The ratio of both is measured in the run itself, at each computed step against the one before.
    Source: Zhou et al., "Less is Enough: Training-Free Video Diffusion Acceleration via Runtime-Adaptive Caching"
    (EasyCache), there on latents and velocities, here on the tokens before and after the blocks.
    """

    remembered: tuple[str, ...] = ("input", "computed_input", "output")

    def __init__(self, tokens: HeldTokens, threshold: float) -> None:
        self.tokens = tokens
        self.threshold = threshold

    def look(self, stack: Any, image: Tensor, state: State) -> Look:
        """Adds this step's expected movement to what was expected since the last computed step."""
        here = self.tokens.spread(image)
        total = state.numbers.get("total", (0.0,) * self.tokens.samples(image))
        is_near = state.numbers.keys() >= {"rate", "size"}
        if is_near:
            (moved,) = self.tokens.means(here - state.tensors["input"])
            parts = zip(total, moved, state.numbers["rate"], state.numbers["size"], strict=True)
            total = tuple(t + rate * m / max(size, TINY) for t, m, rate, size in parts)
            is_near = _below(total, self.threshold)
        return Look(is_near, image, lambda: stack(image), {"input": here}, {"total": total})

    def learn(self, look: Look, image: Tensor, out: Tensor, state: State) -> tuple[dict, dict]:
        """Input and output at this step, and the ratio of their movements since the last computed one."""
        here, there = look.tensors["input"], self.tokens.spread(out)
        numbers = {"total": (0.0,) * self.tokens.samples(image)}
        if "output" not in state.tensors:
            (numbers["size"],) = self.tokens.means(there)
        else:
            moves = here - state.tensors["computed_input"], there - state.tensors["output"]
            numbers["size"], inwards, outwards = self.tokens.means(there, *moves)
            numbers["rate"] = tuple(o / max(i, TINY) for o, i in zip(outwards, inwards, strict=True))
        return {"input": here, "computed_input": here, "output": there}, numbers


TINY = 1e-30


def make_rule(tokens: HeldTokens, choice: CacheChoice, count: int) -> Rule:
    """The rule of a choice for a run of ``count`` steps."""
    computed = choice.schedule(count)
    if computed is not None:
        return Scheduled(computed)
    made: dict[str, Rule] = {
        "first-block": FirstBlock(tokens, choice.threshold),
        "tea": Tea(tokens, choice.threshold),
        "easy": Easy(tokens, choice.threshold),
    }
    return made[choice.rule]


def relative(tokens: HeldTokens, x: Tensor, before: Tensor) -> tuple[float, ...]:
    """Mean distance over mean size, for each sample."""
    moved, size = tokens.means(x - before, before)
    return tuple(m / max(s, TINY) for m, s in zip(moved, size, strict=True))


def _below(values: tuple[float, ...], threshold: float) -> bool:
    """Whether all are below; at threshold 0 nothing is, whatever a polynomial makes of it."""
    return threshold > 0 and all(value < threshold for value in values)
