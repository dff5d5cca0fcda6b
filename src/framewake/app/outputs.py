"""Names for clips that were given none."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection
from pathlib import Path

from framewake.pipeline.latents import latents_path
from framewake.request import Request

SLUG_LENGTH = 48


def slug(text: str) -> str:
    """A text as part of a file name: lower-case letters and digits of any script, joined by "-"."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", text).lower().replace("_", " "))
    made = words[0].encode()[:SLUG_LENGTH].decode(errors="ignore") if words else ""
    for word in words[1:]:
        longer = f"{made}-{word}"
        if len(longer.encode()) > SLUG_LENGTH:
            break
        made = longer
    return made or "clip"


def free_path(request: Request, folder: Path, *, taken: Collection[Path] = ()) -> Path:
    """A name from prompt and seed, not in ``taken`` and not that of a clip, be it only begun; "-2" keeps it free."""
    stem = f"{slug(request.prompt)}-seed{request.seed}"
    path, number = folder / f"{stem}.mp4", 1
    while path.exists() or latents_path(path).exists() or path in taken:
        number += 1
        path = folder / f"{stem}-{number}.mp4"
    return path
