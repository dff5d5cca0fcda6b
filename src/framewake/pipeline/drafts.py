"""Drafts: clips of what the model expects before its last step, to look at and decide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from framewake.errors import InputError, about
from framewake.media.output import output_kind

DraftSize = Literal["full", "small"]
DRAFT_SIZES: tuple[DraftSize, ...] = ("full", "small")
MARK = ".draft-"


@dataclass(frozen=True)
class Drafts:
    """After which steps of a run a draft is made, and how.

    ``stop``: with a draft after this step, or after the first one behind it, the run ends; ``is_asked`` is asked after
    every step whether it shall end with a draft there. ``full`` drafts are decoded, ``small`` ones show the colours of
    the latents, magnified. ``beside``: the clip that they lie beside, where that is not the run's own.
    """

    steps: tuple[int, ...] = ()
    stop: int | None = None
    size: DraftSize = "full"
    beside: Path | None = None
    is_asked: Callable[[], bool] = field(default=lambda: False, compare=False)

    def is_due(self, step: int) -> bool:
        """Whether a draft comes after this step."""
        return self.is_planned(step) or self.is_asked()

    def is_planned(self, step: int) -> bool:
        """Whether that was known beforehand."""
        return step in self.steps or self.is_planned_end(step)

    def is_end(self, step: int) -> bool:
        """Whether the run ends with the draft after this step."""
        return self.is_planned_end(step) or self.is_asked()

    def is_planned_end(self, step: int) -> bool:
        """Whether that was known beforehand."""
        return self.stop is not None and step >= self.stop


NO_DRAFTS = Drafts()


def check_drafts(drafts: Drafts, steps: int) -> None:
    """Whether a clip of so many steps has these drafts.

    Raises: InputError.
    """
    for step in (*drafts.steps, *(() if drafts.stop is None else (drafts.stop,))):
        with about("draft"):
            if steps == 1:
                raise InputError("a clip of one step has no draft: take more steps, or leave the draft out.")
            if not 0 < step < steps:
                raise InputError(
                    f"a draft after step {step} is impossible: the clip has {steps} steps, and a draft comes after "
                    f"step 1 to {steps - 1}."
                )


def draft_path(output: Path, step: int) -> Path:
    """Where the draft of a clip lies: beside it, as "clip.draft-012.mp4"; that of a folder of pictures is a WebP."""
    output = output if output.name else output.resolve()
    ending = ".webp" if output_kind(output) == "frames" else output.suffix
    return output.with_name(f"{output.name.removesuffix(ending)}{MARK}{step:03d}{ending}")
