"""Quoted text in a prompt, as the encoder of written characters reads it: byte by byte."""

from __future__ import annotations

import re

import numpy as np

QUOTED = re.compile('"(.*?)"|\u201c(.*?)\u201d')
FIRST_BYTE = 3  # id of byte 0; below are padding, the end and the unknown
END = 1
LIMIT = 256  # ids, with the end


def glyph_text(prompt: str) -> str:
    """The quoted texts of a prompt in one sentence each, none twice; "" where nothing is quoted.

    Straight double quotes and Chinese ones count, on one line.
    Source: specification of 1.5, section 4.
    """
    found = dict.fromkeys(match.group(1) or match.group(2) or "" for match in QUOTED.finditer(prompt))
    return "".join(f'Text "{text}". ' for text in found)


def glyph_ids(text: str, *, limit: int = LIMIT) -> np.ndarray:
    """The bytes of a text as ids, and the end, cut to a limit. Shapes: -> (1, L) int64."""
    ids = [byte + FIRST_BYTE for byte in text.encode("utf-8", errors="replace")]
    return np.asarray([[*ids[: limit - 1], END]], dtype=np.int64)
