"""Which LoRAs are read, for docs/formats.md: rows from the tables in which keys are looked up."""

from __future__ import annotations

from framewake.formats import Format
from framewake.lora import ENDINGS
from framewake.weights.lora import foreign, keys, sizes

PARTIAL = "--lora-partial applies the rest of the file."
_READ = (
    ("pairs of factors (LoRA)", ("down", "up"), "A product, times alpha over rank."),
    ("magnitudes (DoRA)", ("magnitude",), "W' = m (W + BA) / |W + BA|, by row or by column; the weight scales W' - W."),
    ("LoHa", ("hada_w1_a", "hada_w1_b"), "A Hadamard product of two products, times alpha over rank."),
    ("LoKr", ("lokr_w1", "lokr_w2"), "A Kronecker product; either matrix may itself be a product."),
    ("differences of weights, norms and biases", ("difference", "bias difference"), "Added, times the weight."),
    ("biases of up factors", ("up bias",), "Added to the layer's bias, times alpha over rank."),
    ("whole values beside factors", ("value", "bias value"), "The weight leads from the checkpoint's value to them."),
)


def rows() -> tuple[Format, ...]:
    """The rows, in the order of the page."""
    prefixes = ", ".join(f"`{prefix}`" for prefix in keys.UNDERSCORED)
    ends = ", ".join(f"`{ending}`" for ending in ENDINGS)
    return (
        Format(
            "names of modules: Tencent's, ComfyUI's, diffusers', OneTrainer's (OMI)",
            "read",
            f"With dots behind any words (but those of a ControlNet), or with underscores behind {prefixes} or none; "
            "wrappers (`_orig_mod.`, `module.`), adapters' names and numbered pairs (`lora_down.0.weight`) too.",
        ),
        Format("a LoRA as a file or PEFT's folder", "read", f"Ending in {ends}; with PEFT's adapter_config.json."),
        *(Format(name, "read", f"Keys end in {_endings(parts)}. {how}") for name, parts, how in _READ),
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
