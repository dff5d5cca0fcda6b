"""The pulse of the work: it beats only when work gets done, so a thread that hangs cannot make it beat.

Steps of a large model take many minutes on a CPU: what beats is each block of a model, each tensor that is read and
each event of a run.
"""

from __future__ import annotations

_beats = 0


def beat() -> None:
    """Work has gone on."""
    global _beats  # noqa: PLW0603 - one process does one piece of work
    _beats += 1


def beats() -> int:
    """How often it has beaten in this process."""
    return _beats
