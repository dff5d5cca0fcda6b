"""What ships with the package: the demonstration checkpoint, its LoRA and its picture, made in ``demonstration/``."""

import os
from pathlib import Path

CHECKPOINT = Path(__file__).parent / "checkpoint"
LORAS = Path(__file__).parent / "lora"
PICTURES = Path(__file__).parent / "pictures"
_ENDINGS = {LORAS: ".safetensors", PICTURES: ".png"}


def shipped(path: str | os.PathLike[str], folder: Path) -> Path | None:
    """What "demo/name" means in ``LORAS`` or ``PICTURES``, be it there or not; None for any other path.

    A file of one's own that is called the same is that file, and a name with a dot is always one's own.
    """
    above, name = os.path.split(path)
    is_ours = above == "demo" and "." not in name and not os.path.exists(path)
    return folder / f"{name}{_ENDINGS[folder]}" if is_ours else None


def shipped_names(folder: Path) -> list[str]:
    """The names of what ships in a folder, as ``shipped`` takes them."""
    return sorted(f"demo/{file.stem}" for file in folder.glob(f"*{_ENDINGS[folder]}"))
