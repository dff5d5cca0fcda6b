"""How the clips of a data set are used: which frames of them, how large, how often."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from framewake.media.clips import count_at, place_of

FAST_FPS = 50  # from here on every second frame is taken, as the original does
EXTRACTIONS = ("head", "chunk", "slide", "uniform", "full")
SizeOf = Callable[[int, int], tuple[int, int]]  # height and width of a clip -> those that are trained on, in pixels


class Use(NamedTuple):
    """How a clip is used: cuts of ``lengths`` frames, found as ``extraction`` says.

    ``stride`` is between the cuts of "slide", ``samples`` the number of those of "uniform". ``rate``: how many frames
    pass for each that is taken; None: one, and two from 50 frames a second on.
    """

    lengths: tuple[int, ...]
    size: SizeOf
    extraction: str = "head"
    stride: int = 1
    samples: int = 1
    rate: float | None = None
    batch: int = 1
    repeats: int = 1
    takes_pictures: bool = False

    @property
    def most(self) -> int | None:
        """How many frames of a clip are looked at; None for all."""
        if self.extraction != "head":
            return None
        return place_of(max(self.lengths), 2.0 if self.rate is None else self.rate) + 1

    def rate_of(self, fps: float) -> float:
        """The rate for a clip of so many frames a second."""
        return self.rate or (2.0 if int(fps) >= FAST_FPS else 1.0)

    def cuts(self, frames: int, rate: float) -> list[tuple[int, int]]:
        """Start and length of each cut of a clip of so many frames, counted in frames that are taken."""
        count = count_at(frames, rate)
        if self.extraction == "full":
            length = (min(count, max(self.lengths)) - 1) // 4 * 4 + 1
            return [(0, length)] if length >= min(self.lengths) else []
        fitting = [length for length in self.lengths if length <= count]
        return [(start, length) for length in fitting for start in self._starts(count - length, length)]

    def _starts(self, last: int, length: int) -> list[int]:
        """Where cuts of a length begin, at ``last`` at the latest."""
        if self.extraction == "uniform" and self.samples > 1:
            return sorted({last * number // (self.samples - 1) for number in range(self.samples)})
        steps = {"chunk": length, "slide": self.stride}
        return list(range(0, last + 1, steps[self.extraction])) if self.extraction in steps else [0]

    def shortage(self, frames: int, rate: float) -> tuple[str, str]:
        """What is wrong with a clip of too few frames, and what to do."""
        thinned = f", of which one in {rate:g} is taken," if rate > 1 else ""
        count = (count_at(frames, rate) - 1) // 4 * 4 + 1
        fewer = f", or train on fewer (--frames {count}, or target_frames)" if count > 4 else ""
        return f"has {frames} frames{thinned} and {min(self.lengths)} are needed", f"take it out{fewer}"
