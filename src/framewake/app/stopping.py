"""How a run is asked to end: Ctrl-C, a polite kill, a terminal that goes away."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
GRACE_SECONDS = 10.0


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Every signal that asks for an end raises KeyboardInterrupt, so that all of them save what is there.

    They come in pairs (a closed terminal, a system that shuts down, an impatient person): one that follows within
    some seconds must not break the saving that the first one began. What is ignored from outside, as with nohup, stays
    ignored.
    """
    before: dict[int, Any] = {}
    heard: list[float] = []

    def stop(_number: int, _frame: Any) -> None:
        now = time.monotonic()
        if not heard or now - heard[-1] > GRACE_SECONDS:
            heard.append(now)
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():  # no other may ask for signals
        for number in (getattr(signal, name, None) for name in SIGNALS):
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        if not heard:  # else the process is about to end, and the last word has still to be said
            for number, handler in before.items():
                signal.signal(number, handler)
