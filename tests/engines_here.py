"""The engines that are installed: every test that needs no certain one runs on these."""

from __future__ import annotations

import importlib.util

import pytest

INSTALLED = [f"{kind}:cpu" for kind in ("torch", "mindspore") if importlib.util.find_spec(kind)]
FIRST = next(iter(INSTALLED), "")  # for what is the same on all of them; scripts/versions has none
needs_torch = pytest.mark.skipif("torch:cpu" not in INSTALLED, reason="torch is not installed")
