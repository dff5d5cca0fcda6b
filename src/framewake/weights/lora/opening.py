"""A LoRA's file: found by its path, recognised by its first bytes, its scales applied."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from framewake.demo import LORAS, shipped, shipped_names
from framewake.errors import CheckpointError, nearest
from framewake.lora import ENDINGS
from framewake.weights.reading.files import TensorFile, open_file
from framewake.weights.reading.scales import with_own_scales
from framewake.weights.reading.storage import Tensors

# What PEFT and diffusers call the file in the folders that they write.
_STEMS = ("adapter_model", "pytorch_lora_weights")


class LoraFile:
    """Tensors and metadata of a LoRA's file; nothing but headers is read until a tensor is asked for."""

    def __init__(self, file: Tensors) -> None:
        self.path = file.path
        self.metadata: dict[str, str] = file.metadata if isinstance(file, TensorFile) else {}
        self._file = with_own_scales(file)

    def names(self) -> tuple[str, ...]:
        """Every key."""
        return self._file.names()

    def shape(self, name: str) -> tuple[int, ...]:
        """A tensor's shape."""
        return self._file.shape(name)

    def dtype(self, name: str) -> str:
        """A tensor's type; what has a scale is float32."""
        return self._file.dtype(name)

    def raw(self, name: str) -> np.ndarray:
        """The bits of the type that ``dtype`` names."""
        return self._file.raw(name)

    def read(self, name: str) -> np.ndarray:
        """The values."""
        return self._file.read(name)


def lora_file(path: str | os.PathLike[str]) -> LoraFile:
    """What a path means, opened.

    Raises: CheckpointError for anything that holds no tensors.
    """
    return LoraFile(open_file(find_lora(path)))


def find_lora(path: str | os.PathLike[str]) -> Path:
    """The file that a path means: itself, the one of a folder such as PEFT writes, or "demo/trails", which ships.

    Raises: CheckpointError when there is none.
    """
    if "://" in str(path):
        raise CheckpointError(f"{str(path)!r}: addresses are not fetched. Download the LoRA, and name the file.")
    path = shipped(path, LORAS) or Path(path).expanduser()
    if path.is_dir():
        path = _in_folder(path)
    if not path.exists():
        raise CheckpointError(
            f"{path}: there is no such LoRA file. Check the path, and a weight, which is a number as in FILE:0.8."
            f"{nearest(f'demo/{path.stem}', shipped_names(LORAS)) if path.parent == LORAS else ''}"
        )
    return path


def _is_one(file: Path) -> bool:
    """Whether a name is a LoRA's; macOS puts files of its own with the same ending beside ("._name")."""
    return file.suffix.lower() in ENDINGS and not file.name.startswith(".")


def _in_folder(folder: Path) -> Path:
    found = sorted(file for file in folder.iterdir() if _is_one(file) and file.is_file())
    for files in ([file for file in found if file.stem in _STEMS], found):
        best = [file for file in files if file.suffix.lower() == ".safetensors"] or files
        if len(best) == 1:
            return best[0]
    if found:
        names = ", ".join(file.name for file in found[:8])
        raise CheckpointError(f"{folder} holds several files with weights: {names}. Name the LoRA itself.")
    # PEFT puts adapters of other names one below; the hub's cache keeps a folder for each revision.
    below = [file for depth in ("*/*", "snapshots/*/*") for file in folder.glob(depth) if _is_one(file)]
    inner = sorted({str(file.parent) for file in below})
    where = f" Further down lie some: {', '.join(inner[:8])}; name one of these folders." if inner else ""
    raise CheckpointError(f"{folder} holds no LoRA: a file that ends in {', '.join(ENDINGS)} is expected.{where}")
