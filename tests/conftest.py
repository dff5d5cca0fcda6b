"""One text for both engines: the ``engine`` fixture yields every engine that is installed here."""

from __future__ import annotations

import importlib.util

import pytest

from framewake import engine as engines

INSTALLED = [f"{kind}:cpu" for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]


@pytest.fixture(params=INSTALLED, scope="session")
def engine(request):
    return engines.get(request.param)
