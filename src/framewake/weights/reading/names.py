"""Tensor names of other dialects, each as a table against our names, which are the published ones.

A table is a list of rules, and every name stands in it exactly once at both ends; what is not in the
table is an error on either side, never silently skipped.
Source: specification, sections 4.2, 7.5 and 8; the dialects' names as their own classes list them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from framewake.config import DiTConfig
from framewake.errors import CheckpointError


class NameRule(NamedTuple):
    """One of our tensors and where it lies in the other dialect.

    ``theirs`` are joined along the first axis in the order given, ``rows`` is how many rows each has
    (() when there is only one).  ``is_swapped``: the other dialect has the two halves of the rows the
    other way round.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...] = ()
    is_swapped: bool = False

    def join(self, read: Callable[[str], np.ndarray]) -> np.ndarray:
        """Our tensor from theirs."""
        values = np.concatenate([read(name) for name in self.theirs]) if self.rows else read(self.theirs[0])
        return self.swap(values)

    def places(self, values: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Each of their tensors and the rows of our array that it fills; ``swap`` comes afterwards."""
        first = 0
        for name, count in zip(self.theirs, self.rows or (len(values) if values.ndim else 0,), strict=True):
            yield name, values[first : first + count] if self.rows else values
            first += count

    def cut(self, values: np.ndarray) -> dict[str, np.ndarray]:
        """Their tensors from ours."""
        values = self.swap(values)
        pieces = np.split(values, np.cumsum(self.rows)[:-1]) if self.rows else [values]
        return dict(zip(self.theirs, pieces, strict=True))

    def shape(self, shape_of: Callable[[str], tuple[int, ...]]) -> tuple[int, ...]:
        """Our shape from theirs.

        Raises: CheckpointError when the pieces cannot be joined as the rule says.
        """
        shapes = [shape_of(name) for name in self.theirs]
        if not self.rows:
            return shapes[0]
        fits = [shape == (rows, *shapes[0][1:]) for shape, rows in zip(shapes, self.rows, strict=True)]
        if not all(fits):
            pieces = ", ".join(f"{name} {list(shape)}" for name, shape in zip(self.theirs, shapes, strict=True))
            raise CheckpointError(f"{self.ours} needs pieces of {list(self.rows)} rows, but the file has {pieces}.")
        return (sum(self.rows), *shapes[0][1:])

    def swap(self, values: np.ndarray) -> np.ndarray:
        """The two halves of the rows changed over, where the dialects differ in that."""
        return np.concatenate(np.split(values, 2)[::-1]) if self.is_swapped else values


def same(names: Iterable[str]) -> list[NameRule]:
    """The table of a dialect that has our own names."""
    return [NameRule(name, (name,)) for name in names]


def diffusers_dit(config: DiTConfig) -> list[NameRule]:
    """The table of diffusers' transformer class."""
    return [
        *pair("img_in.proj", "x_embedder.proj"),
        *refiner(config),
        *embedder("time_in.mlp.0", "time_in.mlp.2", "time_text_embed.timestep_embedder"),
        *embedder("vector_in.in_layer", "vector_in.out_layer", "time_text_embed.text_embedder"),
        *(_guidance() if config.has_guidance else ()),
        *(rule for index in range(config.double_blocks) for rule in double(config, index)),
        *(rule for index in range(config.single_blocks) for rule in _single(config, index)),
        *pair("final_layer.linear", "proj_out"),
        # They keep (scale, shift), the published file (shift, scale).
        *pair("final_layer.adaLN_modulation.1", "norm_out.linear", is_swapped=True),
    ]


def pair(ours: str, *theirs: str, rows: tuple[int, ...] = (), is_swapped: bool = False) -> Iterator[NameRule]:
    """The rules of a layer's weight and bias."""
    for kind in ("weight", "bias"):
        yield NameRule(f"{ours}.{kind}", tuple(f"{name}.{kind}" for name in theirs), rows, is_swapped)


def embedder(first: str, second: str, theirs: str) -> Iterator[NameRule]:
    """The rules of a number's two layers."""
    yield from pair(first, f"{theirs}.linear_1")
    yield from pair(second, f"{theirs}.linear_2")


def _guidance() -> Iterator[NameRule]:
    return embedder("guidance_in.mlp.0", "guidance_in.mlp.2", "time_text_embed.guidance_embedder")


def refiner(config: DiTConfig) -> Iterator[NameRule]:
    """The rules of the token refiner."""
    them = "context_embedder"
    yield from pair("txt_in.input_embedder", f"{them}.proj_in")
    time, text = f"{them}.time_text_embed.timestep_embedder", f"{them}.time_text_embed.text_embedder"
    yield from embedder("txt_in.t_embedder.mlp.0", "txt_in.t_embedder.mlp.2", time)
    yield from embedder("txt_in.c_embedder.linear_1", "txt_in.c_embedder.linear_2", text)
    for index in range(config.refiner_blocks):
        ours = f"txt_in.individual_token_refiner.blocks.{index}"
        theirs = f"{them}.token_refiner.refiner_blocks.{index}"
        yield from pair(f"{ours}.norm1", f"{theirs}.norm1")
        yield from pair(f"{ours}.norm2", f"{theirs}.norm2")
        heads = [f"{theirs}.attn.to_{letter}" for letter in "qkv"]
        yield from pair(f"{ours}.self_attn_qkv", *heads, rows=(config.hidden_size,) * 3)
        yield from pair(f"{ours}.self_attn_proj", f"{theirs}.attn.to_out.0")
        yield from pair(f"{ours}.mlp.fc1", f"{theirs}.ff.net.0.proj")
        yield from pair(f"{ours}.mlp.fc2", f"{theirs}.ff.net.2")
        yield from pair(f"{ours}.adaLN_modulation.1", f"{theirs}.norm_out.linear")


# Per stream of a double block: modulation, q k v, their norms, projection, MLP.
_STREAMS = {
    "img": ("norm1", ("to_q", "to_k", "to_v"), ("norm_q", "norm_k"), "to_out.0", "ff"),
    "txt": (
        "norm1_context",
        ("add_q_proj", "add_k_proj", "add_v_proj"),
        ("norm_added_q", "norm_added_k"),
        "to_add_out",
        "ff_context",
    ),
}


def double(config: DiTConfig, index: int) -> Iterator[NameRule]:
    """The rules of a double block."""
    theirs = f"transformer_blocks.{index}"
    for stream, (modulation, entry, norms, projection, mlp) in _STREAMS.items():
        ours = f"double_blocks.{index}.{stream}"
        yield from pair(f"{ours}_mod.linear", f"{theirs}.{modulation}.linear")
        heads = [f"{theirs}.attn.{name}" for name in entry]
        yield from pair(f"{ours}_attn_qkv", *heads, rows=(config.hidden_size,) * 3)
        for letter, norm in zip("qk", norms, strict=True):
            yield NameRule(f"{ours}_attn_{letter}_norm.weight", (f"{theirs}.attn.{norm}.weight",))
        yield from pair(f"{ours}_attn_proj", f"{theirs}.attn.{projection}")
        yield from pair(f"{ours}_mlp.fc1", f"{theirs}.{mlp}.net.0.proj")
        yield from pair(f"{ours}_mlp.fc2", f"{theirs}.{mlp}.net.2")


def _single(config: DiTConfig, index: int) -> Iterator[NameRule]:
    ours, theirs = f"single_blocks.{index}", f"single_transformer_blocks.{index}"
    yield from pair(f"{ours}.modulation.linear", f"{theirs}.norm.linear")
    entry = [f"{theirs}.attn.to_{letter}" for letter in "qkv"] + [f"{theirs}.proj_mlp"]
    yield from pair(f"{ours}.linear1", *entry, rows=(config.hidden_size,) * 3 + (config.mlp_size,))
    yield from pair(f"{ours}.linear2", f"{theirs}.proj_out")
    for letter in "qk":
        yield NameRule(f"{ours}.{letter}_norm.weight", (f"{theirs}.attn.norm_{letter}.weight",))


_LLAMA_PARTS = ("embed_tokens", "layers", "norm")
# The text encoders' names moved twice; each pattern turns a newer beginning into the published one.
_LLAVA_PREFIXES = (
    ("model.language_model.", "language_model.model."),
    ("model.vision_tower.", "vision_tower."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
    ("lm_head.", "language_model.lm_head."),
    # A language model alone, as its own class or its inner one saves it, and a tower with its projector.
    *((f"{start}{part}.", f"language_model.model.{part}.") for start in ("model.", "") for part in _LLAMA_PARTS),
    ("vision_model.", "vision_tower.vision_model."),
)


# llama.cpp's names of a language model, and of a vision tower with its projector.
_LLAMA_CPP = (
    (r"^token_embd\.", "language_model.model.embed_tokens."),
    (r"^output_norm\.", "language_model.model.norm."),
    (r"^output\.", "language_model.lm_head."),
    (r"^blk\.(\d+)\.attn_(q|k|v)\.", r"language_model.model.layers.\1.self_attn.\2_proj."),
    (r"^blk\.(\d+)\.attn_output\.", r"language_model.model.layers.\1.self_attn.o_proj."),
    (r"^blk\.(\d+)\.attn_norm\.", r"language_model.model.layers.\1.input_layernorm."),
    (r"^blk\.(\d+)\.ffn_norm\.", r"language_model.model.layers.\1.post_attention_layernorm."),
    (r"^blk\.(\d+)\.ffn_(gate|up|down)\.", r"language_model.model.layers.\1.mlp.\2_proj."),
    (r"^mm\.0\.", "multi_modal_projector.linear_1."),
    (r"^mm\.2\.", "multi_modal_projector.linear_2."),
    (r"^v\.class_embd$", "vision_model.embeddings.class_embedding"),
    (r"^v\.patch_embd\.", "vision_model.embeddings.patch_embedding."),
    (r"^v\.position_embd\.", "vision_model.embeddings.position_embedding."),
    (r"^v\.pre_ln\.", "vision_model.pre_layrnorm."),
    (r"^v\.post_ln\.", "vision_model.post_layernorm."),
    (r"^v\.blk\.(\d+)\.attn_(q|k|v)\.", r"vision_model.encoder.layers.\1.self_attn.\2_proj."),
    (r"^v\.blk\.(\d+)\.attn_out\.", r"vision_model.encoder.layers.\1.self_attn.out_proj."),
    (r"^v\.blk\.(\d+)\.ln(1|2)\.", r"vision_model.encoder.layers.\1.layer_norm\2."),
    (r"^v\.blk\.(\d+)\.ffn_up\.", r"vision_model.encoder.layers.\1.mlp.fc1."),
    (r"^v\.blk\.(\d+)\.ffn_down\.", r"vision_model.encoder.layers.\1.mlp.fc2."),
)


def from_llama_cpp(name: str) -> str:
    """A name of llama.cpp as a published one; any other stays."""
    for pattern, published in _LLAMA_CPP:
        name, count = re.subn(pattern, published, name)
        if count:
            break
    return name


def llava(names: Iterable[str]) -> list[NameRule]:
    """The table of a LLaVA file in any of its three styles, recognised name by name."""
    return [NameRule(_published_llava(name), (name,)) for name in names]


def _published_llava(name: str) -> str:
    for newer, published in _LLAVA_PREFIXES:
        if name.startswith(newer):
            name = published + name.removeprefix(newer)
            break
    return re.sub(r"^vision_tower\.(?!vision_model\.)", "vision_tower.vision_model.", name)


# ComfyUI's names inside a block, each with the published one.
_COMFY = (
    (r"^txt_in\.c_embedder\.in_layer\.", "txt_in.c_embedder.linear_1."),
    (r"^txt_in\.c_embedder\.out_layer\.", "txt_in.c_embedder.linear_2."),
    (r"^(txt_in\.t_embedder|time_in|guidance_in)\.in_layer\.", r"\1.mlp.0."),
    (r"^(txt_in\.t_embedder|time_in|guidance_in)\.out_layer\.", r"\1.mlp.2."),
    (r"(_mod|\.modulation)\.lin\.", r"\1.linear."),
    (r"_attn\.(qkv|proj)\.", r"_attn_\1."),
    (r"_attn\.norm\.(q|k)(?:uery|ey)_norm\.scale$", r"_attn_\1_norm.weight"),
    (r"\.norm\.(q|k)(?:uery|ey)_norm\.scale$", r".\1_norm.weight"),
    (r"(blocks\.\d+\.(?:img_|txt_)?mlp)\.0\.", r"\1.fc1."),
    (r"(blocks\.\d+\.(?:img_|txt_)?mlp)\.2\.", r"\1.fc2."),
)


def comfy_dit(names: Iterable[str]) -> list[NameRule]:
    """The table of a transformer that ComfyUI has saved, or one with the published names: both may be mixed."""
    rules = []
    for name in names:
        ours = name
        for pattern, published in _COMFY:
            ours = re.sub(pattern, published, ours)
        rules.append(NameRule(ours, (name,)))
    return rules


def clip_text(names: Iterable[str]) -> list[NameRule]:
    """The table of a CLIP text file, whose newest style has no ``text_model.`` in front."""
    parts = ("embeddings.", "encoder.", "final_layer_norm.")
    return [NameRule(f"text_model.{name}" if name.startswith(parts) else name, (name,)) for name in names]


def translate(rules: Iterable[NameRule], tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Our tensors in the other dialect, strict at both ends.

    Raises: CheckpointError when a tensor of ours has no rule or a rule has no tensor.
    """
    rules = list(rules)
    strange = sorted(set(tensors) ^ {rule.ours for rule in rules})
    if strange:
        raise CheckpointError(f"{len(strange)} tensors do not fit the table of names, first {strange[0]!r}.")
    return {name: values for rule in rules for name, values in rule.cut(tensors[rule.ours]).items()}
