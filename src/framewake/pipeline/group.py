"""One clip made by several processes: the first one runs the pipeline, the others follow what it tells them.

All hold the whole latents and make every step of the solver themselves; inside the transformer each has its share.
Pictures, texts, noise, saving and writing are the first one's alone.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from framewake.demo import LORAS, shipped
from framewake.engine.contract import Tensor
from framewake.errors import EngineError, InputError
from framewake.models.arrangement import Division, arrange
from framewake.models.dit import TextPart, TextStates
from framewake.pipeline.adapters import open_loras
from framewake.pipeline.forecast.place import Placement
from framewake.pipeline.jobs import Plan
from framewake.pipeline.latents import SavedLatents
from framewake.pipeline.messages import Lead, Link, Message, meet
from framewake.pipeline.origin import part_sources
from framewake.pipeline.parts import Parts
from framewake.pipeline.precision import Precision, choose_precision
from framewake.pipeline.velocity import Condition
from framewake.request import from_dict, settled
from framewake.shapes import LatentShape, PixelShape, token_grid

FURTHER = "further/"  # before the names of a text's further parts
CACHE = "cache/"  # before the names of a step cache's arrays
STATES, POOLED, IMAGE, LESSER, LATENTS = "states", "pooled", "image", "lesser", "latents"


def division_of(parts: Parts, plan: Plan) -> Division:
    """How the devices of a pipeline share a clip's transformer.

    Raises: InputError for more devices than there are tokens to share.
    """
    config = parts.checkpoint.configs[plan.transformer]
    frames, height, width = token_grid(plan.latent, config.patch_size)
    samples = 1 + (plan.request.guidance_scale > 1)
    arrangement = arrange(parts.devices, config.heads, samples=samples)
    rank = parts.engine.rank() if parts.devices > 1 else 0
    return Division(arrangement, rank, frames * height * width, config.heads).check()


def join_in(parts: Parts) -> Link | None:
    """Let the processes of an engine meet; what comes back leads to the first one, and is None in that.

    Raises: InputError in a process that has another checkpoint than the first one, or another kind of engine.
    """
    meeting = meet(parts.engine)
    parts.devices = parts.engine.size()
    if isinstance(meeting, Link):
        _check_alike(meeting.receive().values, _makings(parts))
        return meeting
    if not meeting.is_alone:
        meeting.tell("compare", _makings(parts))
    parts.lead = meeting
    return None


def _makings(parts: Parts) -> dict[str, str]:
    """What has to be the same in all processes, or each would make its part of another clip."""
    return {"the engine": re.sub(r":\d+", "", parts.engine.name)} | part_sources(parts.checkpoint)


def _check_alike(first: Mapping[str, Any], own: Mapping[str, str]) -> None:
    other = sorted(name for name in first.keys() | own.keys() if first.get(name) != own.get(name))
    if other:
        what = f"{other[0]} is not" if len(other) == 1 else f"{' and '.join(other)} are not"
        raise InputError(f"{what} what the first process has: give all of them the same --checkpoint and --engine.")


# --- the first process


def call(
    parts: Parts, plan: Plan, condition: Condition, precision: Precision, begun: tuple[int, Tensor], *, cache: Any
) -> None:
    """Tell the others to denoise a clip: everything that they need for it, and where their weights go."""
    if parts.lead.is_alone:
        return
    text = condition.text
    found = {STATES: text.states, POOLED: text.pooled, LATENTS: begun[1], IMAGE: condition.image}
    found[LESSER] = condition.lesser
    found |= {FURTHER + name: part.states for name, part in text.further.items()}
    tensors = {name: tensor for name, tensor in found.items() if tensor is not None}
    values = {
        "request": plan.request.to_dict(),
        "transformer": plan.transformer,
        "shape": list(plan.shape),
        "latent": list(plan.latent),
        "loras": [[_place(lora.use.path), lora.digest] for lora in plan.loras],
        "lengths": list(text.lengths),
        "further": {name: list(part.lengths) for name, part in text.further.items()},
        "precision": precision.name,
        "placements": _placements(parts),
        "step": begun[0],
        "types": {name: parts.engine.dtype(tensor) for name, tensor in tensors.items()},
    }
    arrays = {name: parts.engine.numpy(tensor) for name, tensor in tensors.items()}
    parts.lead.tell("denoise", values, arrays=arrays | {CACHE + name: array for name, array in cache.items()})


def call_to_decode(parts: Parts, latents: np.ndarray, precision: Precision) -> None:
    """Tell the others to decode tiles. Shapes: latents (1, C, F, H, W), as the autoencoder takes them."""
    values = {"precision": precision.name, "placements": _placements(parts)}
    parts.lead.tell("decode", values, arrays={LATENTS: latents})


def led(lead: Lead, steps: Iterator[Any]) -> Generator[Any, None, None]:
    """Steps that the others make too; closed between two of them, all stop behind the same one."""
    if lead.is_alone:
        yield from steps
        return
    try:
        lead.wait()
        while True:
            with lead.together():
                lead.tell("step")
                step = next(steps, None)
            if step is None:
                return
            yield step
    finally:
        if lead.is_in_step:
            lead.lose()
        else:
            lead.tell("end")


# --- the others


class Told(NamedTuple):
    """What is known of a clip in a process that follows."""

    plan: Plan
    condition: Condition
    precision: Precision
    begun: tuple[int, Tensor]
    start: SavedLatents | None


# What a process does when it is told: its steps, and what it does when something is to be kept between two of them.
Works = Mapping[str, Callable[[Parts, Message], tuple[Iterator[Any], Callable[[], object]]]]


def follow(parts: Parts, link: Link | None, works: Works) -> None:
    """Do what the first process tells, until it sends home.

    Raises: PeerError when the first process ends without a word; EngineError in the first; whatever the work raises.
    """
    if link is None:
        raise EngineError("this is the first process, or the only one: it leads, and follows nobody.")
    with contextlib.closing(link):
        _follow(parts, link, works)


def _follow(parts: Parts, link: Link, works: Works) -> None:
    while (message := link.receive()).do != "leave":
        if message.do == "release":
            parts.release(*message.values["names"])
            continue
        parts.placements = {name: Placement(*place) for name, place in message.values["placements"].items()}
        steps, keep = works[message.do](parts, message)
        link.send(Message("ready"))
        while (order := link.receive()).do != "end":
            if order.do == "keep":
                keep()
            else:
                next(steps, None)


def told_clip(parts: Parts, message: Message) -> Told:
    """What ``call`` has told.

    Raises: InputError where a LoRA is another file here.
    """
    engine, values = parts.engine, message.values
    sent = {name: engine.asarray(message.arrays[name], kind) for name, kind in values["types"].items()}
    further = {name: TextPart(sent[FURTHER + name], tuple(lengths)) for name, lengths in values["further"].items()}
    text = TextStates(sent[STATES], tuple(values["lengths"]), sent.get(POOLED), further)
    condition = Condition(text, sent.get(IMAGE), sent.get(LESSER))
    cache = {name.removeprefix(CACHE): x for name, x in message.arrays.items() if name.startswith(CACHE)}
    start = SavedLatents(message.arrays[LATENTS], {}, values["step"], {}, {}, cache) if values["step"] else None
    precision = choose_precision(values["precision"], engine)
    return Told(_plan(parts, values), condition, precision, (values["step"], sent[LATENTS]), start)


def _place(path: str) -> str:
    """Where a LoRA is for a process that may stand in another folder; what ships is found by its name."""
    return path if shipped(path, LORAS) else os.path.abspath(os.path.expanduser(path))


def _placements(parts: Parts) -> dict[str, list[Any]]:
    return {name: list(place) for name, place in parts.placements.items()}


def _plan(parts: Parts, values: Mapping[str, Any]) -> Plan:
    """The first process's plan, without what only that one needs.

    Raises: InputError where a LoRA is another file here.
    """
    request = settled(from_dict(values["request"]))
    uses = [use._replace(path=path) for use, (path, _) in zip(request.uses, values["loras"], strict=True)]
    loras = open_loras(request, uses, parts.checkpoint)
    other = [lora.lora.path for lora, (_, digest) in zip(loras, values["loras"], strict=True) if lora.digest != digest]
    if other:
        raise InputError(f"{other[0]} is not the file that the first process has: copy it to every host.")
    shape, latent = PixelShape(*values["shape"]), LatentShape(*values["latent"])
    return Plan(request, None, shape, latent, request.step_cache, loras, transformer=values["transformer"])
