"""Pictures in, clips out, as ComfyUI holds them."""

from __future__ import annotations

import hashlib
import io
import uuid
from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import torch
from comfy_api.latest import InputImpl
from PIL import Image


def png_of(image: torch.Tensor) -> bytes:
    """The first picture of a batch as a PNG file. Shapes: float (B, H, W, 3 or 4) in [0, 1]."""
    pixels = (image[0, ..., :3].cpu().float().numpy() * 255).round().clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def kept_picture(data: bytes) -> Path:
    """The picture as a file of ComfyUI's temporary folder, named by its content."""
    path = _folder() / f"framewake-{hashlib.sha256(data).hexdigest()[:32]}.png"
    if not path.exists():
        path.write_bytes(data)
    return path


def new_clip() -> Path:
    """A name that was never used: cached outputs point at the old ones."""
    return _folder() / f"framewake-{uuid.uuid4().hex}.mp4"


def _folder() -> Path:
    folder = Path(folder_paths.get_temp_directory())
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def made(frames: np.ndarray, fps: float, path: Path) -> tuple[torch.Tensor, float, Any]:
    """The outputs of a clip: frames, frames per second, and the file, which Save Video copies without encoding it.

    Shapes: ``frames`` uint8 (F, H, W, 3), as float32 in [0, 1].
    """
    images = torch.from_numpy(frames).to(torch.float32).div_(255)
    return images, float(fps), InputImpl.VideoFromFile(str(path))
