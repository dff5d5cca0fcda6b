"""The few names of ComfyUI that the nodes touch, for tests without it.

It keeps what it is told, and proves neither that ComfyUI has these names nor that it calls the nodes as the tests do:
docs/comfyui.md says with which ComfyUI the nodes were run, and how.
"""

from __future__ import annotations

import sys
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import torch


class Stopped(BaseException):
    """The run was stopped at the page."""


class Told:
    """What the page was told, and the stop button."""

    def __init__(self) -> None:
        self.values: list[int] = []
        self.previews: list[tuple[str, Any, int]] = []
        self.texts: list[tuple[str, str]] = []
        self.unloaded = 0
        self.stop_after: int | None = None

    def check(self) -> None:
        if self.stop_after is not None and len(self.previews) >= self.stop_after:
            raise Stopped

    def update(self, value: int, total: int, preview: Any = None) -> None:
        assert 0 <= value <= total == 100
        self.values.append(value)
        if preview is not None:
            self.previews.append(preview)

    def unload(self) -> None:
        self.unloaded += 1


class Given(dict):
    """Whatever a schema, an input or an output was made with."""

    def __init__(self, *names: str, **rest: Any) -> None:
        super().__init__(rest, names=names)


def _kind(name: str) -> SimpleNamespace:
    return SimpleNamespace(Input=Given, Output=Given, name=name)


def modules(told: Told, folder: Path) -> dict[str, ModuleType]:
    """The modules by their names; ComfyUI's folders are below ``folder``."""

    def module(name: str, **names: Any) -> ModuleType:
        made = ModuleType(name)
        made.__dict__.update(names)
        return made

    kinds = {kind: _kind(kind) for kind in ("Boolean", "Combo", "Float", "Int", "String", "Image", "Video")}
    io = SimpleNamespace(Schema=Given, ComfyNode=object, NodeOutput=lambda *args: args, Custom=_kind, **kinds)
    video = SimpleNamespace(VideoFromFile=lambda path: SimpleNamespace(get_stream_source=lambda: path))
    known: dict[str, list[str]] = {"diffusers": [str(folder / "diffusers")], "framewake": []}
    return {
        "comfy": module("comfy", __path__=[]),
        "comfy.model_management": module(
            "comfy.model_management",
            throw_exception_if_processing_interrupted=told.check,
            unload_all_models=told.unload,
            soft_empty_cache=lambda: None,
            get_torch_device=lambda: torch.device("cpu"),
        ),
        "comfy.utils": module(
            "comfy.utils", ProgressBar=lambda total: SimpleNamespace(update_absolute=told.update, total=total)
        ),
        "comfy.cli_args": module("comfy.cli_args", args=SimpleNamespace(preview_size=512)),
        "comfy_execution": module("comfy_execution", __path__=[]),
        "comfy_execution.utils": module(
            "comfy_execution.utils", get_executing_context=lambda: SimpleNamespace(node_id="3")
        ),
        "comfy_api": module("comfy_api", __path__=[]),
        "comfy_api.latest": module("comfy_api.latest", io=io, InputImpl=video, ComfyExtension=object),
        "folder_paths": module(
            "folder_paths",
            models_dir=str(folder),
            get_folder_paths=lambda kind: known[kind],
            add_model_folder_path=lambda kind, path: known[kind].append(path),
            get_filename_list=lambda kind: ["mine.safetensors"],
            get_full_path=lambda kind, name: str(folder / kind / name) if name.startswith("mine") else None,
            get_temp_directory=lambda: str(folder / "temp"),
        ),
        "server": module(
            "server",
            PromptServer=SimpleNamespace(
                instance=SimpleNamespace(send_progress_text=lambda text, node: told.texts.append((text, node)))
            ),
        ),
    }


@contextmanager
def standing_in(told: Told, folder: Path) -> Any:
    """The modules in place of ComfyUI's, and the pack's own without what they held before."""
    found = modules(told, folder)
    before = {name: sys.modules.get(name) for name in found}
    own = [name for name in sys.modules if name.startswith("framewake_pack")]
    held = {name: sys.modules.pop(name) for name in own}
    sys.modules.update(found)
    for name in found:
        above, _, last = name.rpartition(".")
        if above:
            setattr(found[above], last, found[name])
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name.startswith("framewake_pack")]:
            del sys.modules[name]
        sys.modules.update(held)
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
