"""Tensor names of HunyuanVideo-1.5's published files, each as a table against our names.

Ours are Tencent's with queries, keys and values as one layer, which is how ComfyUI stores them.
Source: specification of 1.5, sections 2.3, 8 and 9.3.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from framewake.config import VAEConfig
from framewake.config15 import DiT15Config, T5Config
from framewake.weights.reading.names import NameRule, comfy_dit, double, embedder, pair, refiner, same

LAYER: tuple[str, ...] = ("weight", "bias")
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


def diffusers_dit(config: DiT15Config) -> list[NameRule]:
    """The table of diffusers' transformer class."""
    steps = ("time_r_in", "timestep_embedder_r")
    kinds = [("time_in", "timestep_embedder"), *([steps] if config.has_next_timestep else [])]
    return [
        *pair("img_in.proj", "x_embedder.proj"),
        *refiner(config),
        *(rule for ours, their in kinds for rule in embedder(f"{ours}.mlp.0", f"{ours}.mlp.2", f"time_embed.{their}")),
        *(rule for ours, their in _PROJECTIONS.items() for rule in pair(ours, their)),
        NameRule("cond_type_embedding.weight", ("cond_type_embed.weight",)),
        *(rule for index in range(config.double_blocks) for rule in double(config, index)),
        *pair("final_layer.linear", "proj_out"),
        *pair("final_layer.adaLN_modulation.1", "norm_out.linear", is_swapped=True),
    ]


_PROJECTIONS = {
    "byt5_in.layernorm": "context_embedder_2.norm",
    "byt5_in.fc1": "context_embedder_2.linear_1",
    "byt5_in.fc2": "context_embedder_2.linear_2",
    "byt5_in.fc3": "context_embedder_2.linear_3",
    "vision_in.proj.0": "image_embedder.norm_in",
    "vision_in.proj.1": "image_embedder.linear_1",
    "vision_in.proj.3": "image_embedder.linear_2",
    "vision_in.proj.4": "image_embedder.norm_out",
}


def published_dit(config: DiT15Config) -> list[NameRule]:
    """The table of Tencent's own files, in which queries, keys and values are three layers."""
    rules = []
    for rule in diffusers_dit(config):
        found, thirds = re.fullmatch(r"(double_blocks\..*_attn_)qkv(\..*)", rule.ours), (config.hidden_size,) * 3
        theirs = [] if found is None else [f"{found[1]}{letter}{found[2]}" for letter in "qkv"]
        rules.append(NameRule(rule.ours, tuple(theirs), thirds) if theirs else NameRule(rule.ours, (rule.ours,)))
    return rules


def vae(names: Iterable[str]) -> list[NameRule]:
    """The table of an autoencoder under Tencent's names or diffusers'."""
    held = tuple(names)
    if not any("_blocks." in name for name in held):
        return same(held)
    known = {
        their: ours for ours, their in _vae_prefixes(_count(held, r"up_blocks\.(\d+)"), _count(held, r"resnets\.(\d+)"))
    }
    found = []
    for name in held:
        start = next((start for start in known if name.startswith(start)), "")
        found.append(NameRule(known.get(start, "") + name.removeprefix(start), (name,)))
    return found


def diffusers_vae(config: VAEConfig) -> list[NameRule]:
    """The table of diffusers' autoencoder class."""
    prefixes = dict(_vae_prefixes(len(config.block_out_channels), config.layers_per_block + 1))
    rules = []
    for ours, theirs in prefixes.items():
        kinds = LAYER
        if ".block" in ours:
            convolutions = tuple(f"conv{number}.conv.{kind}" for number in (1, 2) for kind in LAYER)
            kinds = (*convolutions, "norm1.gamma", "norm2.gamma")
        elif ours.endswith("sample."):
            kinds = tuple(f"conv.conv.{kind}" for kind in LAYER)
        elif ours.endswith("norm."):
            kinds = ("gamma",)
        rules += [NameRule(ours + each, (theirs + each,)) for each in kinds]
    ends = [f"{half}.conv_{end}.conv.{kind}" for half in ("encoder", "decoder") for end in ("in", "out")
            for kind in LAYER]  # fmt: skip
    rules += same([*ends, "encoder.norm_out.gamma", "decoder.norm_out.gamma"])
    levels, layers = len(config.block_out_channels), config.layers_per_block
    lacking: tuple[str, ...] = (f"encoder.down.{levels - 1}.downsample.", f"decoder.up.{levels - 1}.upsample.")
    lacking += tuple(f"encoder.down.{level}.block.{layers}." for level in range(levels))
    return [rule for rule in rules if not rule.ours.startswith(lacking)]


def _vae_prefixes(levels: int, resnets: int) -> Iterator[tuple[str, str]]:
    """Beginnings of our names and of diffusers' for them."""
    for half, side in (("encoder", "down"), ("decoder", "up")):
        for level in range(levels):
            for block in range(resnets):
                yield f"{half}.{side}.{level}.block.{block}.", f"{half}.{side}_blocks.{level}.resnets.{block}."
            yield f"{half}.{side}.{level}.{side}sample.", f"{half}.{side}_blocks.{level}.{side}samplers.0."
        for place in (0, 1):
            yield f"{half}.mid.block_{place + 1}.", f"{half}.mid_block.resnets.{place}."
        for ours, theirs in (("norm", "norm"), ("q", "to_q"), ("k", "to_k"), ("v", "to_v"), ("proj_out", "proj_out")):
            yield f"{half}.mid.attn_1.{ours}.", f"{half}.mid_block.attentions.0.{theirs}."


def _count(names: Iterable[str], pattern: str) -> int:
    return max((int(found[1]) for name in names if (found := re.search(pattern, name))), default=-1) + 1


def t5(names: Iterable[str]) -> list[NameRule]:
    """The table of a T5 encoder; its table of embeddings may have a name of the whole model's."""
    held = tuple(names)
    found = [NameRule(name.removeprefix("encoder."), (name,)) for name in held if name != "shared.weight"]
    is_shared = all(rule.ours != "embed_tokens.weight" for rule in found)
    if "shared.weight" in held:
        found.append(NameRule("embed_tokens.weight" if is_shared else "shared.weight", ("shared.weight",)))
    return found


def diffusers_t5(config: T5Config) -> list[NameRule]:
    """The table of transformers' encoder class; embeddings are stored under the whole model's name."""
    layers = [f"layer.0.SelfAttention.{letter}" for letter in "qkvo"] + ["layer.0.layer_norm", "layer.1.layer_norm"]
    layers += [f"layer.1.DenseReluDense.{name}" for name in ("wi_0", "wi_1", "wo")]
    ours = [f"block.{number}.{layer}.weight" for number in range(config.layers) for layer in layers]
    ours += ["block.0.layer.0.SelfAttention.relative_attention_bias.weight", "final_layer_norm.weight"]
    return [NameRule("embed_tokens.weight", ("shared.weight",)), *(NameRule(n, (f"encoder.{n}",)) for n in ours)]


def published_t5(config: T5Config) -> list[NameRule]:
    """The table of Tencent's file of it, a part of another model."""
    return [NameRule(rule.ours, (f"module.text_tower.encoder.{rule.ours}",)) for rule in diffusers_t5(config)]
