"""One process a device: started here, watched until the first one ends, and none of them left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from framewake.app.reporting import INTERRUPT, SAVING_SECONDS, STARTER, unpacked
from framewake.app.stopping import on_signals
from framewake.errors import Cancelled, EngineError, FramewakeError, PeerError

POLL_SECONDS = 0.05
UNAWARE_SECONDS = 2.0  # the first process may need no other for a while, and has ended then perhaps
STOPPED_SECONDS = 3.0  # a process that is stopped for a moment goes on
MOST_SAID = 300


class Rank:
    """One of the processes; the first one has this program's own streams, the others are silent."""

    def __init__(
        self, number: int, command: Sequence[str], variables: Mapping[str, str], *, passed: Sequence[int] = ()
    ) -> None:
        self.number = number
        self.fault = ""  # what was seen from outside
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 (closed by end)
        self._words = b""
        self._is_ended = False
        self._stopped_at: float | None = None
        ends, self._life = os.pipe()
        self._told, tells = os.pipe()
        os.set_blocking(self._told, False)
        quiet: dict[str, Any] = (
            {} if number == 0 else {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": self._said}
        )
        environment = os.environ | dict(variables) | {STARTER: f"{ends},{tells}"}
        # Python takes an interrupt while it sets itself up for a fault of its own: it waits until `reporting` hears it.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, INTERRUPT)
        try:
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=(ends, tells, *passed), start_new_session=True, **quiet
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            os.close(ends)
            os.close(tells)

    def code(self) -> int | None:
        """The exit code; None while it lives."""
        return self._process.poll()

    def look(self) -> None:
        """End a process that was stopped and does not go on: the others wait for it without an end."""
        if self.code() is not None:
            return
        what = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        is_stopped = os.waitid(os.P_PID, self._process.pid, what) is not None
        self._stopped_at = (self._stopped_at or time.monotonic()) if is_stopped else None
        if self._stopped_at is not None and time.monotonic() - self._stopped_at > STOPPED_SECONDS:
            self.fault = "does not answer: it was stopped from outside"
            self.kill()

    def interrupt(self) -> None:
        """Ask it to stop."""
        self._process.send_signal(signal.SIGINT)

    def kill(self) -> None:
        """End it, by its own id."""
        if self._process.poll() is None:
            self._is_ended = True
            self._process.kill()
            self._process.wait()

    def end(self) -> None:
        """End it, and let go of it."""
        self.kill()
        os.close(self._life)
        os.close(self._told)
        self._said.close()

    def error(self) -> FramewakeError | None:
        """What it says that it has failed with, once it has ended."""
        with contextlib.suppress(BlockingIOError):
            self._words += os.read(self._told, 1 << 16)
        return unpacked(self._words)

    def seen(self) -> str:
        """What is seen of its end from outside; "" when that is not its own."""
        code = self.code()
        if self.fault or self._is_ended or not code or (self.number == 0 and code > 0):
            return self.fault
        if code < 0:
            name = signal.Signals(-code).name
            return f"was ended by {name}" + (", perhaps because memory ran out" if name == "SIGKILL" else "")
        self._said.seek(0)
        last = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
        return f"ended with code {code} ({last[:MOST_SAID]})"


def start(
    command: Sequence[str],
    variables: Sequence[Mapping[str, str]],
    size: int,
    *,
    passed: Sequence[int] = (),
    is_endless: bool = False,
    advice: Callable[[], str] = str,
) -> int:
    """Run a command once for each set of variables, of which ``size`` work and others help; the first one's exit code.

    ``passed``: open files by their number, which the first one gets too. ``is_endless``: its good end, when it is asked
    to stop because another one has failed, is none. ``advice``: how to go on, where the first one cannot say.
    Raises: FramewakeError with the cause where one of them has failed; Cancelled where this program was asked to stop.
    """
    with contextlib.ExitStack() as stack:
        ranks: list[Rank] = []
        for number, own in enumerate(variables):
            ranks.append(Rank(number, command, own, passed=() if number else passed))
            stack.callback(ranks[-1].end)
        workers = ranks[:size]
        heard: list[int] = []

        def ask(number: int, _frame: Any) -> None:
            heard.append(number)
            workers[0].interrupt()

        stack.enter_context(on_signals(ask, lasts=lambda: bool(heard)))  # impatience must not cost the last word
        failed = list(_watch(workers))
        for rank in ranks:
            rank.kill()
        code = workers[0].code() or 0
        error = None if code == 0 and not (is_endless and failed) else _cause(workers, failed, advice)
        if error is not None:
            raise error
        return code


def _watch(ranks: Sequence[Rank]) -> Iterator[Rank]:
    """Wait for the end of the first process, or of any that fails before it; those that failed, in this order.

    The others get some seconds then: to save, to leave, or to say what the cause is. A first one that goes on, with
    something that needs no other, is asked to stop.
    """
    failed: list[Rank] = []
    since: float | None = None
    is_asked = False
    while True:
        for rank in ranks:
            rank.look()
            if rank.code() and rank not in failed and ranks[0].code() != 0:
                failed.append(rank)
                yield rank
        if failed or ranks[0].code() is not None:
            since = since or time.monotonic()
        first = ranks[0].error() if ranks[0].code() is not None else None
        is_known = first is not None and not isinstance(first, PeerError)
        if is_known or all(rank.code() is not None for rank in ranks):
            return
        is_unaware = not is_asked and ranks[0].code() is None
        if since is not None and time.monotonic() - since > (UNAWARE_SECONDS if is_unaware else SAVING_SECONDS):
            if not is_unaware:
                return
            is_asked, since = True, time.monotonic()
            ranks[0].interrupt()
        time.sleep(POLL_SECONDS)


def _cause(ranks: Sequence[Rank], failed: Sequence[Rank], otherwise: Callable[[], str]) -> FramewakeError | None:
    """Why it failed: what a process says itself, else what was seen of one, else that the first one was asked to stop.

    Only where there is nothing else, the echo of it all in the other processes.
    """
    own, size = ranks[0].error(), len(ranks)
    advice = getattr(own, "advice", "") or otherwise()
    told = [(rank, error) for rank in failed if (error := rank.error()) is not None]
    for rank, error in told:
        if not isinstance(error, (PeerError, Cancelled)):
            return error if rank.number == 0 else _of(rank, error, size, advice)
    spoken = [rank for rank, _ in told]
    for rank in failed:
        if rank.number == 0 and rank.code() == -signal.SIGINT:  # behind its last word
            return own or Cancelled("stopped.")
        if rank.seen() and (rank.fault or rank not in spoken):
            text = f"process {rank.number} of {size} {rank.seen()}."
            return EngineError(f"{text} {advice}".rstrip())
    if isinstance(own, Cancelled) or not told or (own is None and (ranks[0].code() or 0) > 0):
        return own  # which is nothing where it has said so on its own screen
    return told[0][1]


def _of(rank: Rank, error: FramewakeError, size: int, advice: str) -> FramewakeError:
    text = str(error).rstrip(".")
    error.args = (f"process {rank.number} of {size}: {text}. {advice}".rstrip(),)
    return error
