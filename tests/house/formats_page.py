"""docs/formats.md, made from the tables by which the program decides; scripts/formats writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from framewake.lora import ENDINGS
from framewake.media import kinds
from framewake.weights.lora import foreign, keys, sizes
from framewake.weights.reading import containers, scales

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
HEAD = """# Formats

What is read, what is converted on the way, and what is refused with the way out. `scripts/formats` writes this page
from the tables by which the program decides; what those do not say stands in tests/house/formats_page.py.
"""


class Format(NamedTuple):
    """One kind of file: what people call it, what becomes of it, and how it is told apart or what the way out is.

    ``handling``: "converted" is what is read and becomes something else on the way, such as another number type.
    """

    name: str
    handling: containers.Handling
    why: str


def _weights() -> tuple[Format, ...]:
    found = (*containers.CONTAINERS, containers.UNFINISHED, containers.EMPTY, containers.UNKNOWN)
    return tuple(Format(each.name, each.handling, each.advice) for each in found)


def _eight_bits() -> tuple[Format, ...]:
    inside = ", ".join(f"`{kind.ending}`" + (f" ({kind.writer})" if kind.writer else "") for kind in scales.KINDS)
    return (
        Format("weights in fp8 (e4m3, e5m2) or int8 with scales in the same file", "converted",
               f"Multiplied when they are read; one for a weight, a row or a block. Their names end in {inside}."),
        Format("weights in fp8 with their scales in a map (Tencent's `..._fp8.pt` and `..._fp8_map.pt`)", "converted",
               "The map is found beside the weights, or named with --part dit-scales=FILE."),
        Format("weights in fp8 without scales, a plain cast", "read", "As Kijai publishes them."),
        Format("weights in fp8 that lost their scales", "refused",
               "Told by Tencent's name, by a marker, or by numbers that are "
               f"{scales.MOST_MEAN:g} and more on average."),
        Format("whole numbers without scales in place of weights", "refused", "Take a file that has its scales."),
        *(Format(name, "refused", scales.PACKED_ADVICE) for name in scales.PACKED.values()),
    )  # fmt: skip


def _pictures() -> tuple[Format, ...]:
    handling = {"none": "refused", "clip": "converted"}
    return (
        *(Format(kind.name, handling.get(kind.reader, "read"), kind.advice) for kind in kinds.KINDS),
        Format("TGA", "read", "It has no mark of its own: tried when nothing else fits."),
        Format("DNG, NEF, ARW, PEF and other raw pictures in a TIFF", "refused", kinds.DEVELOP),
    )


PARTIAL = "--lora-partial applies the rest of the file."
_LORAS = (
    ("pairs of factors (LoRA)", ("down", "up"), "A product, times alpha over rank."),
    ("magnitudes (DoRA)", ("magnitude",), "W' = m (W + BA) / |W + BA|, by row or by column; the weight scales W' - W."),
    ("LoHa", ("hada_w1_a", "hada_w1_b"), "A Hadamard product of two products, times alpha over rank."),
    ("LoKr", ("lokr_w1", "lokr_w2"), "A Kronecker product; either matrix may itself be a product."),
    ("differences of weights, norms and biases", ("difference", "bias difference"), "Added, times the weight."),
    ("biases of up factors", ("up bias",), "Added to the layer's bias, times alpha over rank."),
    ("whole values beside factors", ("value", "bias value"), "The weight leads from the checkpoint's value to them."),
)


def _loras() -> tuple[Format, ...]:
    prefixes = ", ".join(f"`{prefix}`" for prefix in keys.UNDERSCORED)
    ends = ", ".join(f"`{ending}`" for ending in ENDINGS)
    return (
        Format(
            "names of modules: Tencent's, ComfyUI's, diffusers', OneTrainer's (OMI)",
            "read",
            f"With dots behind any words (but those of a ControlNet), or with underscores behind {prefixes} or none; "
            "wrappers (`_orig_mod.`, `module.`), adapters' names and numbered pairs (`lora_down.0.weight`) too.",
        ),
        Format(
            "a LoRA for HunyuanVideo-1.5, with a checkpoint of it",
            "read",
            "Of Tencent's trainer (no prefix, `lora_adapter_metadata`), musubi-tuner (`lora_unet_`), diffusers, "
            "ComfyUI; queries, keys and values apart or in one. Written in each of these, too.",
        ),
        Format("a LoRA as a file or PEFT's folder", "read", f"Ending in {ends}; with PEFT's adapter_config.json."),
        *(Format(name, "read", f"Keys end in {_endings(parts)}. {how}") for name, parts, how in _LORAS),
        Format("factors in fp8 or int8 with scales beside them", "converted", "Multiplied when they are read."),
        Format("factors in fp8 without scales", "read", "A plain cast; refused where the numbers cannot be meant."),
        Format("factors in whole numbers without scales", "refused", "Take the file that it was made from."),
        Format(
            "NaN, infinity, or changes that cannot be meant",
            "refused",
            f"At {sizes.MOST_GAIN:,.0f} times what a layer gives, alpha or scales are missing.",
        ),
        *(Format(name, "refused", f"Told by its keys. {PARTIAL}") for name in keys.OTHER_METHODS.values()),
        *(Format(f"keys for {name}", "refused", f"Counted. {PARTIAL}") for name in foreign.parts()),
        Format("several adapters in one file", "refused", "`framewake lora convert --adapter NAME` takes one out."),
        *(
            Format(f"a LoRA for {name}", "refused", "Told where its keys have no place here.")
            for name in foreign.models()
        ),
        Format(
            f"a LoRA for {foreign.FLUX} whose keys all have a place here",
            "refused",
            "Told by its metadata or its 19 and 38 blocks. --lora-partial applies it all the same.",
        ),
    )


def _endings(parts: tuple[str, ...]) -> str:
    return ", ".join(f"`{example}`" for part in parts for example in keys.EXAMPLES[part])


SECTIONS: tuple[tuple[str, Iterable[Format]], ...] = (
    ("Files with weights, by their first bytes", _weights()),
    ("Weights in eight bits and fewer", _eight_bits()),
    ("Pictures and clips, by their first bytes", _pictures()),
    ("LoRAs", _loras()),
)


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(title, rows) for title, rows in SECTIONS)])


def _section(title: str, rows: Iterable[Format]) -> str:
    lines = [f"| {_cell(row.name)} | {row.handling} | {_cell(row.why)} |" for row in rows]
    return "\n".join([f"## {title}", "", "| what | | |", "|---|---|---|", *lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
