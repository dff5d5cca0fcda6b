"""The pack's files as modules, without ComfyUI: those that import nothing of it."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

PACK = Path(__file__).parents[1] / "comfyui"


def load(name: str) -> ModuleType:
    """A file of the pack; its package is entered without running ``__init__.py``, which asks for ComfyUI."""
    if "framewake_pack" not in sys.modules:
        package = ModuleType("framewake_pack")
        package.__path__ = [str(PACK)]
        sys.modules["framewake_pack"] = package
    return importlib.import_module(f"framewake_pack.{name}")
