"""The ``framewake`` program: arguments in, an exit code out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from framewake import __version__
from framewake.app.reporting import reporting
from framewake.console.ending import run_program
from framewake.errors import Cancelled, InputError, exit_code

# Commands that make or change something: they have done it, whether or not anybody reads what they print.
_MAKERS = {("animate",), ("serve",), ("worker",), ("mcp",)} | {
    (group, command)
    for group, commands in {
        "checkpoints": ("convert", "download"),
        "lora": ("convert", "merge", "train"),
        "jobs": ("cancel", "pause", "resume", "retry", "rm"),
    }.items()
    for command in commands
}


class UsageError(InputError):
    """What was typed is no command line of framewake."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit: errors are one line on stderr, the code is from ``errors.EXIT_CODE``."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    makes = bool(_MAKERS & {tuple(given[:1]), tuple(given[:2])}) and not {"-h", "--help"} & set(given)
    run_program("framewake", lambda: reporting(lambda: run(given)), has_json="--json" in given, is_answer=not makes)


def run(given: Sequence[str]) -> int:
    """Run the command line.

    Raises: FramewakeError of any kind, KeyboardInterrupt.
    """
    if list(given) == ["--version"]:  # scripts ask this often, and parsing takes ten times as long
        sys.stdout.write(f"framewake {__version__}\n")
        return 0
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    import typer

    from framewake.app.commands import app

    # ClickException: typer has its own copy of click or uses the real one, depending on its version.
    usage_error: Any = typer.BadParameter.__mro__[2]
    try:
        code = app(args=list(given), prog_name="framewake", standalone_mode=False)
    except usage_error as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # a group alone: help, as the program alone gives it
            sys.stdout.write(f"{error.format_message()}\n")
            return 0
        raise UsageError(usage_text(error)) from error
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    if code == exit_code(Cancelled()):  # typer makes this of an interrupt, without a word
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def usage_text(error: Any) -> str:
    """A mistake in the command line as typer tells it, in the form of our own messages and with where to look."""
    told = error.format_message()
    told = told[:1].lower() + told[1:] + ("" if told.endswith((".", "?")) else ".")
    command = "framewake" if error.ctx is None else error.ctx.command_path
    return f"{told} See `{command} --help`."


if __name__ == "__main__":
    main()
