"""Optional packages: one way to ask for them, and one to import large ones."""

from __future__ import annotations

import gc
import importlib
import importlib.metadata
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from framewake.errors import EngineError

# Name of import -> the extra that brings it.
EXTRA = {
    "fastapi": "web",
    "uvicorn": "web",
    "sqlalchemy": "web",
    "multipart": "web",
    "pydantic": "web",
    "httpx": "web",
    "prometheus_client": "web",
    "gradio": "web",
    "psycopg": "web",
    "mcp": "mcp",
    "huggingface_hub": "download",
    "flip_evaluator": "quality",
    "tensorboardX": "tensorboard",
    "torch": "torch",
    "mindspore": "mindspore",
}

# Name of import -> what to install, where that has another name.
_PROJECT = {"PIL": "Pillow"}


def install_line(name: str) -> str:
    """The command that installs a package, by the name it is imported by; in quotes, as a shell needs them."""
    extra = f"[{EXTRA[name]}]" if name in EXTRA else ""
    try:
        importlib.metadata.version("framewake")
    except importlib.metadata.PackageNotFoundError:  # a checkout that is only run lacks everything
        return f'pip install "{Path(__file__).parents[2]}{extra}"'
    return f'pip install "framewake{extra}"' if extra else f"pip install {_PROJECT.get(name, name)}"


def need(what: str, *names: str) -> None:
    """Nothing when all of the packages are there.

    Raises: EngineError with the command that installs them.
    """
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        lines = dict.fromkeys(install_line(name) for name in missing)
        raise EngineError(f"{what} needs {', '.join(missing)}. Run: {' && '.join(lines)}")


def imported(name: str) -> ModuleType:
    """A module, imported without looking for garbage: a framework makes half a million objects that all stay.

    Looking through them took a seventh of the time to a first step, and a quarter of Gradio's import. They are then
    left out of every later search too; reference counts still free them. In a program that has the framework already,
    there is more than ours, and what lies there in circles must be found later.
    """
    is_first = name.rpartition(".")[2] not in sys.modules
    is_enabled = gc.isenabled()
    gc.disable()
    try:
        module = importlib.import_module(name)
        if is_first:
            gc.freeze()
    finally:
        if is_enabled:
            gc.enable()
    return module
