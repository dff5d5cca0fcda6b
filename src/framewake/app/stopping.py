"""How a run is asked to end: Ctrl-C, a polite kill, a terminal that goes away."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP")  # Windows has no SIGHUP
GRACE_SECONDS = 10.0


@contextlib.contextmanager
def stopped_by_signals(is_busy: Callable[[], bool] = lambda: False) -> Iterator[Callable[[], None]]:
    """Every signal that asks for an end raises KeyboardInterrupt, so that all of them save what is there.

    They come in pairs (a closed terminal, a system that shuts down, an impatient person): one that follows within
    some seconds must not break the saving that the first one began. ``is_busy``: whether others wait in an exchange for
    this process. Then the signal raises only in the function that is handed out, which is called behind every step. It
    also raises when the first time was in vain: Python drops what a signal raises in a destructor or a callback.
    """
    heard: list[float] = []

    def stop(_number: int, _frame: Any) -> None:
        now = time.monotonic()
        if not heard or now - heard[-1] > GRACE_SECONDS:
            heard.append(now)
            if len(heard) > 1 or not is_busy():
                raise KeyboardInterrupt

    def check() -> None:
        if heard:
            raise KeyboardInterrupt

    with on_signals(stop, lasts=lambda: bool(heard)):
        yield check


@contextlib.contextmanager
def on_signals(handler: Callable[[int, Any], None], *, lasts: Callable[[], bool] = lambda: False) -> Iterator[None]:
    """Hear every signal that asks for an end; what is ignored from outside, as with nohup, stays ignored.

    ``lasts``: whether the handler stays, because the process is about to end, and the last word has still to be said.
    """
    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # no other may ask for signals
        for number in (getattr(signal, name, None) for name in SIGNALS):
            if number is not None and signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        if not lasts():
            for number, other in before.items():
                signal.signal(number, other)
