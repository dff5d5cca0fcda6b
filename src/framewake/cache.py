"""How a step cache is given: a rule and its number in one text.

``easy:0.05``, ``taylor1:2``, ``fixed:0,1,2,4,8``, ``fast``.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

from framewake.errors import InputError, nearest

OFF = "off"
# Rules that look at the run itself take a threshold, the others an interval in steps.
THRESHOLD_RULES = ("first-block", "tea", "easy")
INTERVAL_RULES = ("fixed", "taylor1", "taylor2")
RULES = (*THRESHOLD_RULES, *INTERVAL_RULES)
PRESETS = {"fast": "easy:0.05", "faster": "easy:0.1"}

# Always computed: the first steps decide what the clip shows, and at the last one nothing evens out a mistake.
FIRST_STEPS = 2
LAST_STEPS = 1

MOST_THRESHOLD = 100.0
_HOW = "write off, fast, faster, RULE:THRESHOLD with first-block, tea or easy (easy:0.05), or RULE:INTERVAL with "
_HOW += "fixed, taylor1 or taylor2 (taylor1:2), or the steps to compute (fixed:0,1,2,4,8)"


class CacheChoice(NamedTuple):
    """A rule with its number.

    Only one of ``threshold``, ``interval`` and ``steps`` counts: the first for rules that look at the run itself,
    the other two for those that know beforehand.
    """

    rule: str
    threshold: float = 0.0
    interval: int = 1
    steps: tuple[int, ...] = ()

    @property
    def order(self) -> int:
        """Of the polynomial that goes on from computed steps; 0 repeats the last one."""
        return int(self.rule[-1]) if self.rule.startswith("taylor") else 0

    @property
    def kept_tensors(self) -> int:
        """Tensors of all image tokens that are alive between steps: what is reused, and the one that it replaces."""
        return self.order + 2

    def schedule(self, count: int) -> frozenset[int] | None:
        """The steps of ``count`` that are computed, None when the run itself decides."""
        if self.rule in THRESHOLD_RULES:
            return None
        if self.steps:
            return frozenset({0, *(step for step in self.steps if step < count)})
        ends = {*range(min(FIRST_STEPS, count)), *range(max(count - LAST_STEPS, 0), count)}
        return frozenset(ends | set(range(FIRST_STEPS - 1, count, self.interval)))


def parse_cache(text: str) -> CacheChoice | None:
    """A step cache from its text; None when it is off.

    Raises: InputError for an unknown rule or a number that is none.
    """
    if text == OFF:
        return None
    rule, colon, number = PRESETS.get(text, text).partition(":")
    if rule not in RULES or not colon:
        hint = "" if rule in RULES else nearest(rule, (OFF, *PRESETS, *RULES))
        raise InputError(f"cache is {text!r}: {_HOW}.{hint}")
    if rule in THRESHOLD_RULES:
        return CacheChoice(rule, threshold=_threshold(number, text))
    if rule == "fixed" and re.fullmatch(r"\d{1,4}(,\d{1,4})+", number):
        return CacheChoice(rule, steps=tuple(sorted({int(word) for word in number.split(",")})))
    if not re.fullmatch(r"\d{1,4}", number) or int(number) < 1:
        raise InputError(f"cache is {text!r}: {number!r} is no interval in steps, 1 or more; {_HOW}.")
    return CacheChoice(rule, interval=int(number))


def _threshold(word: str, text: str) -> float:
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", word)
    value = float(word) if found else math.nan
    if not value <= MOST_THRESHOLD:
        raise InputError(f"cache is {text!r}: {word!r} is no threshold from 0 to {MOST_THRESHOLD:g}; {_HOW}.")
    return value
