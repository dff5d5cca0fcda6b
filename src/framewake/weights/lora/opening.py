"""A LoRA's file: found where a path means it, told by its first bytes, its scales applied."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from framewake.errors import CheckpointError, nearest
from framewake.weights.files import TensorFile, open_file
from framewake.weights.scales import with_own_scales
from framewake.weights.storage import Tensors

SHIPPED = Path(__file__).parents[2] / "demo" / "lora"  # LoRAs for the embedded checkpoint
ENDINGS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
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
    """The file, or the one of a folder such as PEFT writes; "demo/trails" is the one that ships.

    Raises: CheckpointError for anything that holds no tensors.
    """
    path = Path(path).expanduser()
    if is_shipped(path):
        path = SHIPPED / f"{path.name}.safetensors"
    if path.is_dir():
        path = _in_folder(path)
    if not path.exists():
        shipped = [f"demo/{file.stem}" for file in SHIPPED.glob("*.safetensors")]
        raise CheckpointError(
            f"{path}: there is no such LoRA file. Check the path, and a weight, which is a number as in FILE:0.8."
            f"{nearest(f'demo/{path.stem}', shipped) if path.parent == SHIPPED else ''}"
        )
    return LoraFile(open_file(path))


def is_shipped(path: str | os.PathLike[str]) -> bool:
    """Whether a path means a LoRA that ships, which is for the embedded checkpoint."""
    path = Path(path)
    return path.parent == Path("demo") and not path.exists()


def _in_folder(folder: Path) -> Path:
    found = sorted(file for file in folder.iterdir() if file.suffix in ENDINGS and file.is_file())
    for files in ([file for file in found if file.stem in _STEMS], found):
        best = [file for file in files if file.suffix == ".safetensors"] or files
        if len(best) == 1:
            return best[0]
    if found:
        raise CheckpointError(f"{folder} holds {len(found)} files with weights; name the LoRA itself.")
    inner = sorted(file.parent.name for file in folder.glob("*/*") if file.stem in _STEMS)
    where = f" Its folders hold some: {', '.join(inner[:8])}; name one of them." if inner else ""
    raise CheckpointError(f"{folder} holds no LoRA: a file that ends in {', '.join(ENDINGS)} is expected.{where}")
