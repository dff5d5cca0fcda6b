"""Every update of a run in a table beside its LoRA, which a spreadsheet opens, and as curves where they are wanted."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from framewake.errors import InputError
from framewake.lasting import guarded, written_whole
from framewake.train.board import Board
from framewake.train.draws import LEVELS
from framewake.train.events import Diverged, Update, Validated

ENDING = ".training.csv"
COLUMNS: tuple[str, ...] = ("update", "loss", "loss_average", "gradient_norm", "learning_rate", "seconds")
COLUMNS += ("validation", *(f"validation_{level:g}" for level in LEVELS))
_CURVES: tuple[str, ...] = (
    "loss/update",
    "loss/average",
    "training/gradient_norm",
    "training/learning_rate",
    "training/seconds",
)
_CURVES += ("validation/mean", *(f"validation/{level:g}" for level in LEVELS))
_KEPT = 0.95  # of the mean, by each update
_FAR = 10.0  # times the first loss; noise levels make losses of one model differ by less


class Logged(NamedTuple):
    """One row of a log: the losses of an update, or the one on clips that were left out."""

    update: int
    loss: float | None
    average: float | None
    validation: float | None


def log_path(target: Path) -> Path:
    """Where a LoRA's log lies."""
    return target.with_name(target.name.removesuffix(".safetensors") + ENDING)


class Log:
    """A log that goes on after update ``first``: what lies behind it was not saved and is cut off.

    A row is there with its update. Raises: UnwritableError, DiskFullError.
    """

    def __init__(self, path: Path, first: int, *, board: Board | None = None) -> None:
        self.path, self._board = path, board
        rows = [row for row in _rows(path) if int(row[0]) <= first]
        self._average = next((float(row[2]) for row in reversed(rows) if row[2]), None)
        self._began = next((float(row[1]) for row in rows if row[1]), None)
        self._has_told = False
        with written_whole(path) as part:
            part.write_text(_text([COLUMNS, *rows]), encoding="utf-8", newline="")

    def smoothed(self, loss: float) -> float:
        """The moving mean with one more loss: noise levels differ so much that one alone tells nothing."""
        before = loss if self._average is None else self._average
        self._average = _KEPT * before + (1 - _KEPT) * loss
        return self._average

    def add(self, update: Update) -> None:
        """Write the row of an update."""
        self._write(update.step, update.loss, update.average, update.norm, update.rate, round(update.seconds, 3))

    def diverged(self, update: Update) -> Diverged | None:
        """What to tell, once, when the moving mean is far above the run's first loss."""
        self._began = update.loss if self._began is None else self._began
        if self._has_told or update.average <= _FAR * self._began:
            return None
        self._has_told = True
        return Diverged(update.step, update.average, self._began)

    def add_validation(self, found: Validated) -> None:
        """Write the row of a validation."""
        self._write(found.step, *[""] * (COLUMNS.index("validation") - 1), found.loss, *found.levels.values())

    def _write(self, *cells: Any) -> None:
        row = [*cells, *[""] * (len(COLUMNS) - len(cells))]
        with guarded(self.path, 0), self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(_text([row]))
        if self._board is not None:
            points = {curve: float(cell) for curve, cell in zip(_CURVES, row[1:], strict=True) if cell != ""}
            self._board.add(int(row[0]), points)


def read_log(path: Path) -> list[Logged]:
    """The updates of a log, which is named itself or by its LoRA.

    Raises: InputError when there is none, or nothing in it.
    """
    path = log_path(path) if path.suffix == ".safetensors" else path
    if not path.is_file():
        raise InputError(f"there is no {path}: name a LoRA that was trained here, or the {ENDING} file beside it.")
    place = COLUMNS.index("validation")
    rows = [Logged(int(row[0]), *(float(row[at]) if row[at] else None for at in (1, 2, place))) for row in _rows(path)]
    if not any(row.average is not None for row in rows):
        raise InputError(f"{path} holds no updates of a training run: its first line should be {','.join(COLUMNS)}.")
    return rows


def _rows(path: Path) -> list[list[str]]:
    """The whole rows of a log; none where another program wrote the file. A row may have been cut off by a stop."""
    if not path.exists():
        return []
    with guarded(path, 0):
        text = path.read_bytes().decode("utf-8", "replace")
    head, *rows = csv.reader(io.StringIO(text[: text.rfind("\n") + 1], newline="")) if "\n" in text else [[]]
    return [row for row in rows if _is_whole(row)] if tuple(head) == COLUMNS else []


def _is_whole(row: list[str]) -> bool:
    try:
        return len(row) == len(COLUMNS) and int(row[0]) >= 0 and all(math.isfinite(float(cell or 0)) for cell in row)
    except ValueError:
        return False


def _text(rows: Sequence[Sequence[object]]) -> str:
    found = io.StringIO()
    csv.writer(found, lineterminator="\n").writerows(rows)
    return found.getvalue()
