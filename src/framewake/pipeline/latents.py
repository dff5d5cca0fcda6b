"""Latents kept on disk until their clip is written, so that no failure and no stop costs the denoising.

A file of named arrays: the latents, how many steps they have behind them, the settings and the picture's digest.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.errors import InputError

FORMAT = "framewake latents 1"
# What numpy's reader and the zip reader below it raise on a damaged file.
DAMAGE = (OSError, ValueError, KeyError, EOFError, RuntimeError, zlib.error, zipfile.BadZipFile)
CACHE = "cache_"  # how the names of a step cache's arrays begin


class SavedLatents(NamedTuple):
    """Latents and what is needed to make their clip.

    ``step`` denoising steps are done, all of them when it is None; ``picture`` is the digest of the picture's file;
    ``cache`` is what a step cache remembers, as ``sampling.cache.state`` writes it; ``origin`` is where they were
    computed, as ``pipeline.origin`` tells it.
    Shapes: latents float32 (1, C, F, H, W).
    """

    latents: np.ndarray
    metadata: dict[str, Any]
    step: int | None = None
    picture: str = ""
    cache: Mapping[str, np.ndarray] = {}
    origin: Mapping[str, Any] = {}


@dataclasses.dataclass
class Keeper:
    """Saves the latents of one run on its way: after every ``every`` steps, and when the run is stopped."""

    path: Path
    metadata: Mapping[str, Any]
    picture: str
    every: int
    step: int = 0  # of the newest file
    origin: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def is_due(self, step: int) -> bool:
        """Whether it is time to save."""
        return self.every > 0 and step % self.every == 0

    def save(
        self, step: int | None, latents: np.ndarray, *, cache: Mapping[str, np.ndarray] | None = None
    ) -> str | None:
        """Save; a sentence for a person when that failed, which stops nothing: the clip may still fit.

        Shapes: latents (1, C, F, H, W).
        """
        try:
            saved = SavedLatents(latents, dict(self.metadata), step, self.picture, cache or {}, self.origin)
            save_latents(self.path, saved)
        except OSError as error:
            return f"the latents cannot be saved beside the clip ({error.strerror}); going on without."
        self.step = step or self.step
        return None


def latents_path(output: Path) -> Path:
    """Where the latents of a clip lie while it is being made: next to it, under a telling name."""
    output = output if output.name else output.resolve()  # "." has no name of its own
    return output.with_name(f"{output.name}.latents.npz")


def save_latents(path: Path, saved: SavedLatents) -> None:
    """Write a file that is whole or not there, also after a power cut."""
    part = path.with_name(path.name + ".part")
    text = json.dumps({"format": FORMAT, "origin": dict(saved.origin), **saved.metadata})
    arrays = {"latents": saved.latents.astype(np.float32), "metadata": np.array(text)}
    if saved.step is not None:
        arrays |= {"step": np.array(saved.step), "picture": np.array(saved.picture), **saved.cache}
    try:
        with part.open("wb") as file:
            np.savez(file, **arrays)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_latents(path: Path) -> SavedLatents:
    """Read what ``save_latents`` wrote; nothing in the file is executed.

    Raises: InputError when the file is missing, damaged or something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Name the .latents.npz file that the stopped run told you.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latents, metadata = arrays["latents"], json.loads(str(arrays["metadata"]))
            step = int(arrays["step"]) if "step" in arrays else None
            picture = str(arrays["picture"]) if "picture" in arrays else ""
            cache = {name: arrays[name] for name in arrays.files if name.startswith(CACHE)}
    except (*DAMAGE, TypeError) as error:
        raise InputError(f"{path} does not hold saved latents ({error}). Name a .latents.npz file.") from error
    if not isinstance(metadata, dict) or metadata.pop("format", None) != FORMAT or latents.ndim != 5:
        raise InputError(f"{path} does not hold latents saved by this program: expected {FORMAT!r}.")
    origin = metadata.pop("origin", {})
    return SavedLatents(latents.astype(np.float32), metadata, step, picture, cache, origin)


def picture_digest(path: str | None) -> str:
    """SHA-256 of a picture's file; empty without one."""
    return "" if path is None else hashlib.sha256(Path(path).read_bytes()).hexdigest()
