"""Choosing an engine by name.

    torch:cpu   torch:cuda[:n][+fp8]   mindspore:cpu   mindspore:ascend[:n]   auto

With ``+fp8``, large linear layers are computed in e4m3: a little faster on Ada and Hopper, and a little less exact.

Importing this package imports no framework; ``get`` imports the one it was asked for.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
from pathlib import Path
from types import ModuleType

from framewake.console.escape import one_line
from framewake.engine.contract import Engine
from framewake.engine.group import Group, group_of
from framewake.errors import EngineError, InputError, nearest
from framewake.packages import imported
from framewake.setting import shown

__all__ = ["Engine", "get", "installed", "join", "leave", "parsed"]

_INSTALL = {
    "torch": "pip install torch",
    "mindspore": 'pip install "mindspore==2.10.0" "numpy<2" "scipy<1.18"  (Python 3.10 to 3.12)',
}
_NAMES = ("torch:cpu", "torch:cuda", "mindspore:cpu", "mindspore:ascend")
_engines: dict[str, Engine] = {}


def get(name: str = "auto") -> Engine:
    """The engine of a name; the same object for the same name.

    ``auto`` prefers an Ascend device, then CUDA, then torch on the CPU, then MindSpore on the CPU; the engine's
    ``reason`` says why it was taken.

    Raises: InputError for an unknown name, EngineError for a framework that is not installed or does not start, and
    for a device that is not there.
    """
    if name == "auto":
        if name not in _engines:
            _engines[name] = _choose()
        return _engines[name]
    if name in _engines:
        return _engines[name]
    kind, device = parsed(name)
    device = re.sub(r"^(cuda|ascend)(?!:)", r"\1:0", device)
    full = f"{kind}:{device}"
    if full not in _engines:
        _engines[full] = _make(_framework(kind, name), device, "asked for")
    return _engines[full]


def parsed(name: str) -> tuple[str, str]:
    """Framework and device of a name.

    Raises: InputError.
    """
    if re.fullmatch(r"torch:(cpu|cuda(:\d+)?(\+fp8)?)|mindspore:(cpu|ascend(:\d+)?)", name) is None:
        known = [*_NAMES, "auto"]
        raise InputError(f"engine {shown(name)} is unknown: choose one of {', '.join(known)}.{nearest(name, known)}")
    kind, _, device = name.partition(":")
    return kind, device


def join(name: str = "auto") -> Engine:
    """The engine of this process among those that a launcher has started: ``get`` in a process alone.

    A device without a number is the one of this process's number on its host. From now on ``get`` gives this engine
    for this name. A scheduler of MindSpore's stays in here until the others have ended.
    Raises: InputError, EngineError as ``get``; EngineError when the processes do not find each other.
    """
    group = group_of()
    if group is not None and name not in _engines:
        kind, device, reason = _own_device(name, group)
        reason = f"{reason}; process {group.rank} of {group.size}"
        _engines[name] = _engines[f"{kind}:{device}"] = _make(_framework(kind, name), device, reason, group)
    return get(name)


def leave() -> None:
    """End what ``join`` began, behind the last exchange."""
    for kind in {engine.kind for engine in _engines.values()}:
        importlib.import_module(f"framewake.engine.{kind}").leave()


def _own_device(name: str, group: Group) -> tuple[str, str, str]:
    """Framework and device of a name for one process of a group, and why."""
    reason = "asked for"
    if name == "auto":
        usable = [name for name in installed() if group.launcher != "msrun" or name.startswith("mindspore")]
        if not usable:
            raise EngineError(f"no framework is installed. Run: {_INSTALL['torch']}   or: {_INSTALL['mindspore']}")
        name, reason = usable[0], f"auto: the first that is there for {group.launcher}"
    kind, device = parsed(name)
    return kind, re.sub(r"^(cuda|ascend)(?!:)", rf"\1:{group.local_rank}", device), reason


def installed() -> list[str]:
    """Names of engines that should work here, best first, found without importing a framework."""
    has_torch, has_mindspore = (importlib.util.find_spec(kind) is not None for kind in ("torch", "mindspore"))
    names = []
    if has_mindspore and _has_device("davinci[0-9]*"):
        names.append("mindspore:ascend")
    if has_torch and _has_device("nvidia[0-9]*") and not importlib.metadata.version("torch").endswith("+cpu"):
        names.append("torch:cuda")
    return names + ["torch:cpu"] * has_torch + ["mindspore:cpu"] * has_mindspore


def _has_device(pattern: str) -> bool:
    return any(Path("/dev").glob(pattern))


def _choose() -> Engine:
    usable, refused = installed(), ""
    for kind, device, reason in (
        ("mindspore", "ascend:0", "an Ascend device is there"),
        ("torch", "cuda:0", "a CUDA device is there"),
    ):
        module = _framework(kind, "auto") if f"{kind}:{device[:-2]}" in usable else None
        if module is not None and device in module.devices():
            try:
                return _make(module, device, f"auto: {reason}")
            except EngineError as error:
                refused += f"; {error}"
    if "torch:cpu" in usable:
        reason = "auto: no Ascend or CUDA device found, and torch is the faster one on a CPU"
        return _make(_framework("torch", "auto"), "cpu", reason + refused)
    if "mindspore:cpu" in usable:
        reason = "auto: no Ascend device found, and torch is not installed"
        return _make(_framework("mindspore", "auto"), "cpu", reason + refused)
    raise EngineError(f"no framework is installed. Run: {_INSTALL['torch']}   or: {_INSTALL['mindspore']}")


def _framework(kind: str, name: str) -> ModuleType:
    """The module of a framework, for the engine of this name."""
    if importlib.util.find_spec(kind) is None:
        raise EngineError(f"{name} needs {kind}, which is not installed. Run: {_INSTALL[kind]}")
    try:
        return imported(f"framewake.engine.{kind}")
    except EngineError:
        raise
    except Exception as error:  # a broken or half updated package fails with anything
        why = one_line(f"{type(error).__name__}: {error}")[:300]
        raise EngineError(f"{kind} is installed but does not start ({why}). Run: {_INSTALL[kind]}") from error


def _make(module: ModuleType, device: str, reason: str, group: Group | None = None) -> Engine:
    found = module.devices()
    if device.partition("+")[0] not in found:
        kind = module.__name__.rpartition(".")[2]
        there = ", ".join(f"{kind}:{item}" for item in found)
        raise EngineError(
            f"there is no device {device!r} for {kind} here: choose one of {there}. {module.why_absent(device)}"
        )
    return module.make(device, reason, group)
