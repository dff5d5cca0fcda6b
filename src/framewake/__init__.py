"""framewake: one picture and one prompt become a clip with HunyuanVideo-I2V.

from framewake import Pipeline, Request
for event in Pipeline.load("demo").run(Request("the red circle moves right", image="circle.png"), "clip.mp4"):
    ...
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

# Public name -> module. Imported when first used: the command line must answer --help at once.
_PUBLIC = {
    "FramewakeError": "framewake.errors",
    "Job": "framewake.pipeline",
    "Note": "framewake.pipeline",
    "Output": "framewake.pipeline",
    "Pipeline": "framewake.pipeline",
    "Request": "framewake.request",
    "Result": "framewake.pipeline",
    "Step": "framewake.pipeline",
    "preset": "framewake.request",
}

__all__ = ["FramewakeError", "Job", "Note", "Output", "Pipeline", "Request", "Result", "Step", "__version__", "preset"]


def __dir__() -> list[str]:
    return list(__all__)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'framewake' has no attribute {name!r}")
