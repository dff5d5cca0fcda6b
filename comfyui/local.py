"""A run in ComfyUI's own process, with framewake's Pipeline."""

from __future__ import annotations

import contextlib
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import comfy.model_management

from .outputs import kept_picture, made, new_clip
from .settings import Refused, request_settings
from .values import Local, LoraFile, Wish
from .watch import Watch, enlarged

GIB = 2**30
_ONE_AT_A_TIME = threading.Lock()
_opened: weakref.WeakSet[Local] = weakref.WeakSet()


def need_framewake() -> None:
    """Raises: Refused with the command that installs it, where it is missing."""
    try:
        import framewake  # noqa: F401
    except ImportError as error:
        command = f'{sys.executable} -m pip install "framewake[torch]"'
        raise Refused(f"framewake is not installed in ComfyUI's Python: {command}") from error


def engine_here() -> str:
    """The engine on the device that ComfyUI itself computes on.

    Raises: Refused for a device that framewake has no engine for.
    """
    device = comfy.model_management.get_torch_device()
    if device.type == "cuda":
        return f"torch:cuda:{device.index or 0}"
    if device.type == "cpu":
        return "torch:cpu"
    raise Refused(f"framewake does not compute on {device.type} in this process: use the node for a server.")


def make(model: Local, wish: Wish, loras: Sequence[LoraFile], png: bytes) -> tuple[Any, ...]:
    """Make a clip, told on the page, and return its outputs.

    Raises: FramewakeError, Refused, and ComfyUI's own exception when it is stopped.
    """
    need_framewake()
    from framewake import Output, Request, Result

    with _ONE_AT_A_TIME:
        pipeline = _pipeline(model)
        request = Request(image=str(kept_picture(png)), **request_settings(wish, loras))
        output = Output(new_clip(), save_every=0, picture_name="the picture")
        watch, result = Watch(), None
        comfy.model_management.unload_all_models()
        comfy.model_management.soft_empty_cache()
        try:
            with contextlib.closing(pipeline.run(request, output)) as events:
                for event in _shown(events, watch):
                    if isinstance(event, Result):
                        result = event
        finally:
            comfy.model_management.soft_empty_cache()
    assert result is not None and result.path is not None, "a run ends with its result"
    watch.say(f"seed {result.seed}, {sum(result.timings.values()):.0f} s")
    return made(result.frames, result.metadata["request"]["fps"], result.path)


def _pipeline(model: Local) -> Any:
    """The open pipeline of a checkpoint; any other is closed first, so that one is in memory at a time."""
    from framewake import Pipeline

    for other in [other for other in _opened if other is not model]:
        other.pipeline = None
        _opened.discard(other)
    if model.pipeline is None:
        engine = engine_here() if model.engine == "auto" else model.engine
        model.pipeline = Pipeline.load(model.checkpoint, engine=engine, memory=model.memory_bytes)
        _opened.add(model)
    return model.pipeline


def _shown(events: Iterator[Any], watch: Watch) -> Iterator[Any]:
    """The events, each shown as it comes; before each one the stop button is looked at."""
    from framewake import Note, Step
    from framewake.pipeline import Tile

    for event in events:
        watch.check()
        if isinstance(event, Step):
            watch.step(event.index, event.count, seconds_left=event.seconds_left)
            watch.preview(enlarged(event.preview))
        elif isinstance(event, Tile):
            watch.decoded(event.index / event.count)
        elif isinstance(event, Note):
            watch.say(event.text)
        yield event
