"""One part's files as tensors under the published names, without the wrapping that publishers add."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.checkpoint.component import Component, Components
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

_FOREIGN = (
    "flux", "sd1", "sdxl", "sd3", "aura", "hidream", "cosmos", "ltxv", "wan", "lumina2", "qwen_image",
    "t5", "t5encoder", "qwen2", "qwen2vl", "gemma2", "gemma3",
)  # fmt: skip
# MindSpore's own layers call these otherwise; a gamma of several axes is the published name of a norm.
_MINDSPORE = ((r"\.gamma$", ".weight"), (r"\.beta$", ".bias"), (r"\.embedding_table$", ".weight"))


def open_part(component: str, paths: Iterable[Path], components: Components, *, scales: Path | None = None) -> Tensors:
    """A part's tensors; ``scales`` is the map of its eight-bit weights where that is not beside them.

    ``components`` tell what else a file may be.
    Raises: CheckpointError for a file that is missing, damaged, of another kind, or lacks its scales.
    """
    row = components[component]
    files = [_opened(row, path, components, scales) for path in paths]
    if row.tower is not None and len(files) > 1:  # a whole encoder may lend its tower, in place of another one's
        starts, rest = row.tower.starts, row.tower.rest
        files[1:] = [_seen(row, file, lambda ours: not ours.startswith(rest)) for file in files[1:]]
        files[0] = _seen(row, files[0], lambda ours: not ours.startswith(starts))
    return joined(files)


def _seen(row: Component, file: Tensors, is_wanted: Callable[[str], bool]) -> Tensors:
    """A file without the tensors whose published names are not wanted."""
    return renamed(file, {n: n for rule in row.rules(file.names(), None) if is_wanted(rule.ours) for n in rule.theirs})


def _opened(row: Component, path: Path, components: Components, scales: Path | None) -> Tensors:
    if not path.exists():
        raise CheckpointError(
            f"{path} is missing. Check the path, or download the checkpoint in full (framewake checkpoints download)."
        )
    file = open_tensors(path)
    _check_no_map(file)
    if isinstance(file, GgufFile):
        file = _from_gguf(row, file, components)
    _check_kind(row, file, components)
    prefix = _prefix(row, file.names())
    file = renamed(file, _plain_names(file, prefix))
    place = scales if scales is not None else _map_beside(file.path)
    outside = {} if place is None else read_map(_numbers(place), prefix, file.names())
    return with_scales(file, outside, place)


def _from_gguf(row: Component, file: GgufFile, components: Components) -> Tensors:
    """A GGUF file's tensors under published names, where it is of the right kind.

    Files that say "pig" or nothing may be any part.
    Raises: CheckpointError that names the part that it is, or the model.
    """
    said = file.architecture
    part = next((each for each in components.values() if said in each.gguf), None)
    if part is not None and part.name != row.name:
        flags = " or ".join(f"--part {flag}=FILE" for flag in part.flags)
        raise CheckpointError(f"{file.path} says that it is a {said!r} model, no {row.word}: name it with {flags}.")
    if part is None and (not row.gguf or said in _FOREIGN):
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


def _prefix(row: Component, names: Iterable[str]) -> str:
    """What stands in front of all names of a part; nothing where none is known to stand in front of its kind."""
    if not row.prefixes:
        return ""
    held = {unwrapped(name) for name in names}
    known = next((p for p in row.prefixes if any(p + mark in held for mark in row.marks)), None)
    if known is not None:
        return known
    found = {name.removesuffix(mark) for mark in row.marks for name in held if name.endswith("." + mark)}
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
        for pattern, published in _MINDSPORE if len(file.shape(name)) < 3 else ():
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


def _check_kind(row: Component, file: Tensors, components: Components) -> None:
    """Whether a file that is known to be another part stands in the place of this one."""
    found = kinds_of(file, components)
    if found and all(kind.component != row.name for kind in found):
        kind = found[0]
        way = kind.advice or f"Name it with --part {kind.flag}=FILE."
        raise CheckpointError(f"{file.path} is {kind.name}, no {row.word}. {way}")


def _check_no_map(file: Tensors) -> None:
    """A map in place of weights holds nothing but single numbers."""
    if file.path.stem.endswith(MAP) and all(math.prod(file.shape(name)) == 1 for name in file.names()):
        weights = f"{file.path.stem.removesuffix(MAP)}{file.path.suffix}"
        raise CheckpointError(f"{file.path} holds the scales of weights, not the weights: name {weights}.")
