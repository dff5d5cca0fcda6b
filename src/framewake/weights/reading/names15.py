"""Tensor names of HunyuanVideo-1.5's published files, each as a table against our names.

Ours are Tencent's with queries, keys and values as one layer, which is how ComfyUI stores them.
Source: specification of 1.5, sections 2.3, 8 and 9.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from framewake.weights.reading.names import NameRule, comfy_dit

_ENTRY = re.compile(r"(.*_attn_)q\.(weight|bias)")


def tencent_dit(names: Iterable[str], width: int) -> list[NameRule]:
    """The table of a transformer whose queries, keys and values are three layers or one; both may be mixed.

    ``width`` is that of each; 0 where it is not known yet, and nothing is joined.
    """
    rules = {rule.ours: rule.theirs for rule in comfy_dit(names)}
    joined = []
    for name in tuple(rules):
        found = _ENTRY.fullmatch(name)
        pieces = [] if found is None else [f"{found.group(1)}{letter}.{found.group(2)}" for letter in "qkv"]
        if found is not None and all(piece in rules for piece in pieces):
            theirs = tuple(their for piece in pieces for their in rules.pop(piece))
            joined.append(NameRule(f"{found.group(1)}qkv.{found.group(2)}", theirs, (width,) * 3))
    return [*(NameRule(name, theirs) for name, theirs in rules.items()), *joined]


def qwen(names: Iterable[str]) -> list[NameRule]:
    """The table of a language model in any of its three styles: with its head, inside a newer class, or alone."""
    return [NameRule(_published_qwen(name), (name,)) for name in names]


def _published_qwen(name: str) -> str:
    name = re.sub(r"^model\.(language_model|visual)\.", lambda m: "visual." if m[1] == "visual" else "model.", name)
    return f"model.{name}" if name.startswith(("embed_tokens.", "layers.", "norm.")) else name
