"""What a training run reports while it works, besides the pipeline's notes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Started:
    """Everything is checked: what will be trained, and how much of it was encoded before.

    ``held`` of the clips are left out for validation; ``first`` updates are done already; ``parameters`` counts the
    numbers that are trained; ``forecast`` says in a sentence what an update takes.
    """

    clips: int
    cached: int
    modules: int
    parameters: int
    first: int
    steps: int
    forecast: str
    held: int = 0


@dataclass(frozen=True)
class Encoded:
    """``done`` of ``count`` pieces of work of the encoders are done; ``what`` is clips or captions."""

    what: str
    done: int
    count: int


@dataclass(frozen=True)
class Update:
    """One of ``count`` updates is done.

    Units: ``loss`` is the mean over the update's clips, ``average`` its moving mean, ``norm`` that of
    the gradient before it was cut, ``seconds`` this update alone, ``seconds_left`` the remaining ones at the pace of
    those done.
    """

    step: int
    count: int
    loss: float
    average: float
    norm: float
    rate: float
    seconds: float
    seconds_left: float


@dataclass(frozen=True)
class Diverged:
    """The moving mean of the loss is far above the run's first loss, ``began``; told once."""

    step: int
    average: float
    began: float


@dataclass(frozen=True)
class Validated:
    """The loss on clips that were left out, after an update: the mean, and that of each noise level by its name."""

    step: int
    loss: float
    levels: dict[str, float]


@dataclass(frozen=True)
class Saved:
    """File and state of an update are on disk."""

    step: int
    path: Path


@dataclass(frozen=True)
class Sampled:
    """A clip with the LoRA as it is at an update."""

    step: int
    path: Path


@dataclass(frozen=True)
class Trained:
    """The LoRA is finished. Units: ``loss`` is the mean over the last tenth of this run's updates."""

    path: Path
    step: int
    loss: float
    seconds: float


TrainingEvent = Started | Encoded | Update | Diverged | Validated | Saved | Sampled | Trained
