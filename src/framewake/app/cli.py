"""The ``framewake`` program: arguments in, an exit code out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from framewake import __version__
from framewake.errors import Cancelled, FramewakeError, exit_code


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: errors are one line on stderr, the code is from ``errors.EXIT_CODE``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--version"]:  # scripts ask this often, and parsing takes ten times as long
        sys.stdout.write(f"framewake {__version__}\n")
        sys.exit(0)
    import typer

    from framewake.app.commands import app

    # ClickException: typer has its own copy of click or uses the real one, depending on its version.
    usage_error: Any = typer.BadParameter.__mro__[2]
    try:
        code = app(args=given, prog_name="framewake", standalone_mode=False)
    except usage_error as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group alone: help, as the program alone gives it
            sys.stdout.write(f"{error.format_message()}\n")
            sys.exit(0)
        fail(usage_text(error), error.exit_code, "UsageError", given)
    except FramewakeError as error:
        fail(str(error), exit_code(error), type(error).__name__, given)
    except (KeyboardInterrupt, typer.Abort):
        fail("stopped.", exit_code(Cancelled()), "Cancelled", given)
    except BrokenPipeError:
        # The reader of our output went away: that is its right, and nobody is left to read a message.
        sys.stderr.close()
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def usage_text(error: Any) -> str:
    """A mistake in the command line as typer tells it, in the form of our own messages and with where to look."""
    told = error.format_message()
    told = told[:1].lower() + told[1:] + ("" if told.endswith((".", "?")) else ".")
    command = "framewake" if error.ctx is None else error.ctx.command_path
    return f"{told} See `{command} --help`."


def fail(message: str, code: int, kind: str, arguments: Sequence[str]) -> NoReturn:
    """Exit with one line on stderr, and with --json also with an event on stdout."""
    line = " ".join(message.split())
    if "--json" in arguments:
        record = {"event": "error", "kind": kind, "message": line, "exit_code": code}
        sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    sys.stderr.write(f"framewake: {line}\n")
    sys.exit(code)


if __name__ == "__main__":
    main()
