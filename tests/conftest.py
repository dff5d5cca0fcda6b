"""One text for both engines: the ``engine`` fixture yields every engine that is installed here."""

from __future__ import annotations

import gc

import pytest
from engines_here import INSTALLED
from gaps import FILE, read_gaps

from framewake import engine as engines


@pytest.fixture(params=INSTALLED, scope="session")
def engine(request):
    return engines.get(request.param)


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
