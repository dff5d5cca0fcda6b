"""What latents were made from, and where: what must be unchanged for a clip to be continued from them.

Other sources make it another clip, so they are refused. Computed elsewhere, it is the same clip, but not byte for byte.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from framewake.engine.contract import Engine
from framewake.engine.group import asked_threads
from framewake.errors import CheckpointError, InputError
from framewake.media.metadata import package_versions
from framewake.pipeline.jobs import Plan, count_steps, request_from
from framewake.pipeline.latents import SavedLatents
from framewake.request import Request, Settled, from_dict, open_settings, settled
from framewake.setting import shown
from framewake.weights.checkpoint.component import LARGER_DIT, UPSAMPLER
from framewake.weights.checkpoint.identity import identity
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.reading.files import weight_files

UNFIT = "the saved latents do not fit their own settings: begin the clip anew."
DECODER = "the autoencoder"  # the only source that finished latents still need


def part_sources(checkpoint: Checkpoint) -> dict[str, str]:
    """Digests of a checkpoint's parts by their names for a person: configuration and samples of the weights.

    Raises: CheckpointError when a file cannot be read.
    """
    found = {}
    for row in checkpoint.rows:
        files = [file for path in checkpoint.layout.weights[row.name] for file in weight_files(path)]
        try:
            weights = identity(files)
        except OSError as error:
            raise CheckpointError(f"{error.filename} cannot be read ({error.strerror}).") from error
        text = f"{checkpoint.config(row)!r} {weights}"
        found[f"the {row.word}"] = hashlib.sha256(text.encode()).hexdigest()
    return found


def clip_sources(plan: Plan, checkpoint: Checkpoint, parts: Mapping[str, str]) -> dict[str, str]:
    """Digests of all that a clip is made from: picture, LoRAs, and of the parts those that it needs."""
    enlarging = [f"the {row.word}" for row in checkpoint.rows if row.name in (UPSAMPLER, LARGER_DIT)]
    return {name: parts[name] for name in parts if plan.larger is not None or name not in enlarging} | plan.sources()


def check_sources(then: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Whether latents were made from what is here now.

    Raises: InputError that names what has changed.
    """
    changed = sorted(name for name in then.keys() | now.keys() if then.get(name) != now.get(name))
    if changed:
        what = f"{changed[0]} is not" if len(changed) == 1 else f"{' and '.join(changed)} are not"
        raise InputError(f"{what} what the clip was begun with: put back what it was, or begin the clip anew.")


def own_request(
    saved: SavedLatents, checkpoint: Checkpoint, parts: Mapping[str, str], *, asked: Request | None
) -> Settled:
    """The request that latents were saved for, once they are known to be of this checkpoint and of what is asked for.

    ``parts`` are the ``part_sources`` of the checkpoint; of them, only the decoder's is compared here.
    Raises: InputError.
    """
    own, name = from_dict(request_from(saved.metadata)), saved.metadata.get("checkpoint")
    if name != checkpoint.settings.name or saved.latents.shape[1] != checkpoint.vae.latent_channels:
        raise InputError(
            f"the latents were made with the checkpoint {name!r}, this one is {checkpoint.settings.name!r}: name the "
            "same one with --checkpoint."
        )
    if open_settings(own):
        raise InputError(UNFIT)
    found = settled(own)
    if not 0 < saved.step <= count_steps(found, checkpoint):
        raise InputError(UNFIT)
    others = [] if asked is None else other_settings(asked, own)
    if others:
        raise InputError(f"the saved latents are of another clip ({'; '.join(others)}): begin the clip anew.")
    check_sources({DECODER: saved.sources.get(DECODER, "")}, {DECODER: parts[DECODER]})
    return found


def check_fit(saved: SavedLatents, plan: Plan) -> None:
    """Whether saved latents have the sizes of a plan: while a clip is enlarged, of both.

    Raises: InputError.
    """
    is_larger = saved.step > plan.request.steps
    wanted = [plan.larger, plan] if is_larger else [plan]
    found = [array for array in (saved.latents, saved.lesser) if array is not None]
    sizes = [None if each is None else (1, *each.latent) for each in wanted]
    if [array.shape for array in found] != sizes:
        raise InputError(UNFIT)


def other_settings(asked: Request, saved: Request) -> list[str]:
    """Settings in which a saved request is not the one that was asked for, as "seed 3, saved 5".

    Picture and LoRAs are compared by content, elsewhere. What was left open may have become anything.
    """
    found = []
    for name, value in asked.to_dict().items():
        then = getattr(saved, name)
        is_open = value is None or (name, value) == ("precision", "auto")
        if name not in ("image", "loras") and not is_open and value != then:
            found.append(f"{name} {shown(value)}, saved {shown(then)}")
    return found


def origin_of(engine: Engine) -> dict[str, Any]:
    """Engine, device, threads, kernels and versions, ready for JSON.

    The number of threads decides in which order a CPU adds numbers up, and the processor which instructions it uses.
    """
    versions = package_versions(engine.name)
    found: dict[str, Any] = {"engine": engine.name, "devices": engine.size(), "versions": versions}
    if engine.traits.is_host:
        return found | {"processor": _processor(), "threads": _threads()}
    memory = f"{engine.memory()['total'] / 2**30:.1f} GiB"
    return found | {"device memory": memory, "attention": ", ".join(engine.attention_kernels())}


def take_kernels(engine: Engine, origin: Mapping[str, Any]) -> None:
    """Attend as it was done where saved latents come from: the kernels are chosen by a timing, and differ a little."""
    recorded = origin.get("attention")
    if isinstance(recorded, str):
        engine.attention_kernels(recorded.split(", "))


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed, as "threads 2, now 4"; nothing for what was not recorded."""
    found = []
    for name in sorted(then.keys() & now.keys()):
        if isinstance(then[name], Mapping) and isinstance(now[name], Mapping):
            found += differences(then[name], now[name])
        elif then[name] != now[name]:
            found.append(f"{name} {then[name]}, now {now[name]}")
    return found


def _threads() -> int:
    """How many threads a framework takes by itself."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return asked_threads() or cores


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()
