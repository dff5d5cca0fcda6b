"""Names for clips that were given none."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from framewake.media.naming import stem
from framewake.pipeline.latents import latents_path
from framewake.request import Request


def free_path(request: Request, folder: Path, *, taken: Collection[Path] = ()) -> Path:
    """A name from prompt and seed, not in ``taken`` and not that of a clip, be it only begun; "-2" keeps it free."""
    name = stem(request.prompt, request.seed)
    path, number = folder / f"{name}.mp4", 1
    while path.exists() or latents_path(path).exists() or path in taken:
        number += 1
        path = folder / f"{name}-{number}.mp4"
    return path
