"""One part's files as tensors under the published names, without what publishers put around names and values."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.checkpoint.layouts import WORDS, Component
from framewake.weights.checkpoint.single import kinds_of
from framewake.weights.reading.containers import expect
from framewake.weights.reading.files import MAP, READERS, open_file, open_tensors
from framewake.weights.reading.gguf_file import GgufFile
from framewake.weights.reading.names import from_llama_cpp
from framewake.weights.reading.scales import read_map, with_scales
from framewake.weights.reading.storage import Tensors
from framewake.weights.reading.torch_file import TorchFile
from framewake.weights.reading.views import joined, renamed
from framewake.weights.reading.wrappers import unwrapped

# Names that tell a part, and what files are known to have in front of all of theirs, the first that is there counts.
_MARKS = {
    "dit": ("img_in.proj.weight", "x_embedder.proj.weight"),
    "vae": ("decoder.conv_in.conv.weight",),
    "llava": (),
    "clip_text": (),
}
_PREFIXES = {
    "dit": ("", "model.diffusion_model.", "diffusion_model.", "model.model.", "transformer.", "model."),
    "vae": ("vae.", "first_stage_model.", ""),
    "llava": (),
    "clip_text": (),
}
_IS_VISION = re.compile(r"(^|\.)(vision_tower|vision_model|multi_modal_projector)\.")
_IS_LANGUAGE = re.compile(r"(model\.)?language_model\.|(model\.)?(embed_tokens|layers|norm)\.|lm_head\.")
# What GGUF files say of themselves, by the part that they are; "pig" and nothing stand for any.
_ARCHITECTURES: dict[Component, tuple[str, ...]] = {"dit": ("hyvid",), "llava": ("llama", "clip")}
_FLAGS = {"dit": ("dit",), "llava": ("llava", "llava-vision")}
_FOREIGN = (
    "flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "wan", "lumina2", "qwen_image",
    "t5", "t5encoder", "qwen2", "qwen2vl", "gemma2", "gemma3",
)  # fmt: skip
# MindSpore's own layers call these otherwise.
_MINDSPORE = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"), (r"\.embedding_table$", ".weight"))


def open_part(component: Component, paths: Iterable[Path], *, scales: Path | None = None) -> Tensors:
    """A part's tensors; ``scales`` is the map of its eight-bit weights where that is not beside them.

    Raises: CheckpointError for a file that is missing, damaged, of another kind, or lacks its scales.
    """
    files = [_opened(component, path, scales) for path in paths]
    if component == "llava" and len(files) > 1:  # a whole LLaVA may lend its vision tower, in place of another one's
        files[1:] = [renamed(f, {n: n for n in f.names() if not _IS_LANGUAGE.match(n)}) for f in files[1:]]
        files[0] = renamed(files[0], {n: n for n in files[0].names() if not _IS_VISION.search(n)})
    return joined(files)


def _opened(component: Component, path: Path, scales: Path | None) -> Tensors:
    if not path.exists():
        raise CheckpointError(
            f"{path} is missing. Check the path, or download the checkpoint in full (framewake checkpoints download)."
        )
    file = open_tensors(path)
    _check_no_map(file)
    if isinstance(file, GgufFile):
        file = _from_gguf(component, file)
    _check_kind(component, file)
    prefix = _prefix(component, file.names())
    file = renamed(file, _plain_names(file, prefix))
    place = scales if scales is not None else _map_beside(file.path)
    outside = {} if place is None else read_map(_numbers(place), prefix, file.names())
    return with_scales(file, outside, place)


def _from_gguf(component: Component, file: GgufFile) -> Tensors:
    """A GGUF file's tensors under published names, where it is of the right kind.

    Raises: CheckpointError that names the part that it is, or the model.
    """
    said = file.architecture
    part = next((name for name, kinds in _ARCHITECTURES.items() if said in kinds), None)
    if part is not None and part != component:
        flags = " or ".join(f"--part {name}=FILE" for name in _FLAGS[part])
        raise CheckpointError(
            f"{file.path} says that it is a {said!r} model, no {WORDS[component]}: name it with {flags}."
        )
    if part is None and (component not in _ARCHITECTURES or said in _FOREIGN):
        raise CheckpointError(
            f"{file.path} says that it is a {said!r} model; in GGUF, transformers (hyvid) and text encoders (llama) of "
            "HunyuanVideo are read. Take the .safetensors file of this part."
        )
    names = {from_llama_cpp(name): name for name in file.names()}
    # Older converters had the two layers of an MLP the wrong way round, which their sizes show.
    for first in [name for name in names if re.search(r"^vision_model.*\.mlp\.fc1\.weight$", name)]:
        shape = file.shape(names[first])
        if len(shape) == 2 and shape[0] < shape[1]:
            for kind in ("weight", "bias"):
                one, two = (first.replace("fc1.weight", f"fc{number}.{kind}") for number in (1, 2))
                names[one], names[two] = names[two], names[one]
    return renamed(file, names)


def _prefix(component: Component, names: Iterable[str]) -> str:
    """What stands in front of all names of a part.

    The autoencoder's file may hold other parts as well (specification, section 7.2).
    """
    held = {unwrapped(name) for name in names}
    marks = _MARKS[component]
    known = next((p for p in _PREFIXES[component] if any(p + mark in held for mark in marks)), None)
    if known is not None:
        return known
    found = {name.removesuffix(mark) for mark in marks for name in held if name.endswith("." + mark)}
    return found.pop() if len(found) == 1 else ""


def _plain_names(file: Tensors, prefix: str) -> dict[str, str]:
    """Names without prefix and wrappers -> the file's; what is not below the prefix is left out.

    Raises: CheckpointError when two become the same.
    """
    found: dict[str, str] = {}
    for name in file.names():
        plain = unwrapped(name)
        is_counter = "." not in name and math.prod(file.shape(name)) == 1  # "epoch" and the like, of a training run
        if is_counter or not plain.startswith(prefix):
            continue
        plain = plain.removeprefix(prefix).replace(".weight._data", ".weight")
        for pattern, published in _MINDSPORE:
            plain = re.sub(pattern, published, plain)
        if plain in found:
            raise CheckpointError(f"{file.path} holds {plain!r} twice: as {found[plain]!r} and as {name!r}.")
        found[plain] = name
    return found


def _map_beside(path: Path) -> Path | None:
    """The map of a file's scales, where it was published; a link's is beside what the link means, too."""
    for place in (path, path.resolve()):
        beside = place.with_name(f"{place.stem}{MAP}{place.suffix}")
        if beside.is_file():
            return beside
    return None


def _numbers(path: Path) -> dict[str, np.ndarray]:
    """What a map holds: small tensors, or plain numbers."""
    if expect(path, READERS).key != "torch":
        file = open_file(path)
        return {name: file.read(name) for name in file.names()}
    numbers = TorchFile(path)
    found = {name: numbers.read(name) for name in numbers.names()}
    return found | {name: np.asarray(value) for name, value in numbers.numbers.items()}


def _check_kind(component: Component, file: Tensors) -> None:
    """Whether a file that is known to be another part stands in the place of this one."""
    found = kinds_of(file.names())
    if found and all(kind.component != component for kind in found):
        kind = found[0]
        way = kind.advice or f"Name it with --part {kind.flag}=FILE."
        raise CheckpointError(f"{file.path} is {kind.name}, no {WORDS[component]}. {way}")


def _check_no_map(file: Tensors) -> None:
    """A map in place of weights holds nothing but single numbers."""
    if file.path.stem.endswith(MAP) and all(math.prod(file.shape(name)) == 1 for name in file.names()):
        weights = f"{file.path.stem.removesuffix(MAP)}{file.path.suffix}"
        raise CheckpointError(f"{file.path} holds the scales of weights, not the weights: name {weights}.")
