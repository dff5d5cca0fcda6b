"""The log of a program that runs for long: on stderr, one event a line, whatever is in its text."""

from __future__ import annotations

import copy
import logging
import sys

from framewake.console.escape import escaped, inline


class LogFormat(logging.Formatter):
    """Lines whose text cannot pretend to be other lines; a traceback keeps its own."""

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        harmless = copy.copy(record)
        harmless.msg, harmless.args = inline(record.getMessage()), ()
        return escaped(super().format(harmless))


def start_logging(form: str) -> None:
    """What happens goes to stderr, where systemd and containers look for it."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogFormat(form))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
