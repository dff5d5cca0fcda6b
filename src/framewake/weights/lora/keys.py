"""Keys of LoRA files taken apart: which module a key is for, and which of its tensors it names.

Prefixes and endings are the whole difference between formats; module names are looked up in ``targets.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from framewake.weights.reading.wrappers import unwrapped

Format = Literal["official", "kohya", "diffusers", "comfyui"]
FORMATS: tuple[Format, ...] = ("official", "kohya", "diffusers", "comfyui")

_LONGEST = 1000  # no module is so deep; patterns could take long
# PEFT writes the adapter's name between the factor and its ending.
_ADAPTER = r"(?:\.(?P<adapter>(?!weight$|bias$)[^.]+))?"
# Each ending names a part of a module; down is the (rank, inputs) matrix, up the (outputs, rank) one.
_ENDINGS: tuple[tuple[str, str], ...] = tuple(
    (ending.replace("@", _ADAPTER), part)
    for ending, part in (
        (r"\.lora_(?:down|A)@(?:\.weight)?", "down"),
        (r"\.lora_(?:up|B)@(?:\.weight)?", "up"),
        (r"\.lora_(?:up|B)@\.bias", "up bias"),
        (r"\.lora_mid(?:\.weight)?", "middle"),
        (r"\.lora_E@", "singular values"),
        (r"[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight", "down"),
        (r"[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight", "up"),
        (r"\.alpha", "alpha"),
        (r"\.dora_scale|\.lora_magnitude_vector@(?:\.weight)?", "magnitude"),
        (r"\.(?:diff|w_norm)", "difference"),
        (r"\.(?:diff_b|b_norm)", "bias difference"),
        (r"\.set_weight", "value"),
        *((rf"\.hada_{part}@", f"hada_{part}") for part in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")),
        *((rf"\.lokr_{part}@", f"lokr_{part}") for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")),
        # Whole tensors beside factors: what PEFT trained outside of its adapters.
        (r"\.weight", "value"),
        (r"\.bias", "bias value"),
    )
)
_PARTS = tuple((re.compile(rf"(?P<body>.+?)(?:{ending})"), part) for ending, part in _ENDINGS)

# Endings as files have them, for people; each is of its part.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "down": (".lora_down.weight", ".lora_A.weight", ".lora_A.NAME.weight", ".lora.down.weight"),
    "up": (".lora_up.weight", ".lora_B.weight", ".lora_B.NAME.weight", ".lora.up.weight"),
    "up bias": (".lora_B.bias",),
    "magnitude": (".dora_scale", ".lora_magnitude_vector"),
    "difference": (".diff", ".w_norm"),
    "bias difference": (".diff_b", ".b_norm"),
    "value": (".set_weight", ".weight"),
    "bias value": (".bias",),
    **{part: (f".{part}",) for part in ("hada_w1_a", "hada_w1_b", "lokr_w1", "lokr_w2")},
}

OFFICIAL = "Hunyuan_video_I2V_lora_"
UNDERSCORED = (OFFICIAL, "lora_unet_", "lora_transformer_", "lycoris_")
_DOTTED = re.compile(r"^(?:(?:base_model|model|diffusion_model|transformer|unet|dit|pipe)\.)+")
# Trainers put words of their own in front ("net.", "generator."), which end where a name of ours begins. A ControlNet
# has layers of the same names, but is another model.
_OURS = r"(?:double|single)_blocks|(?:single_)?transformer_blocks|final_layer"
_OURS += r"|(?:img|txt|time|time_r|vector|guidance|byt5|vision)_in"
_WORDS = re.compile(rf"^(?:(?!\w*control)[A-Za-z_]+\.)+(?=(?:{_OURS})\.)", re.IGNORECASE)
# kohya's scripts number the pairs of a fused layer; PEFT's names of adapters never stand behind these words.
_PAIR = re.compile(r"\.lora_(?:down|up)\.\d+\.weight$")
# What training wrappers put into underscored names; of dotted ones, ``unwrapped`` takes it out.
_WRAPPED = re.compile(r"_orig_mod_|_fsdp_wrapped_module_|_checkpoint_wrapped_module_")

# Tensors that no method here has, for a message that says what they are.
OTHER_METHODS = {
    r"\.oft_|\.oft_blocks|\.oft_R|\.oft_diag": "OFT",
    r"\.(a1|a2|b1|b2)\.weight$|\.bm\.weight$": "GLoRA",
    r"\.vera_lambda|vera_[AB]$": "VeRA",
    r"\.ia3_": "IA3",
    r"\.reshape_weight$": "a weight of another shape",
    r"\.lora_embedding_[AB]": "a LoRA of an embedding",
    r"\.(hada|lokr)_t[12]": "a Tucker decomposition",
    r"\.lora_mid": "LoCon with a middle layer",
    r"\.lora_E(\.|$)": "AdaLoRA",
}


class Key(NamedTuple):
    """A key taken apart; ``module`` is as the file spells it, underscored or dotted, without its prefix.

    ``adapter`` is PEFT's name for the adapter, "" without one; ``number`` is that of a pair for a piece of the module.
    """

    text: str
    module: str
    part: str
    is_underscored: bool
    is_official: bool
    adapter: str
    number: str = ""


class Module(NamedTuple):
    """The keys of one adapted module, by the part that they are."""

    name: str
    is_underscored: bool
    is_official: bool
    keys: Mapping[str, str]


def take_apart(text: str) -> Key | None:
    """A key's module and part, None when it is no LoRA key."""
    if len(text) > _LONGEST:
        return None
    found = next(((match, part) for ending, part in _PARTS if (match := ending.fullmatch(text))), None)
    if found is None:
        return None
    match, part = found
    body, adapter = match["body"], match.groupdict().get("adapter") or ""
    number, adapter = (adapter, "") if _PAIR.search(text) else ("", adapter)
    for prefix in UNDERSCORED:
        if body.startswith(prefix):
            name = _WRAPPED.sub("", body.removeprefix(prefix))
            return Key(text, name, part, True, prefix == OFFICIAL, adapter, number)
    before = ""
    while before != body:  # wrappers and prefixes may stand in any order
        before, body = body, _DOTTED.sub("", unwrapped(body), count=1)
    body = _WORDS.sub("", body)
    body = body.removesuffix(".base_layer")  # PEFT's place for a layer that it has adapted
    return Key(text, body, part, "." not in body and re.search(r"_\d+_", body) is not None, False, adapter, number)


def modules(keys: Iterable[str], adapter: str | None = None) -> tuple[list[Module], list[str], list[str]]:
    """The file's modules in its order, the keys that belong to none, and the names of its adapters.

    ``adapter`` chooses one of several; the keys of the others are not looked at.
    """
    found: dict[tuple[str, bool], dict[str, str]] = {}
    official: set[tuple[str, bool]] = set()
    pieces: dict[tuple[str, bool], dict[tuple[str, bool], None]] = {}
    adapters: dict[str, None] = {}
    strange = []
    for text in keys:
        key = take_apart(text)
        if key is None:
            strange.append(text)
            continue
        is_factor = key.part in ("up", "down")
        if is_factor or key.adapter:
            adapters[key.adapter] = None
        if adapter is not None and key.adapter != adapter and (is_factor or key.adapter):
            continue
        place = (_piece(key), key.is_underscored)
        if key.number:
            pieces.setdefault((key.module, key.is_underscored), {})[place] = None
        parts = found.setdefault(place, {})
        if key.part in parts:
            strange.append(text)
        parts.setdefault(key.part, text)
        if key.is_official:
            official.add(place)
    for whole, places in pieces.items():  # what belongs to the module holds for each of its pairs
        shared = found.pop(whole, {})
        for place in places:
            found[place] |= shared
    made = [Module(*place, place in official, parts) for place, parts in found.items()]
    return made, strange, list(adapters)


def _piece(key: Key) -> str:
    """The name of a module, or of a numbered piece of it."""
    return key.module + ("_" if key.is_underscored else ".") * bool(key.number) + key.number


def other_method(key: str) -> str | None:
    """The name of the method that a key belongs to, where it is none that is applied."""
    return next((name for pattern, name in OTHER_METHODS.items() if re.search(pattern, key)), None)
