"""What a clip's file is called when nobody has named it."""

from __future__ import annotations

import re
import unicodedata

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


def stem(prompt: str, seed: int | None) -> str:
    """A file's name, without its ending."""
    return f"{slug(prompt)}-seed{seed}"
