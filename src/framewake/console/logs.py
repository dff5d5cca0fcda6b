"""The log of a long-running program: on stderr, one event per line, whatever its text and however often."""

from __future__ import annotations

import copy
import logging
import sys
import threading

from framewake.console.escape import escaped, inline

MOST_LETTERS, MOST_TRACE = 1000, 6000  # of a line, of a traceback
MOST_A_MINUTE = 30  # lines from the same place in the program


class LogFormat(logging.Formatter):
    """Lines of a bounded length whose text cannot pretend to be other lines; a traceback is indented."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        harmless = copy.copy(record)
        text = record.getMessage().strip()
        harmless.msg, harmless.args = inline(_cut(text, MOST_LETTERS)), ()
        return escaped(super().format(harmless))

    def formatException(self, ei: object) -> str:
        """A traceback: its end says most."""
        lines = super().formatException(ei).splitlines()  # type: ignore[arg-type]
        text = "\n".join("  " + _cut(line, MOST_LETTERS) for line in lines)
        return text if len(text) <= MOST_TRACE else "  ...\n" + text[-MOST_TRACE:].partition("\n")[2]


class Flood(logging.Filter):
    """Lets a place in the program speak so often a minute, and says how much was left out. It remembers places in the
    source only, so that its memory does not grow with what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[tuple[str, int], list[float]] = {}  # when the minute began, and how many came in it
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to let it through."""
        place = (record.pathname, record.lineno)
        with self._lock:
            minute = self._said.setdefault(place, [record.created, 0])
            left_out = int(minute[1]) - MOST_A_MINUTE
            if record.created - minute[0] >= 60:
                minute[:] = [record.created, 0]
                if left_out > 0:
                    record.msg, record.args = f"{record.getMessage()} (and {left_out:,} like it were not told)", ()
            minute[1] += 1
            return minute[1] <= MOST_A_MINUTE


def start_logging(form: str) -> None:
    """What happens goes to stderr, where systemd and containers look for it; warnings of libraries too."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormat(form))
    handler.addFilter(Flood())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(True)


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[:most]}... ({len(text):,} characters)"
