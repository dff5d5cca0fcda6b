"""How many ended videos are kept, where strangers hand in more than a disk can hold."""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from framewake.errors import FramewakeError, said
from framewake.service.desk import Desk
from framewake.service.strays import remove

log = logging.getLogger("framewake.trimming")
LOOK_SECONDS = 10.0


class Trimmer:
    """Removes the oldest ended videos, in a thread of its own, until ``most`` are left."""

    def __init__(self, desk: Desk, most: int) -> None:
        self.desk = desk
        self.most = most
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="trimming")

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stop.set()
        self._thread.join(timeout=2)

    def tidy(self) -> None:
        """Remove what is too many now.

        Raises: FramewakeError, SQLAlchemyError.
        """
        for job in self.desk.store.ended(but=self.most):
            remove(self.desk.store, self.desk.storage, job)

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS):
            try:
                self.tidy()
            except (FramewakeError, SQLAlchemyError) as error:
                log.warning("older videos could not be removed, and are tried again: %s", said(error))
