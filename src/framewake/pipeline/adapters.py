"""A request's LoRAs: opened before any work starts, added to the transformer's weights while it runs."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Dtype, Engine, Tensor
from framewake.errors import CheckpointError, InputError
from framewake.lora import ENDINGS, LoraUse, parse_lora
from framewake.models.dit import DiT
from framewake.request import Request
from framewake.sampling.guide import Denoise
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.lora.file import Lora, open_lora
from framewake.weights.lora.report import report
from framewake.weights.lora.sizes import check_sizes
from framewake.weights.lora.targets import Targets
from framewake.weights.lora.view import LoraView
from framewake.weights.stores.store import Resident

log = logging.getLogger("framewake.loras")
_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}


class Adapted(NamedTuple):
    """Weights for a run, and what a person should know of them. ``uses`` has a weight for each step."""

    weights: Any
    uses: tuple[LoraUse, ...]
    notes: tuple[str, ...]


def targets_of(checkpoint: Checkpoint) -> Targets:
    """What a LoRA can adapt in a checkpoint's transformer; nothing is loaded."""
    return targets_for(checkpoint.dit)


def targets_for(config: DiTConfig) -> Targets:
    """What a LoRA can adapt in a transformer of a shape."""
    return Targets.of(config, DiT(None, config).shapes())  # shapes need no engine


def open_loras(request: Request, checkpoint: Checkpoint) -> list[Lora]:
    """The LoRAs of a request, compared with the transformer; of their files, only headers are read.

    Raises: CheckpointError for a file that is missing, damaged or for something else.
    """
    targets = targets_of(checkpoint) if request.loras else None
    return [
        open_lora(
            parse_lora(text).path,
            targets,
            allows_partial=request.allows_partial_loras,
            ignores_alpha=request.ignores_lora_alpha,
        )
        for text in request.loras
    ]


def check_loras(request: Request, checkpoint: Checkpoint) -> None:
    """Whether every LoRA of a resolved request can be applied, and has a step to be applied at.

    Raises: InputError, CheckpointError.
    """
    loras = open_loras(request, checkpoint)
    for text in request.loras:
        first = parse_lora(text).last_start()
        if first >= request.steps:
            raise InputError(f"LoRA {text!r}: the span from step {first} never comes, there are {request.steps} steps.")
    for lora in loras:
        about = lora.path.stat()
        switches = (request.allows_partial_loras, request.ignores_lora_alpha)
        _check_values(lora.path, (about.st_mtime_ns, about.st_size), checkpoint.dit, switches)


@lru_cache(maxsize=64)
def _check_values(path: Path, stamp: tuple[int, int], dit: DiTConfig, switches: tuple[bool, bool]) -> None:
    """A file's numbers, read once: a batch or a server asks for every clip anew."""
    is_partial, ignores_alpha = switches
    check_sizes(open_lora(path, targets_for(dit), allows_partial=is_partial, ignores_alpha=ignores_alpha))


def offered_loras(folder: Path, checkpoint: Checkpoint) -> dict[str, str]:
    """The LoRA files of a folder that fit a checkpoint, by the name without its ending; others are told in the log."""
    found: dict[str, str] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.suffix.lower() not in ENDINGS or path.name.startswith("."):  # macOS puts "._name" beside files
            continue
        about = path.stat() if path.exists() else None
        if _fits(path, about and (about.st_mtime_ns, about.st_size), checkpoint.dit):
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

    def __init__(self, checkpoint: Checkpoint, engine: Engine) -> None:
        self._checkpoint = checkpoint
        self._engine = engine
        self._key: Any = None
        self._view: LoraView | None = None

    def adapt(self, store: Any, request: Request, dtype: Dtype, *, room: int | None = None) -> Adapted:
        """The store itself without LoRAs, else a view of it that starts at the weights of step 0.

        ``room`` are the bytes that may still be taken on the device, all that are free when it is None.
        Raises: CheckpointError when a file has changed for the worse since it was checked.
        """
        uses = tuple(parse_lora(text) for text in request.loras)
        if not uses:
            self.drop()
            return Adapted(store, (), ())
        loras = open_loras(request, self._checkpoint)
        files = [(lora.path, lora.path.stat().st_mtime_ns) for lora in loras]
        key = (id(store), request.ignores_lora_alpha, request.allows_partial_loras, files)
        notes: tuple[str, ...] = ()
        if key != self._key:
            self.drop()
            free = self._engine.memory()["free"] if room is None else room
            # The other three quarters are left to activations.
            keeps = isinstance(store, Resident) and self._bytes(loras, dtype) < free // 4
            self._view = LoraView(self._engine, store, loras, keeps=keeps)
            self._key = key
            notes = tuple(self._sentence(store, lora, use) for lora, use in zip(loras, uses, strict=True))
        self._view.use([use.weight(0) for use in uses])
        return Adapted(self._view, uses, notes)

    def drop(self) -> None:
        """Let go of what was merged, and of the store behind it."""
        self._key = self._view = None

    def _bytes(self, loras: Sequence[Lora], dtype: Dtype) -> int:
        """Bytes of a second copy of the weights that LoRAs touch."""
        shapes = targets_of(self._checkpoint).tensors
        touched = {update.place.weight for lora in loras for update in lora.updates}
        return sum(math.prod(shapes[name]) for name in touched) * _BYTES[dtype]

    def _sentence(self, store: Any, lora: Lora, use: LoraUse) -> str:
        # The norms of a store that streams would cost a pass over the disk.
        norm_of = Norms(self._engine, store.part("")) if isinstance(store, Resident) else None
        return report(lora, norm_of).sentence(use.strongest())


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

    def stepped(latents: Tensor, timestep: float) -> Tensor:
        nonlocal step
        step += 1
        adapted.weights.use([use.weight(step) for use in adapted.uses])
        return denoise(latents, timestep)

    return stepped
