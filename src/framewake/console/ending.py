"""How every program ends: at most one line on stderr, and an exit code from the table in ``errors``."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from framewake.console.escape import escaped, one_line
from framewake.console.foreign import keep_traceback, translated
from framewake.console.streams import are_prepared, lost_answer, prepare
from framewake.console.wrapping import fitted
from framewake.errors import Cancelled, DiskFullError, FramewakeError, exit_code


def run_program(
    name: str, work: Callable[[], int | None], *, has_json: bool = False, is_answer: bool = False
) -> NoReturn:
    """Do the work and exit, whatever happens in it.

    ``has_json``: an error is an event on stdout too. ``is_answer``: what is printed is all that the program is for,
    so it has failed where stdout has not taken it.
    """
    prepare()
    if are_prepared():
        _watch_threads(name)
    try:
        code = done(work) or 0
        lost = lost_answer()
        if lost is not None:
            reason = lost.strerror or str(lost)
            complaint = DiskFullError(f"stdout does not take what is written ({reason}).", bytes_needed=0, bytes_free=0)
            fail(name, complaint)
            code = exit_code(complaint) if is_answer and code == 0 else code
    except FramewakeError as error:
        code = fail(name, error, has_json=has_json)
    except KeyboardInterrupt:
        code = fail(name, Cancelled("stopped."), has_json=has_json)
    if are_prepared() and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said: an interrupt now would only show where Python ends
    sys.exit(code)


def done(work: Callable[[], int | None]) -> int | None:
    """What the work returns.

    Raises: FramewakeError for whatever any library has raised, KeyboardInterrupt, SystemExit.
    """
    try:
        return work()
    except (FramewakeError, KeyboardInterrupt):
        raise
    except SystemExit as left:
        if isinstance(
            left.__context__, OSError
        ):  # click's own end for a broken pipe, which is none of the streams here
            raise translated(left.__context__) from left
        raise
    # The one place that catches everything: anything may come out of a library, and a panic in Rust is no Exception.
    except BaseException as error:
        raise translated(error) from error


def fail(name: str, error: FramewakeError, *, has_json: bool = False) -> int:
    """The line for an error, as an event on stdout too where that was asked for; its exit code."""
    code = exit_code(error)
    line = one_line(str(error))
    if has_json:
        record = {"event": "error", "kind": type(error).__name__, "message": line, "exit_code": code}
        sys.stdout.write(escaped(json.dumps(record, ensure_ascii=False)) + "\n")
        sys.stdout.flush()
    sys.stderr.write(fitted(f"{name}: {line}", sys.stderr, indent="  ") + "\n")
    sys.stderr.flush()
    return code


def _watch_threads(name: str) -> None:
    """What fails beside the work, in a thread or while an object is thrown away, is one line as well."""

    def tell(what: str, error: BaseException | None) -> None:
        if error is not None and not isinstance(error, (SystemExit, KeyboardInterrupt)):
            line = one_line(f"{what}: {type(error).__name__}: {error}")
            sys.stderr.write(f"{name}: {line} ({keep_traceback(error)})\n")

    def thread(found: Any) -> None:
        tell("beside the work, something failed", found.exc_value)

    def thrown_away(found: Any) -> None:
        tell("while clearing up, something failed", found.exc_value)

    threading.excepthook, sys.unraisablehook = thread, thrown_away
