"""How a LoRA is given: a file, and its weight at each step, in one text.

``a.safetensors``, ``a.safetensors:0.8``, ``a.safetensors:0-20=1.0,20-50=0.4``.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from framewake.errors import InputError

ENDINGS = (".safetensors", ".sft", ".pt", ".pth", ".bin", ".ckpt")
MOST = 100.0  # no LoRA means anything at such a weight; it is a slip of the finger
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SPAN = re.compile(r"(\d{1,9})-(\d{1,9})=(.+)")
_HOW = "write FILE, FILE:0.8 or FILE:0-20=1.0,20-50=0.4 (steps count from 0, the last one is not included)"


class Span(NamedTuple):
    """A weight for the steps from ``first`` up to, not including, ``stop``; None is the last step."""

    first: int
    stop: int | None
    weight: float


class LoraUse(NamedTuple):
    """A LoRA file and its weight over the steps; steps outside every span get weight 0."""

    path: str
    spans: tuple[Span, ...]

    def weight(self, step: int) -> float:
        """The weight at a step, counted from 0."""
        return next((s.weight for s in self.spans if s.first <= step and (s.stop is None or step < s.stop)), 0.0)

    def strongest(self) -> float:
        """The weight furthest from zero."""
        return max((span.weight for span in self.spans), key=abs)

    def last_start(self) -> int:
        """The step at which the last span begins."""
        return max(span.first for span in self.spans)


def parse_lora(text: str) -> LoraUse:
    """A LoRA from its text. Only what follows the last colon can be a weight, so paths may hold colons.

    Raises: InputError for an empty path or a weight that is none.
    """
    path, colon, tail = text.rpartition(":")
    if colon and path and (_looks_weighted(tail) or path.lower().endswith(ENDINGS)):
        return LoraUse(path, _spans(tail, text))
    if not text:
        raise InputError(f"the path of a LoRA is empty: {_HOW}.")
    return LoraUse(text, (Span(0, None, 1.0),))


def _looks_weighted(tail: str) -> bool:
    return all(_NUMBER.fullmatch(part) or _SPAN.fullmatch(part) for part in tail.replace(" ", "").split(","))


def _spans(tail: str, text: str) -> tuple[Span, ...]:
    if "=" not in tail:
        return (Span(0, None, _weight(tail, text)),)
    found: list[Span] = []
    taken: list[range] = []
    for part in tail.split(","):
        match = _SPAN.fullmatch(part.strip())
        if match is None:
            raise InputError(f"LoRA {text!r}: {part!r} is no span of steps; {_HOW}.")
        first, stop, weight = int(match[1]), int(match[2]), _weight(match[3], text)
        if first >= stop:
            raise InputError(f"LoRA {text!r}: the span {part!r} holds no step; {_HOW}.")
        if any(first < other.stop and other.start < stop for other in taken):
            raise InputError(f"LoRA {text!r}: the span {part!r} overlaps another; each step needs one weight.")
        found.append(Span(first, stop, weight))
        taken.append(range(first, stop))
    return tuple(found)


def _weight(word: str, text: str) -> float:
    value = float(word) if _NUMBER.fullmatch(word.strip()) else math.nan
    if not abs(value) <= MOST:
        raise InputError(f"LoRA {text!r}: the weight {word!r} is no number from -{MOST:g} to {MOST:g}; {_HOW}.")
    return value
