"""Files and functions stay small. An exception is listed by name with its reason, and goes when it is not needed."""

from __future__ import annotations

import pytest
from package_source import ROOT, Function, functions, modules

MOST_FILE_LINES = 400
MOST_FUNCTION_LINES = 60
MOST_PARAMETERS = 7
POSITIONAL = 2  # from the next one on, a parameter with a default is keyword-only

LONG: dict[str, str] = {}
MANY_PARAMETERS: dict[str, str] = {
    "models.dit.DiT.__call__": "the model's own inputs; all but the first two are given by name",
    "models.dit.DiT.head": "the same inputs",
}
OPTIONS_BY_POSITION: dict[str, str] = {
    "service.routes._add_reading.list_videos": "FastAPI makes a query parameter of every parameter",
    "service.routes._add_files.video_content": "FastAPI makes a query parameter of every parameter",
    "service.worker.Worker.__init__": "what it works with, in one order everywhere",
    "app.original_flags.used": "a table of flags that is read as columns",
    "app.original_flags.unused": "a table of flags that is read as columns",
    "train.adapted.AdaptedLayers.linear": "an engine's operation, in the contract's order",
    "nn.rope.rope_table": "the four numbers that make a table, in the specification's order",
}

# An operation's signature is the contract's, where mathematics decides the order.
CONTRACT = "engine."

FUNCTIONS = {f.name: f for module in modules().values() for f in functions(module)}


def line_count(function: Function) -> int:
    return (function.node.end_lineno or 0) - function.node.lineno + 1


def positions(function: Function) -> list[str]:
    named = [a.arg for a in (*function.node.args.posonlyargs, *function.node.args.args)]
    return named[1:] if function.is_method and named[:1] in (["self"], ["cls"]) else named


def options_by_position(function: Function) -> list[str]:
    """Parameters with a default that can be given by position although they come third or later."""
    named, count = positions(function), len(function.node.args.defaults)
    first = max(POSITIONAL, len(named) - count)
    return named[first:]


def test_files_are_short():
    roots = [ROOT / name for name in ("src", "demonstration", "tests", "scripts", "comfyui", "deploy")]
    files = [path for root in roots for path in root.rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    long = {name: length for name, length in lengths.items() if length > MOST_FILE_LINES}
    assert files and not long, f"over {MOST_FILE_LINES} lines: {long}"


def test_functions_are_short():
    long = {name: line_count(f) for name, f in FUNCTIONS.items() if line_count(f) > MOST_FUNCTION_LINES}
    assert set(long) == set(LONG), f"over {MOST_FUNCTION_LINES} lines: {long}; exceptions: {list(LONG)}"


def test_parameters_are_few():
    many = {}
    for name, function in FUNCTIONS.items():
        count = len(positions(function)) + len(function.node.args.kwonlyargs)
        if count > MOST_PARAMETERS:
            many[name] = count
    assert set(many) == set(MANY_PARAMETERS), f"over {MOST_PARAMETERS}: {many}; exceptions: {list(MANY_PARAMETERS)}"


def test_options_are_named_by_the_caller():
    found = {name: options_by_position(f) for name, f in FUNCTIONS.items() if not name.startswith(CONTRACT)}
    found = {name: options for name, options in found.items() if options}
    assert set(found) == set(OPTIONS_BY_POSITION), f"put a * before: {found}; exceptions: {list(OPTIONS_BY_POSITION)}"


@pytest.mark.parametrize("reasons", [LONG, MANY_PARAMETERS, OPTIONS_BY_POSITION])
def test_every_exception_has_a_reason(reasons):
    assert all(len(reason) > 10 for reason in reasons.values())
