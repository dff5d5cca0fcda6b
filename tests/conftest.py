"""One text for both engines: the ``engine`` fixture yields every engine that is installed here."""

from __future__ import annotations

import gc
import signal

import pytest
from engines_here import INSTALLED
from gaps import FILE, read_gaps

from framewake import engine as engines


@pytest.fixture(params=INSTALLED, scope="session")
def engine(request):
    return engines.get(request.param)


@pytest.fixture(autouse=True)
def signals_as_before():
    """A run that was asked to end leaves its handlers, because its process is about to end: this one is not."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)


gc.disable()  # until all tests are collected


def pytest_collection_finish():
    """What thousands of tests are made of stays: looking through it for garbage took a tenth of the time."""
    gc.freeze()
    gc.enable()


def pytest_collection_modifyitems(items):
    gaps = read_gaps(FILE.read_text())
    for item in items:
        if item.nodeid in gaps:
            item.add_marker(pytest.mark.xfail(reason=gaps[item.nodeid], strict=True))
