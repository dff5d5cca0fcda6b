"""Whether a picture and a prompt resemble what a checkpoint says it knows."""

from __future__ import annotations

import re

import numpy as np
from PIL import Image

from framewake.weights.checkpoint.settings import Domain, Settings

_SIDE_PX = 64
_EDGE_LEVELS = 14.0  # a step between neighbouring pixels above this is an edge


def domain_note(settings: Settings, image: Image.Image | None, prompt: str) -> str | None:
    """A warning when a picture or a prompt lies outside of a checkpoint's domain, else None."""
    domain = settings.domain
    odd = []
    if image is not None and domain.most_edges < 1 and _edges(image) > domain.most_edges:
        odd.append("picture")
    if not _has_its_words(prompt, domain):
        odd.append("prompt")
    if not odd:
        return None
    name = "the demonstration checkpoint" if settings.is_demo else f"the checkpoint {settings.name!r}"
    return (
        f"this {' and '.join(odd)} do{'es' if len(odd) == 1 else ''} not look like what {name} knows: "
        f"{domain.description}. For anything else use the published weights: --checkpoint FOLDER (see 'With the real "
        "weights' in the README)."
    )


def _has_its_words(prompt: str, domain: Domain) -> bool:
    said = set(re.findall(r"[a-z]+", prompt.lower()))
    return all(said.intersection(words) for words in domain.words)


def _edges(image: Image.Image) -> float:
    """The share of a picture's places that are edges."""
    small = np.asarray(image.convert("RGB").resize((_SIDE_PX, _SIDE_PX)), np.float32)
    steps = np.maximum(np.abs(np.diff(small, axis=0))[:, :-1].max(-1), np.abs(np.diff(small, axis=1))[:-1].max(-1))
    return float((steps > _EDGE_LEVELS).mean())
