"""How long a running video still takes: the forecast, corrected by the run's actual pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from framewake.pipeline.events import STAGES, Event, Stage, StageFinished, StageStarted, Step, Tile, Written
from framewake.pipeline.jobs import Plan

LEAST = 1.0  # second: there is something left until the video is completed
# Of all work, when there is no forecast.
SHARES: Mapping[str, float] = {
    "read image": 0.01,
    "encode text": 0.05,
    "encode image": 0.04,
    "denoise": 0.75,
    "enlarge": 0.0,  # of few videos
    "decode": 0.12,
    "write": 0.03,
}
STILL = 0.1  # share of a stage's seconds that is left at least while it goes on without a word
TELLING = 0.2  # share of all work that a stage must have to tell something of the others


def without_done(stages: Mapping[Stage, float], plan: Plan, step: int) -> dict[Stage, float]:
    """Seconds by stage of a run that has steps behind it; those in which it is enlarged come last."""
    asked, left = plan.request.steps, dict(stages)
    left["denoise"] = left.get("denoise", 0.0) * max(1 - step / asked, 0.0)
    if plan.larger is not None and step > asked:
        left["enlarge"] = left.get("enlarge", 0.0) * (1 - (step - asked) / plan.larger.request.steps)
    return left


class Remaining:
    """Follows the events of one run. Units: seconds; ``forecast`` is by stage, empty when there is none."""

    def __init__(
        self, forecast: Mapping[Stage, float] | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stages: Mapping[Any, float] = forecast or SHARES
        self.clock = clock
        self.pace = 1.0 if forecast else None  # seconds here for one of the forecast
        self.stage: Stage | None = None
        self.began = self.heard = clock()
        self.said: float | None = None  # what the run itself says of its stage

    def follow(self, event: Event) -> None:
        """Take one event in."""
        self.heard = self.clock()
        match event:
            case StageStarted(stage):
                self.stage, self.began, self.said = stage, self.heard, None
            case StageFinished(stage, seconds):
                self._correct(stage, seconds)
                self.said = 0.0
            case Step(_, _, _, left) | Tile(_, _, left) | Written(_, left):
                self.said = left
                if self.stage is not None:
                    self._correct(self.stage, self.heard - self.began + left)

    def seconds(self) -> float | None:
        """What is left now; None while nothing is known."""
        if self.stage is None or self.pace is None:
            return None
        begun = STAGES.index(self.stage)
        later = sum(self._usual(stage) for stage in STAGES[begun + 1 :]) * self.pace
        return max(self._here() + later, LEAST)

    def _here(self) -> float:
        """What is left of the stage at hand: it shrinks between two words of it, and never to nothing."""
        now = self.clock()
        whole, passed = (
            (self._usual(self.stage or "") * (self.pace or 0.0), now - self.began)
            if self.said is None
            else (self.said, now - self.heard)
        )
        return max(whole - passed, whole * STILL)

    def _usual(self, stage: str) -> float:
        return self._stages.get(stage, 0.0)

    def _correct(self, stage: str, seconds: float) -> None:
        """A run that is slow in one stage is slow in the others; short stages tell little of long ones."""
        usual = self._usual(stage)
        if stage == "denoise" or usual > TELLING * sum(self._stages.values()):
            self.pace = seconds / usual if usual > 0 else self.pace
