"""One text for both engines: the ``engine`` fixture yields every engine that is installed here."""

from __future__ import annotations

import pytest
from engines_here import INSTALLED
from gaps import FILE, read_gaps

from framewake import engine as engines


@pytest.fixture(params=INSTALLED, scope="session")
def engine(request):
    return engines.get(request.param)


def pytest_collection_modifyitems(items):
    gaps = read_gaps(FILE.read_text())
    for item in items:
        if item.nodeid in gaps:
            item.add_marker(pytest.mark.xfail(reason=gaps[item.nodeid], strict=True))
