"""The step cache of one run: made for it, saved with its latents, and what it saved in steps."""

from __future__ import annotations

import statistics

import numpy as np

from framewake.engine.contract import Engine
from framewake.lora import LoraUse
from framewake.models.arrangement import Division
from framewake.pipeline.events import Cached
from framewake.pipeline.jobs import Plan
from framewake.pipeline.latents import SavedLatents
from framewake.sampling.cache.state import State
from framewake.sampling.cache.step_cache import StepCache
from framewake.sampling.cache.tokens import HeldRun


class Caching:
    """A step cache that is told when a step is done; ``run_blocks`` is None when the plan has none."""

    def __init__(
        self,
        engine: Engine,
        plan: Plan,
        uses: tuple[LoraUse, ...],
        *,
        division: Division,
        start: SavedLatents | None = None,
    ) -> None:
        self.engine = engine
        self.run_blocks: StepCache | None = None
        self._done = State()
        self._seconds: dict[bool, list[float]] = {True: [], False: []}  # of skipped steps and of computed ones
        if plan.cache is None:
            return
        count = plan.request.steps
        held = [HeldRun(*run) for run in division.held] if division.arrangement.size > 1 else ()
        self.run_blocks = StepCache(engine, plan.cache, count, anew=weight_changes(uses, count), held=held)
        if start is not None:
            self.run_blocks.restore(start.cache, start.step)
            self._done = self.run_blocks.state

    def finish_step(self, seconds: float) -> bool:
        """Note that a step is done, all of it; whether it was skipped."""
        if self.run_blocks is None:
            return False
        state = self.run_blocks.state
        is_skipped = len(state.skipped) > len(self._done.skipped)
        self._done = state
        self._seconds[is_skipped].append(seconds)
        return is_skipped

    def arrays(self) -> dict[str, np.ndarray]:
        """What has to be saved beside the latents of the last finished step; all devices of a clip call it."""
        return {} if self.run_blocks is None else self.run_blocks.save(self._done)

    def report(self) -> Cached | None:
        """Steps computed and skipped, and about how many seconds that saved in this process."""
        if self.run_blocks is None:
            return None
        skipped, computed = self._seconds[True], self._seconds[False]
        saved = 0.0
        if skipped and computed:
            saved = max(len(skipped) * statistics.median(computed) - sum(skipped), 0.0)
        return Cached(len(self._done.computed), len(self._done.skipped), saved)


def weight_changes(uses: tuple[LoraUse, ...], count: int) -> set[int]:
    """Steps at which a LoRA gets another weight: what was computed before belongs to another model."""
    return {n for n in range(1, count) if any(use.weight(n) != use.weight(n - 1) for use in uses)}
