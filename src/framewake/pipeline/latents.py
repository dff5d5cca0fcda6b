"""Finished latents kept on disk until their clip is written, so that no failure costs the denoising."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake.errors import InputError

FORMAT = "framewake latents 1"


class SavedLatents(NamedTuple):
    """Latents and what is needed to make their clip. Shapes: latents float32 (1, C, F, H, W)."""

    latents: np.ndarray
    metadata: dict[str, Any]


def latents_path(output: Path) -> Path:
    """Where the latents of a clip lie while it is being made: next to it, under a telling name."""
    output = output if output.name else output.resolve()  # "." has no name of its own
    return output.with_name(f"{output.name}.latents.npz")


def save_latents(path: Path, latents: np.ndarray, metadata: Mapping[str, Any]) -> None:
    """Write a file that is whole or not there. Shapes: latents (1, C, F, H, W)."""
    part = path.with_name(path.name + ".part")
    text = json.dumps({"format": FORMAT, **metadata})
    try:
        with part.open("wb") as file:
            np.savez(file, latents=latents.astype(np.float32), metadata=np.array(text))
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load_latents(path: Path) -> SavedLatents:
    """Read what ``save_latents`` wrote; nothing in the file is executed.

    Raises: InputError when the file is missing, damaged or something else.
    """
    if not path.is_file():
        raise InputError(f"{path}: there is no such file. Name the .latents.npz file that the failed run told you.")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            latents, metadata = arrays["latents"], json.loads(str(arrays["metadata"]))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} does not hold saved latents ({error}). Name a .latents.npz file.") from error
    if not isinstance(metadata, dict) or metadata.pop("format", None) != FORMAT or latents.ndim != 5:
        raise InputError(f"{path} does not hold latents saved by this program: expected {FORMAT!r}.")
    return SavedLatents(latents.astype(np.float32), metadata)
