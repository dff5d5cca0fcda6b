"""What a process tells the program that has started it beside others: why it ends; and it ends with that program."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable

from framewake import errors
from framewake.console.ending import done
from framewake.errors import Cancelled, FramewakeError, exit_code

# Two descriptors from our own starter: one ends when that ends, the other one takes why this process has failed.
STARTER = "FRAMEWAKE_STARTER"
INTERRUPT = frozenset({signal.SIGINT})  # held back from the start of a process until it can tell its end
SAVING_SECONDS = 5.0
MOST_TEXT = 4000
_DIES_WITH_PARENT = 1  # prctl's PR_SET_PDEATHSIG


def is_started() -> bool:
    """Whether our own starter has started this process: it has greeted already, and tells the end."""
    return STARTER in os.environ


def reporting(work: Callable[[], int | None]) -> int | None:
    """Do the work; what ends it is the starter's to tell.

    Raises: SystemExit with the code of what has been handed over; whatever the work raises in a process without
    starter.
    """
    if not is_started():
        return work()
    ends, told = map(int, os.environ[STARTER].split(","))
    threading.Thread(target=_end_with, args=(ends,), daemon=True).start()
    _die_with_parent(signal.SIGKILL if os.environ.get("MS_ROLE") == "MS_SCHED" else signal.SIGTERM)
    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, INTERRUPT)
        return done(work)
    except KeyboardInterrupt:
        error: FramewakeError = Cancelled("stopped.")
    except FramewakeError as raised:
        error = raised
    os.write(told, packed(error))
    sys.exit(exit_code(error))


def _end_with(ends: int) -> None:
    """Stop as if asked to when the starter has gone, and end however that goes."""
    os.read(ends, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(SAVING_SECONDS)
    os._exit(1)


def _die_with_parent(number: int) -> None:
    """The same where a framework waits for the others and lets no thread of Python run meanwhile."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_DIES_WITH_PARENT, int(number))


def packed(error: FramewakeError) -> bytes:
    """An error for another process."""
    name = next(kind.__name__ for kind in type(error).__mro__ if vars(errors).get(kind.__name__) is kind)
    values = {
        name: value for name, value in vars(error).items() if isinstance(value, (str, int))
    }  # typer's are neither
    return json.dumps([name, str(error)[:MOST_TEXT], values]).encode()


def unpacked(data: bytes) -> FramewakeError | None:
    """The error that was packed; None for nothing."""
    if not data:
        return None
    name, text, values = json.loads(data)
    kind = getattr(errors, name)
    error: FramewakeError = kind.__new__(kind, text)
    vars(error).update(values)
    return error
