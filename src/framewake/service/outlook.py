"""What is known of a video before it is made: notes, how long it will take, how busy the machine is."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from framewake.errors import FramewakeError
from framewake.media.picture import Loaded
from framewake.pipeline.forecast import Forecast, busy_note, rates_from_plain
from framewake.pipeline.hunyuan import family_of
from framewake.pipeline.jobs import Plan
from framewake.pipeline.notes import notes_of
from framewake.request import Request
from framewake.service.devices import Forecaster
from framewake.service.presence import Presence
from framewake.service.refusals import without_paths
from framewake.weights.checkpoint.load import Checkpoint


class Outlook(NamedTuple):
    """Units: ``seconds`` of making, without waiting; None where no worker has told its speed."""

    notes: tuple[str, ...]
    seconds: float | None


class Advisor:
    """Looks ahead for one checkpoint, with what its workers have told."""

    def __init__(self, checkpoint: Checkpoint, presence: Presence) -> None:
        self.checkpoint = checkpoint
        self.presence = presence
        self.forecaster = Forecaster(checkpoint)

    @functools.cached_property
    def reader(self) -> Any:
        """Tokenizers, read when the first prompt comes."""
        return family_of(self.checkpoint).reader(self.checkpoint)

    def notes(self, request: Request, picture: Loaded | None) -> tuple[str, ...]:
        """What the command line says of such a request, too."""
        return tuple(map(without_paths, notes_of(request, picture, self.reader)))

    def facts(self) -> dict[str, Any] | None:
        """What a living worker says of its device."""
        return self.presence.device(self.checkpoint.settings.name)

    def forecast(self, plan: Plan, facts: Mapping[str, Any]) -> Forecast:
        """Memory and time.

        Raises: InputError, ResourceError when the plan cannot fit.
        """
        return self.forecaster.forecast(plan, facts)

    def busy(self) -> str | None:
        """A sentence when other programs keep a worker's machine busy: true now, and no note on the video itself."""
        facts = self.facts()
        return None if facts is None else busy_note(rates_from_plain(facts["rates"]))

    def outlook(self, plan: Plan) -> Outlook:
        """Everything for a video that is handed in."""
        picture = None if plan.picture is None else plan.picture.small
        notes, facts = self.notes(plan.request, picture), self.facts()
        if facts is None:
            return Outlook(notes, None)
        try:
            seconds = self.forecast(plan, facts).seconds
        except FramewakeError:  # another worker may have more room; if none has, the video fails and says why
            seconds = None
        return Outlook(notes, seconds)
