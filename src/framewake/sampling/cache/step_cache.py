"""A wrapper of the transformer's blocks that computes some steps and approximates the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from framewake.cache import FIRST_STEPS, LAST_STEPS, CacheChoice
from framewake.engine.contract import Engine, Tensor
from framewake.errors import InputError
from framewake.sampling.cache.rules import make_rule
from framewake.sampling.cache.state import State, load_state
from framewake.sampling.cache.tokens import HeldRun, HeldTokens, spread_shape


class StepCache:
    """For one request: made with it and gone with it.

    Called once a step. ``state`` is the state after the last step: keep it, and a step that was begun and not
    finished has left no trace. ``anew`` are steps at which the blocks become another model: they are computed whatever
    the rule says, and nothing from before them takes the place of a later one. ``held``: which rank holds which
    tokens, where several share them; all of them decide alike.
    """

    def __init__(
        self,
        engine: Engine,
        choice: CacheChoice,
        count: int,
        *,
        anew: Collection[int] = (),
        held: Sequence[HeldRun] = (),
    ) -> None:
        self.engine = engine
        self._tokens = HeldTokens(engine, held)
        self.choice = choice
        self.state = State()
        self._rule = make_rule(self._tokens, choice, count)
        self._anew = frozenset(anew)
        self._must = {0, *anew}
        self._is_checked = True
        if not choice.steps:
            self._must |= {*range(min(FIRST_STEPS, count)), *range(max(count - LAST_STEPS, 0), count)}

    def save(self, state: State) -> dict[str, np.ndarray]:
        """A state as arrays for ``restore``, on one device or many; all ranks call it, and the first gets them."""
        tensors = {
            name: self._tokens.gathered(tensor, is_spread=self._is_spread(name))
            for name, tensor in sorted(state.tensors.items())
        }
        return state._replace(tensors=tensors).save(self.engine)

    def restore(self, arrays: Mapping[str, np.ndarray], steps_done: int) -> None:
        """Go on from what ``save`` gave.

        Raises: InputError when that is not the state after ``steps_done`` steps.
        """
        state = load_state(self.engine, arrays)
        if sorted((*state.computed, *state.skipped)) != list(range(steps_done)):
            raise InputError("the saved latents hold another run's step cache: delete the file and start anew.")
        self.state, self._is_checked = state, False

    def __call__(self, stack: Any, image: Tensor) -> Tensor:
        """Image tokens after all blocks, computed or not. Shapes: (B, N, D) -> (B, N, D)."""
        if not self._is_checked:
            self._check(image)
        state = self.state
        number = len(state.computed) + len(state.skipped)
        if number in self._anew:
            state = State(state.computed, state.skipped)
        look = self._rule.look(stack, image, state)
        if look.is_near and number not in self._must:
            self.state = state._replace(
                skipped=(*state.skipped, number),
                tensors={**state.tensors, **look.tensors},
                numbers={**state.numbers, **look.numbers},
            )
            return self._instead(look.base, number, state)
        out = look.compute()
        tensors, numbers = self._rule.learn(look, image, out, state)
        past, times = self._past(look.base, out, number, state)
        self.state = state._replace(
            computed=(*state.computed, number), tensors={**tensors, **past}, numbers={**numbers, "times": times}
        )
        return out

    def _check(self, image: Tensor) -> None:
        """Whether a restored state belongs to tokens of this shape; nobody knows it any sooner.

        Raises: InputError when an array is missing, strange or of another size.
        """
        state, times = self.state, self.state.numbers.get("times", ())
        whole = self._tokens.whole_shape(tuple(image.shape))
        expected = {f"past{age}": whole for age in range(len(times))}
        expected |= dict.fromkeys(self._rule.remembered, spread_shape(whole))
        found = {name: tuple(tensor.shape) for name, tensor in state.tensors.items()}
        counts = {len(values) for name, values in state.numbers.items() if name != "times"}
        if found != expected or not 1 <= len(times) <= self.choice.order + 1 or not counts <= {whole[0]}:
            wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
            raise InputError(
                f"the saved latents hold a step cache of another size ({', '.join(wrong) or 'its numbers'}): "
                "delete the file and start anew."
            )
        tensors = {n: self._tokens.part(x, is_spread=self._is_spread(n)) for n, x in state.tensors.items()}
        self.state, self._is_checked = state._replace(tensors=tensors), True

    def _is_spread(self, name: str) -> bool:
        """Whether a tensor of the state has only the spread tokens: those of the rules."""
        return name in self._rule.remembered

    def _past(self, base: Tensor, out: Tensor, number: int, state: State) -> tuple[dict[str, Tensor], tuple]:
        """What later steps are made of: the change through the blocks, or the outputs of the last computed steps."""
        if self.choice.order == 0:
            return {"past0": out - base}, (float(number),)
        times = (float(number), *state.numbers.get("times", ()))[: self.choice.order + 1]
        older = {f"past{age}": state.tensors[f"past{age - 1}"] for age in range(1, len(times))}
        return {"past0": out, **older}, times

    def _instead(self, base: Tensor, number: int, state: State) -> Tensor:
        """What a skipped step gives.

        Order 0 adds the last computed change; higher orders go on along the polynomial through the last outputs
        (for evenly spaced steps, Taylor's with backward differences).
        Source: Liu et al., "From Reusing to Forecasting: Accelerating Diffusion Models with TaylorSeers".
        """
        kind = self.engine.dtype(base)
        newest = self.engine.cast(state.tensors["past0"], kind)
        if self.choice.order == 0:
            return base + newest
        times, out = state.numbers["times"], newest
        for age in range(1, len(times)):
            # Weights add up to 1, so only differences are scaled: those are small, and exact in half precision.
            older = self.engine.cast(state.tensors[f"past{age}"], kind)
            out = out + (older - newest) * lagrange(times, age, float(number))
        return out


def lagrange(times: tuple[float, ...], index: int, at: float) -> float:
    """Weight of value ``index`` in the polynomial through all values, at a time outside them."""
    factors = [(at - t) / (times[index] - t) for place, t in enumerate(times) if place != index]
    return float(np.prod(factors))
