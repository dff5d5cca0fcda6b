"""Latents kept on disk until their clip is written, so that no failure or stop costs the denoising.

One sealed file of arrays with a record: how many steps the latents have behind them, the clip's settings, what they
were made from, and where. Every entry is always there: nothing is ever told by an entry that is missing. While a clip
is enlarged, its own latents are beside those of the larger one.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.errors import CheckpointError, FramewakeError, InputError
from framewake.weights.writing.sealed import open_sealed, write_sealed

KEY, FORMAT = "framewake_latents", "framewake latents 2"
ENDING = ".latents.safetensors"
OLD_ENDING = ".latents.npz"  # of versions that kept no checksum
LATENTS, LESSER, CACHE = "latents", "lesser", "cache_"  # names of arrays, or how those of a step cache begin
_CACHE_KINDS = {np.dtype(np.uint16): "BF16", np.dtype(np.float64): "F64"}  # numpy has no bfloat16: its bits
_RECORD = {"format": str, "step": int, "metadata": dict, "sources": dict, "origin": dict}


class SavedLatents(NamedTuple):
    """Latents and what is needed to make their clip.

    ``step`` denoising steps are done. ``sources`` are digests of what the latents were made from, ``origin`` is where
    they were computed, both as ``pipeline.origin`` tells them; ``cache`` is what a step cache remembers, as
    ``sampling.cache.state`` writes it. ``lesser``: the finished latents that these enlarge, in steps behind theirs.
    Shapes: latents float32 (1, C, F, H, W), lesser (1, C, F, h, w).
    """

    latents: np.ndarray
    metadata: dict[str, Any]
    step: int
    sources: Mapping[str, str]
    origin: Mapping[str, Any]
    cache: Mapping[str, np.ndarray] = {}
    lesser: np.ndarray | None = None

    def smaller(self, steps: int) -> np.ndarray | None:
        """The latents of a clip of so many steps that only has to be enlarged; None where it has steps to go."""
        return self.lesser if self.lesser is not None else self.latents if self.step >= steps else None

    def larger(self, steps: int) -> SavedLatents | None:
        """The same of the larger clip alone, its steps counted from its own first one; None before that."""
        return None if self.lesser is None else self._replace(step=self.step - steps)


@dataclasses.dataclass
class Keeper:
    """Saves the latents of one run on its way: after every ``every`` steps, and when the run is stopped.

    ``step`` is that of the newest file. Where a clip is enlarged, ``lesser`` are its latents, which took ``before``
    steps.
    """

    path: Path
    metadata: Mapping[str, Any]
    sources: Mapping[str, str]
    origin: Mapping[str, Any]
    every: int
    step: int = 0
    before: int = 0
    lesser: np.ndarray | None = None

    def is_due(self, step: int) -> bool:
        """Whether it is time to save."""
        return self.every > 0 and step % self.every == 0

    def save(self, step: int, latents: np.ndarray, *, cache: Mapping[str, np.ndarray] | None = None) -> str | None:
        """Save; a sentence for a person when that failed, which stops nothing: the clip may still fit.

        Shapes: latents (1, C, F, H, W).
        """
        try:
            self.must_save(step, latents, cache or {})
        except FramewakeError as error:
            return f"the latents cannot be saved beside the clip ({str(error).rstrip('.')}); going on without."
        return None

    def must_save(self, step: int, latents: np.ndarray, cache: Mapping[str, np.ndarray]) -> SavedLatents:
        """Save where nothing goes on without, and tell what was saved.

        Shapes: latents (1, C, F, H, W).
        Raises: UnwritableError, DiskFullError.
        """
        done = self.before + step
        saved = SavedLatents(latents, dict(self.metadata), done, self.sources, self.origin, cache, self.lesser)
        save_latents(self.path, saved)
        self.step = step
        return saved


def latents_path(output: Path) -> Path:
    """Where the latents of a clip lie while it is being made: next to it, under a telling name."""
    output = output if output.name else output.resolve()  # "." has no name of its own
    return output.with_name(output.name + ENDING)


def old_latents_path(output: Path) -> Path:
    """Where they lay before there was a checksum."""
    return latents_path(output).with_name(latents_path(output).name.removesuffix(ENDING) + OLD_ENDING)


def save_latents(path: Path, saved: SavedLatents) -> None:
    """Write a file that is whole or not there, also after a power cut.

    Raises: UnwritableError, DiskFullError.
    """
    record = {
        "format": FORMAT,
        "step": saved.step,
        "metadata": saved.metadata,
        "sources": dict(saved.sources),
        "origin": dict(saved.origin),
    }
    arrays = {LATENTS: np.ascontiguousarray(saved.latents, np.float32), **saved.cache}
    if saved.lesser is not None:
        arrays[LESSER] = np.ascontiguousarray(saved.lesser, np.float32)
    kinds = {name: _CACHE_KINDS[a.dtype] for name, a in arrays.items() if a.dtype in _CACHE_KINDS}
    write_sealed(path, arrays, metadata={KEY: json.dumps(record)}, kinds=kinds)


def load_latents(path: Path) -> SavedLatents:
    """Read what ``save_latents`` wrote; nothing in the file is executed, and nothing is believed before its checksum.

    Raises: InputError when the file is missing, damaged, of an earlier version or something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Name the {ENDING} file that the stopped run told you.")
    if path.name.endswith(OLD_ENDING):
        raise InputError(
            f"{path} was saved by an earlier version, without a checksum, so damage to it could not be seen: delete "
            "it and begin the clip anew."
        )
    try:
        file = open_sealed(path)
        if LATENTS not in file.names() or not all(n in (LATENTS, LESSER) or n.startswith(CACHE) for n in file.names()):
            raise CheckpointError(f"{path} holds other arrays than saved latents.")
        arrays = {name: np.array(file.raw(name)) for name in file.names()}
    except (CheckpointError, OSError) as error:
        raise InputError(
            f"{path} holds no saved latents that can be used: it is damaged, or another file. Begin the clip anew."
        ) from error
    record = _record(path, file.metadata.get(KEY))
    latents, lesser = arrays.pop(LATENTS), arrays.pop(LESSER, None)
    for each in (latents,) if lesser is None else (latents, lesser):
        if each.dtype != np.float32 or each.ndim != 5 or not np.isfinite(each).all():
            raise InputError(f"{path} holds no latents of a clip: begin the clip anew.")
    return SavedLatents(
        latents, record["metadata"], record["step"], record["sources"], record["origin"], arrays, lesser
    )


def _record(path: Path, text: str | None) -> dict[str, Any]:
    """What stands beside the arrays, with every entry of its type."""
    try:
        record = json.loads(text or "null")
    except (TypeError, ValueError, RecursionError):
        record = None
    is_ours = isinstance(record, dict) and record.get("format") == FORMAT and set(record) == set(_RECORD)
    if not is_ours or any(type(record[name]) is not kind for name, kind in _RECORD.items()):
        raise InputError(f"{path} does not hold latents saved by this program: expected {FORMAT!r}.")
    return record
