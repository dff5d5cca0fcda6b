"""A request's LoRAs: opened once before any work starts, added to the transformer's weights while it runs."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from framewake.config import HUNYUAN_DIT, DiTConfig
from framewake.config15 import HUNYUAN15_DIT, DiT15Config
from framewake.engine.contract import Dtype, Engine, Tensor
from framewake.errors import CheckpointError, InputError
from framewake.lora import ENDINGS, LoraUse
from framewake.models.dit import DiT
from framewake.models.dit15 import DiT15
from framewake.pipeline.family import Make
from framewake.request import Settled
from framewake.sampling.guide import Denoise, Timestep
from framewake.weights.checkpoint.identity import identity
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.lora.file import Lora, open_lora
from framewake.weights.lora.opening import find_lora
from framewake.weights.lora.report import report
from framewake.weights.lora.sizes import check_sizes
from framewake.weights.lora.targets import Targets
from framewake.weights.lora.view import LoraView
from framewake.weights.stores.store import Resident

log = logging.getLogger("framewake.loras")
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


# Files whose numbers were looked at: a batch or a server asks for every clip anew.
_SOUND: set[tuple[Any, ...]] = set()


class OpenedLora(NamedTuple):
    """A LoRA of a request, compared with the transformer. ``stamp`` is its file's time and size, ``digest`` tells its
    content and its use from others."""

    lora: Lora
    use: LoraUse
    stamp: tuple[int, int]
    digest: str


class Adapted(NamedTuple):
    """Weights for a run, and what a person should know of them. ``uses`` has a weight for each step."""

    weights: Any
    uses: tuple[LoraUse, ...]
    notes: tuple[str, ...]


# The transformer of a shape: a LoRA is looked at without a checkpoint too.
TRANSFORMERS: Mapping[type, Make] = {DiTConfig: DiT, DiT15Config: DiT15}
# The published transformers, no layer of which has the size of another one's; of 1.5, the one with the most tensors.
PUBLISHED = {
    "HunyuanVideo": HUNYUAN_DIT,
    "HunyuanVideo-1.5": dataclasses.replace(HUNYUAN15_DIT, is_step_distilled=True),
}


def published_targets() -> dict[str, Targets]:
    """What a LoRA can adapt in the published transformers, by the model's name."""
    return {name: targets_for(config) for name, config in PUBLISHED.items()}


def targets_of(checkpoint: Checkpoint) -> Targets:
    """What a LoRA can adapt in a checkpoint's transformer; nothing is loaded."""
    return targets_for(checkpoint.dit)


@lru_cache(maxsize=4)
def targets_for(config: DiTConfig) -> Targets:
    """What a LoRA can adapt in a transformer of a shape."""
    make = TRANSFORMERS[type(config)]
    return Targets.of(config, make(None, config).shapes())  # shapes need no engine


def open_loras(request: Settled, uses: Sequence[LoraUse], checkpoint: Checkpoint) -> tuple[OpenedLora, ...]:
    """The LoRAs of a request, each of which can be applied, and has a step to be applied at.

    Raises: InputError, CheckpointError for a file that is missing, damaged or for something else.
    """
    found = tuple(_opened(request, use, checkpoint.dit) for use in uses)
    for text, use in zip(request.loras, uses, strict=True):
        first = use.last_start()
        if first >= request.steps:
            raise InputError(f"LoRA {text!r}: the span from step {first} never comes, there are {request.steps} steps.")
    for each in found:
        key = (each.lora.path, each.stamp, checkpoint.dit, request.allows_partial_loras, request.ignores_lora_alpha)
        if key not in _SOUND:
            check_sizes(each.lora)
            _SOUND.add(key)
    return found


def _opened(request: Settled, use: LoraUse, dit: DiTConfig) -> OpenedLora:
    lora = open_lora(
        use.path,
        targets_for(dit),
        allows_partial=request.allows_partial_loras,
        ignores_alpha=request.ignores_lora_alpha,
    )
    told = f"{identity([find_lora(use.path)])} {use.spans}"
    return OpenedLora(lora, use, _stamp(lora.path), hashlib.sha256(told.encode()).hexdigest())


def _stamp(path: Path) -> tuple[int, int]:
    about = path.stat()
    return about.st_mtime_ns, about.st_size


def offered_loras(folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
    """The LoRA files of a folder that fit a checkpoint, by the name without its ending; others are told in the log."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() not in ENDINGS or path.name.startswith("."):  # macOS puts "._name" beside files
            continue
        if _fits(path, _stamp(path) if path.exists() else None, checkpoint.dit):
            found.setdefault(path.stem, path.name)
    return found


@lru_cache(maxsize=1024)
def _fits(path: Path, stamp: tuple[int, int] | None, dit: DiTConfig) -> bool:
    """Whether a file's header is that of a LoRA for a transformer; looked at once, and again when it has changed."""
    try:
        open_lora(path, targets_for(dit))
    except CheckpointError as error:
        log.warning("not offered: %s", error)
        return False
    return True


class Adapters:
    """Puts LoRAs over the transformer's weights; what was merged stays for the next clip that asks for the same."""

    def __init__(self, engine: Engine, shapes: Mapping[str, tuple[int, ...]]) -> None:
        self._engine = engine
        self._shapes = shapes
        self._key: Any = None
        self._view: LoraView | None = None

    def adapt(self, store: Any, opened: Sequence[OpenedLora], dtype: Dtype, *, room: int | None = None) -> Adapted:
        """The store itself without LoRAs, else a view of it that starts at the weights of step 0.

        ``room`` are the bytes that merged weights may take, a quarter of what is free when it is None.
        Raises: CheckpointError when a file has changed since it was opened.
        """
        if not opened:
            self.drop()
            return Adapted(store, (), ())
        for each in opened:
            _check_unchanged(each)
        loras, uses = [each.lora for each in opened], tuple(each.use for each in opened)
        key = (id(store), [(each.lora.path, each.stamp, each.lora.ignores_alpha, each.lora.updates) for each in opened])
        notes: tuple[str, ...] = ()
        if self._view is None or key != self._key:
            self.drop()
            room = self._engine.memory()["free"] // 4 if room is None else room
            keeps = isinstance(store, Resident) and self._bytes(loras, dtype) < room
            self._view, self._key = LoraView(self._engine, store, loras, keeps=keeps), key
            notes = tuple(self._sentence(store, lora, use) for lora, use in zip(loras, uses, strict=True))
        self._view.use([use.weight(0) for use in uses])
        return Adapted(self._view, uses, notes)

    def drop(self) -> None:
        """Let go of what was merged, and of the store behind it."""
        self._key = self._view = None

    def _bytes(self, loras: Sequence[Lora], dtype: Dtype) -> int:
        """Bytes of a second copy of the weights that LoRAs touch."""
        touched = {update.place.weight for lora in loras for update in lora.updates}
        return sum(math.prod(self._shapes[name]) for name in touched) * _BYTES[dtype]

    def _sentence(self, store: Any, lora: Lora, use: LoraUse) -> str:
        # The norms of a store that streams would cost a pass over the disk.
        norm_of = Norms(self._engine, store.part("")) if isinstance(store, Resident) else None
        return report(lora, norm_of).sentence(use.strongest())


def _check_unchanged(opened: OpenedLora) -> None:
    path = opened.lora.path
    try:
        is_same = _stamp(path) == opened.stamp
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read any more ({error.strerror}).") from error
    if not is_same:
        raise CheckpointError(f"{path} is not the file that was checked before the run: begin the clip anew.")


class Norms:
    """Frobenius norms of tensors on a device."""

    def __init__(self, engine: Engine, tensors: dict[str, Tensor]) -> None:
        self._engine = engine
        self._tensors = tensors

    def __call__(self, name: str) -> float:
        engine = self._engine
        x = engine.cast(engine.reshape(self._tensors[name], (-1,)), "float32")
        return math.sqrt(float(engine.numpy(engine.sum(x * x, (0,)))))


def by_step(denoise: Denoise, adapted: Adapted, *, start: int = 0) -> Denoise:
    """A denoise function that sets the LoRAs' weights of each step before it computes; ``start`` is its first step."""
    if not adapted.uses:
        return denoise
    step = start - 1

    def stepped(latents: Tensor, timestep: Timestep) -> Tensor:
        nonlocal step
        step += 1
        adapted.weights.use([use.weight(step) for use in adapted.uses])
        return denoise(latents, timestep)

    return stepped
