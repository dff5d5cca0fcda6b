"""Lines over a common axis as a picture."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw

SIZE = (960, 540)
_LEFT, _TOP, _RIGHT, _BOTTOM = 70, 40, 20, 50
_INK, _GRID, _PAPER = "#303030", "#e4e4e4", "white"
_MOST_TICKS = 7
_FINER = 2  # lines are drawn larger and made smaller, so that they are smooth


class Curve(NamedTuple):
    """Points (across, up) in order across, with the line's name, colour and width in px."""

    name: str
    points: Sequence[tuple[float, float]]
    colour: str
    width_px: int


class _Frame(NamedTuple):
    """What is seen: the first and last number across and up."""

    across: tuple[float, float]
    up: tuple[float, float]

    def place(self, point: tuple[float, float]) -> tuple[float, float]:
        """Where a point lies. Units: px."""
        width, height = SIZE[0] - _LEFT - _RIGHT, SIZE[1] - _TOP - _BOTTOM
        across, up = ((at - low) / (high - low) for at, (low, high) in zip(point, self, strict=True))
        return _LEFT + width * across, SIZE[1] - _BOTTOM - height * up


def drawn(lines: Sequence[Curve], *, title: str, across: str) -> Image.Image:
    """A picture of lines; ``across`` says what their first number counts."""
    points = [point for line in lines for point in line.points]
    frame = _Frame(_span([x for x, _ in points]), _span([y for _, y in points]))
    fine = Image.new("RGB", (SIZE[0] * _FINER, SIZE[1] * _FINER), _PAPER)
    pen = ImageDraw.Draw(fine)
    _grid(pen, frame)
    for line in lines:
        places = [frame.place(point) for point in line.points]
        pen.line([(x * _FINER, y * _FINER) for x, y in places], fill=line.colour, width=line.width_px * _FINER)
        if len(places) == 1:
            x, y = (at * _FINER for at in places[0])
            pen.ellipse((x - 6, y - 6, x + 6, y + 6), fill=line.colour)
    picture = fine.resize(SIZE, Image.Resampling.LANCZOS)
    _words(ImageDraw.Draw(picture), frame, lines, title, across)
    return picture


def ticks(low: float, high: float) -> list[float]:
    """Round numbers in a span, a few of them."""
    rough = (high - low) / _MOST_TICKS
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _grid(pen: ImageDraw.ImageDraw, frame: _Frame) -> None:
    for start, end in _rules(frame):
        pen.line([(x * _FINER, y * _FINER) for x, y in (start, end)], fill=_GRID, width=_FINER)


def _rules(frame: _Frame) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """The lines of the grid, upright and level."""
    (left, right), (low, high) = frame
    for tick in ticks(left, right):
        yield frame.place((tick, low)), frame.place((tick, high))
    for tick in ticks(low, high):
        yield frame.place((left, tick)), frame.place((right, tick))


def _words(pen: ImageDraw.ImageDraw, frame: _Frame, lines: Sequence[Curve], title: str, across: str) -> None:
    (left, right), (low, high) = frame
    for tick in ticks(left, right):
        x, y = frame.place((tick, low))
        pen.text((x, y + 6), f"{tick:g}", fill=_INK, anchor="ma")
    for tick in ticks(low, high):
        x, y = frame.place((left, tick))
        pen.text((x - 8, y), f"{tick:.6g}", fill=_INK, anchor="rm")
    pen.text((SIZE[0] / 2, SIZE[1] - 16), across, fill=_INK, anchor="mm")
    # The font that Pillow brings has the letters of western Europe only.
    pen.text((_LEFT, 14), title.encode("latin-1", "replace").decode("latin-1"), fill=_INK, anchor="lm")
    at = SIZE[0] - _RIGHT
    for line in reversed(lines):
        pen.text((at, 14), line.name, fill=line.colour, anchor="rm")
        at -= int(pen.textlength(line.name)) + 16
