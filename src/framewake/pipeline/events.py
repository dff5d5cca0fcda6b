"""What a run reports while it works: all that command line, page and programs see of it.

Every event is a frozen value. Their order in one run is: for each stage a ``StageStarted``, then any
``Step``, ``Tile`` and ``Written``, then its ``StageFinished``; last of all one ``Result``. A ``Note`` may come
anywhere before that. Drafts come between the steps; a clip that ends with one has a ``Draft`` with ``is_end``, behind
the stage "denoise", in place of the later stages and the ``Result``. Several clips in one run share the first two
stages, which come once; the others come for each clip, each time with a ``Result``. The stage "enlarge", with steps
counted anew, comes with super-resolution alone; a clip that goes on in it has no stage "denoise".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

Stage = Literal["read image", "encode text", "encode image", "denoise", "enlarge", "decode", "write"]
STAGES: tuple[Stage, ...] = ("read image", "encode text", "encode image", "denoise", "enlarge", "decode", "write")


@dataclass(frozen=True)
class StageStarted:
    """A stage begins; the stages of a run come in the order of ``STAGES``."""

    stage: Stage


@dataclass(frozen=True)
class StageFinished:
    """A stage ended well."""

    stage: Stage
    seconds: float


@dataclass(frozen=True)
class Step:
    """One of the ``count`` denoising steps of its stage is done.

    Shapes: ``preview`` is uint8 (H, W, 3) on the latent grid, the middle frame of the expected clip.
    ``is_skipped``: a step cache took the place of the model.
    Units: ``index`` counts from 1; ``seconds`` is this step alone, ``seconds_left`` the remaining steps
    at the mean pace of those done.
    """

    index: int
    count: int
    seconds: float
    seconds_left: float
    preview: np.ndarray = field(repr=False, compare=False)
    is_skipped: bool = False


@dataclass(frozen=True)
class Tile:
    """One of ``count`` tiles of the clip is decoded.

    Units: ``index`` counts from 1; ``seconds_left`` is for the other tiles at the mean pace of those done.
    """

    index: int
    count: int
    seconds_left: float


@dataclass(frozen=True)
class Written:
    """A part of the file is written; kinds of files other than mp4 tell nothing of it.

    Units: ``share`` is above 0 and at most 1; ``seconds_left`` is for the rest at the mean pace.
    """

    share: float
    seconds_left: float


@dataclass(frozen=True)
class Drafting:
    """A draft of what is expected after a step is being made; between two steps of the clip.

    Units: ``share`` of the work is done.
    """

    step: int
    share: float


@dataclass(frozen=True)
class Draft:
    """A draft is written: a clip of what the model expects after ``step`` of ``count`` steps.

    ``is_end``: the run ends with it, with its latents saved.
    Shapes: ``frames`` is uint8 (F, H, W, 3).
    """

    step: int
    count: int
    path: Path
    is_end: bool
    frames: np.ndarray = field(repr=False, compare=False)


@dataclass(frozen=True)
class Note:
    """One sentence that a person should read; nothing went wrong."""

    text: str


@dataclass(frozen=True)
class Cached:
    """What a step cache did in a run.

    Units: ``computed`` and ``skipped`` in steps; ``seconds_saved`` at the pace of the computed steps, those of an
    earlier process left out.
    """

    computed: int
    skipped: int
    seconds_saved: float


@dataclass(frozen=True)
class Result:
    """The clip is made.

    ``cached`` is None without a step cache.
    Shapes: ``frames`` is uint8 (F, H, W, 3).
    Units: ``timings`` are seconds by stage; ``path`` is None when nothing was to be written.
    """

    frames: np.ndarray = field(repr=False, compare=False)
    path: Path | None
    seed: int
    timings: Mapping[str, float]
    metadata: Mapping[str, Any]
    cached: Cached | None = None


Event = StageStarted | StageFinished | Step | Tile | Written | Drafting | Draft | Note | Result
