"""Frameworks compute with threads of their own, which a fork does not copy: the child would wait for them forever."""

from __future__ import annotations

import os

from framewake.errors import EngineError

_computing: int | None = None


def check_process() -> None:
    """Note that this process computes.

    Raises: EngineError in a process that was forked from one that has computed.
    """
    global _computing  # noqa: PLW0603 - it is about the process
    _computing = _computing or os.getpid()
    if _computing != os.getpid():
        raise EngineError(
            "this process was forked from one in which a framework had begun to compute, and its threads do not "
            "survive that: start it anew, as multiprocessing.get_context('spawn') does."
        )
