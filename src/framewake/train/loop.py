"""Update after update, saved on the way and however it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol

import numpy as np

from framewake.engine.contract import Dtype
from framewake.errors import NumericsError
from framewake.pipeline.events import Note
from framewake.pipeline.run import Pipeline
from framewake.train.batch import fixed_batch, load_batch
from framewake.train.cache import Cache
from framewake.train.draws import Sized, batch_of
from framewake.train.encode import Prepared
from framewake.train.events import Sampled, Saved, Trained, TrainingEvent, Update, Validated
from framewake.train.log import Log
from framewake.train.optimiser import OptimiserState, learning_rate, norm_of, updated
from framewake.train.settings import Training
from framewake.train.share import TrainingShare
from framewake.train.validation import HeldOut, validated
from framewake.train.walk import Gradients, Walk

Events = Generator[TrainingEvent | Note, None, None]
LOSS = "loss"  # travels with the gradients
SAVE_SECONDS = 600.0  # between saved states at the most: an update may take minutes


class Saver(Protocol):
    """Where a run's results go."""

    @property
    def log(self) -> Log:
        """The table of updates."""

    def save(self, state: OptimiserState) -> Saved:
        """The LoRA and the state of an update, on disk."""

    def sample(self, pipeline: Pipeline, step: int) -> Generator[Note | Sampled, None, None]:
        """A clip with the LoRA that was just saved."""


class Feed(NamedTuple):
    """What updates are made from, and what they are validated with."""

    cache: Cache
    clips: list[Prepared]
    dtype: Dtype
    held: list[HeldOut]
    share: TrainingShare


class Loop:
    """The updates of a run."""

    def __init__(
        self,
        settings: Training,
        pipeline: Pipeline,
        walk: Walk,
        feed: Feed,
        saver: Saver,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.settings, self.pipeline, self.walk, self.feed, self.saver = settings, pipeline, walk, feed, saver
        self.engine = pipeline.engine
        self._clock = clock

    def run(self, state: OptimiserState) -> Events:
        """To the last update."""
        settings, clock = self.settings, self._clock
        begin = before = saved_at = clock()
        first = saved = state.step
        recent: list[float] = []
        try:
            if first == 0 and (found := self._validated(state)) is not None:  # what the checkpoint alone does
                yield found
                begin = before = clock()
            while state.step < settings.steps:
                state, loss, norm = self._update(state)
                recent = [*recent, loss][-max(settings.steps // 10, 1) :]
                now = clock()
                left = (now - begin) / (state.step - first) * (settings.steps - state.step)
                rate = learning_rate(settings, state.step)
                average = self.saver.log.smoothed(loss)
                done = Update(state.step, settings.steps, loss, average, norm, rate, now - before, left)
                self.saver.log.add(done)
                yield done
                if (diverged := self.saver.log.diverged(done)) is not None:
                    yield diverged
                before = now
                if (found := self._validated(state)) is not None:
                    yield found
                    before = clock()
                is_sampled = bool(settings.sample_every) and state.step % settings.sample_every == 0
                is_due = state.step % settings.save_every == 0 or now - saved_at >= SAVE_SECONDS
                if is_due or is_sampled or state.step == settings.steps:
                    written = self.saver.save(state)
                    saved, saved_at = state.step, now
                    yield written
                if is_sampled:
                    yield from self.saver.sample(self.pipeline, state.step)
                    before = clock()
        finally:
            if saved < state.step:
                self.saver.save(state)
        mean = sum(recent) / len(recent)
        yield Trained(written.path, state.step, mean, clock() - begin)

    def follow(self, state: OptimiserState) -> None:
        """The same updates in a process that another one leads."""
        while state.step < self.settings.steps:
            state, _, _ = self._update(state)

    def _validated(self, state: OptimiserState) -> Validated | None:
        """The loss on the clips that were left out, where it is time, in the log too."""
        settings, feed = self.settings, self.feed
        every = settings.validate_every
        if not feed.held or (state.step % every and state.step != settings.steps):
            return None
        store = self.pipeline.parts.get("dit", feed.dtype).weights

        def loss_of(each: HeldOut, level: int) -> float:
            batch = fixed_batch(self.engine, feed.cache, each.clip, each.digest, level=level)
            return self.walk.value(state.factors, store, batch)

        found = validated(state.step, feed.held, loss_of)
        self.saver.log.add_validation(found)
        return found

    def _update(self, state: OptimiserState) -> tuple[OptimiserState, float, float]:
        """One update: the next state, its loss, and the norm of its gradient.

        Raises: NumericsError for NaN and infinity.
        """
        settings = self.settings
        # Asked for anew each time: a sample clip may have let it go.
        store = self.pipeline.parts.get("dit", self.feed.dtype).weights
        total: Gradients = {}
        share = self.feed.share
        share.begin()
        kinds = [Sized(clip.latent, clip.batch) for clip in self.feed.clips]
        for part in range(settings.accumulation):
            number = (state.step * settings.accumulation + part) * share.size + share.rank
            indices = batch_of(kinds, seed=settings.seed, number=number)
            clips = [self.feed.clips[i] for i in indices]
            loss, found = self.walk(
                state.factors, store, load_batch(self.engine, self.feed.cache, clips, settings, number=number)
            )
            found[LOSS] = np.asarray([loss], np.float32)
            total = added(total, found, settings.accumulation * share.size)
            del found
        total = share.summed(total)
        mean = float(total.pop(LOSS)[0])
        norm = norm_of(self.engine, total)
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise NumericsError(
                f"the loss is {mean} and the gradient's norm {norm} at update {state.step + 1}: try a smaller --lr, "
                "or --precision float32. The update before is saved."
            )
        rate = learning_rate(settings, state.step + 1)
        after = updated(self.engine, state, total, norm=norm, rate=rate, weight_decay=settings.weight_decay)
        return after, mean, norm


def added(total: Gradients, found: Gradients, count: int) -> Gradients:
    """A sum of ``count`` gradients' shares, with another one; tensor by tensor, so that none is there twice."""
    if count == 1:
        return found
    share = np.float32(1 / count)
    for name in list(found):
        gradient = found.pop(name) * share
        total[name] = gradient + total[name] if name in total else gradient
    return total
