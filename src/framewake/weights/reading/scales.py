"""Eight-bit weights and their scales, wherever those lie: beside each weight, or in a map, a file of their own.

A weight of which the scale is lost looks like any other and makes noise, so what needs one and has none is refused.
"""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Dtype
from framewake.errors import CheckpointError
from framewake.weights.reading.files import MAP
from framewake.weights.reading.narrow import CHUNK, fill_from
from framewake.weights.reading.storage import Tensors, widen
from framewake.weights.reading.views import View
from framewake.weights.reading.wrappers import unwrapped


class _Kind(NamedTuple):
    """Where the scales of a weight lie: the end of their name, what a scale is multiplied with, and who writes that."""

    ending: str
    times: float
    writer: str


# In this order: ".scale" alone is also a norm's name, and counts only beside a weight in eight bits.
KINDS = (
    _Kind(".scale_weight", 1.0, "ComfyUI's older files, Kijai, musubi-tuner"),
    _Kind(".weight_scale", 1.0, "ComfyUI's newer files, framewake's own fp8 and int8, compressed-tensors"),
    _Kind(".weight_scale_inv", 1.0, "block by block"),
    _Kind(".weight._scale", 1.0, "quanto, in eight bits"),
    _Kind(".weight.scale", 1.0, ""),
    _Kind(".fp8_scale", 1.0, "Tencent's layers as they stand in memory"),
    _Kind(".SCB", 1 / 127, "bitsandbytes, in eight bits"),
    _Kind(".scale", 1.0, ""),
)
# Scales of inputs are for products in eight bits, which nothing here makes.
_IGNORED = (".scale_input", ".input_scale", ".output_scale", ".comfy_quant", ".weight_format")
_MARKER = "scaled_fp8"
_COMFY = ("float8_e4m3fn", "float8_e5m2", "int8_tensorwise")
# Weights that several numbers share a byte of, by a name that only they have.
PACKED = {
    r"\.quant_state\.bitsandbytes__|\.weight\.(absmax|quant_map)$": "bitsandbytes' 4 bits (nf4, fp4)",
    r"\.(qweight|qzeros|g_idx)$": "GPTQ, AWQ or SVDQuant",
    r"\.weight_scale_2$|\.weight_packed$": "NVFP4 or another packed type",
}
PACKED_ADVICE = "Take the bfloat16 or fp8 file of the same model, or a GGUF file, which is as small."
_EIGHT = ("F8_E4M3", "F8_E5M2")
_WHOLE = ("I8", "U8", "I16", "I32")
# Weights of these models are hundredths on average; what fills the range of its type is tens.
MOST_MEAN = 1.0
LOOKS = 16
_CHECKED_NUMBERS = 1 << 16
_TENCENT = re.compile(r"_model_states_fp8$")


class Scale(NamedTuple):
    """The scales of one weight, read when it is. ``label`` says where they are; ``name`` is theirs in the same file."""

    shape: tuple[int, ...]
    read: Callable[[], np.ndarray]
    times: float
    label: str
    name: str = ""


class Scaled(View):
    """Weights with their scales applied when they are read.

    Raises: CheckpointError when scales do not fit their weight.
    """

    def __init__(self, file: Tensors, scales: Mapping[str, Scale], names: tuple[str, ...]) -> None:
        super().__init__(file.path, {name: (file, name) for name in names})
        self._file, self._scales = file, scales
        self._grids = {name: _grid(file, name, scale) for name, scale in scales.items()}

    def dtype(self, name: str) -> str:
        """A tensor's type; what has a scale is float32 once it is applied."""
        return "F32" if name in self._scales else super().dtype(name)

    def raw(self, name: str) -> np.ndarray:
        """The bits of the type that ``dtype`` names."""
        return self.read(name) if name in self._scales else super().raw(name)

    def read(self, name: str) -> np.ndarray:
        """The values, scaled in float32."""
        if name not in self._scales:
            return super().read(name)
        out = np.empty(self.shape(name), np.float32)
        self.fill(name, out, "float32")
        return out

    def fill(self, name: str, out: np.ndarray, dtype: Dtype, *, first: int = 0) -> None:
        """The values from a number on into an array of a computing type, scaled in float32, some rows at a time."""
        if name not in self._scales:
            super().fill(name, out, dtype, first=first)
            return
        raw, stored = self._file.raw(name), self._file.dtype(name)
        if not raw.size:
            return
        scale = self._scales[name]
        factors = scale.read().astype(np.float32).reshape(self._grids[name]) * np.float32(scale.times)
        rows = raw.reshape(len(raw), -1)
        high, wide = len(rows) // factors.shape[0], rows.shape[1] // factors.shape[1]
        begin, skipped = divmod(first, rows.shape[1])
        end, step = -(-(first + out.size) // rows.shape[1]), max(1, CHUNK // rows.shape[1])

        def scaled(low: int) -> np.ndarray:
            last = min(low + step, end)
            factor = factors if len(factors) == 1 else factors[np.arange(low, last) // high]
            factor = factor if factors.shape[1] == 1 else np.repeat(factor, wide, axis=1)
            return widen(rows[low:last], stored).astype(np.float32, copy=False) * factor

        fill_from(out, map(scaled, range(begin, end, step)), dtype, skipped=skipped)


def with_scales(file: Tensors, outside: Mapping[str, np.ndarray], place: Path | None) -> Tensors:
    """A file with all scales applied that are there; ``outside`` are those of the map at ``place``.

    Of the tensors, some thousand numbers are read where a scale is missing.
    Raises: CheckpointError when scales fit nothing or are broken, and for weights that need some and have none.
    """
    held = set(file.names())
    scales, names = _own(file)
    strange = [name for name in outside if name not in held]
    if strange:
        raise CheckpointError(
            f"{place} does not belong to {file.path}: {len(strange)} of its {len(outside)} scales are for no weight "
            f"there, first {strange[0]!r}. Name the map that was published with it: --part dit-scales=FILE."
        )
    for name, values in outside.items():
        label = f"{name.removesuffix('.weight')!r} in {place}"
        scales.setdefault(name, Scale(values.shape, functools.partial(np.array, values), 1.0, label))
    for scale in scales.values():
        _check_numbers(file, scale)
    _check_complete(file, [name for name in names if name not in scales], place=place, has_some=bool(scales))
    return Scaled(file, scales, names) if len(names) < len(held) or scales else file


def with_own_scales(file: Tensors) -> Tensors:
    """A file with the scales applied that stand in it; nothing is said of those that may be missing.

    Raises: CheckpointError when scales fit nothing, and for packed types.
    """
    scales, names = _own(file)
    return Scaled(file, scales, names) if scales else file


def _own(file: Tensors) -> tuple[dict[str, Scale], tuple[str, ...]]:
    """The scales that stand beside their weights, and the names of all that is not about scales."""
    _check_packed(file)
    scales = dict(_inside(file, set(file.names())))
    used = {scale.name for scale in scales.values()}
    return scales, tuple(name for name in file.names() if name not in used and not _is_mark(name))


def read_map(tensors: Mapping[str, np.ndarray], prefix: str, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """A map's scales by the names of their weights, whatever its writer put around the names of layers."""
    held, found = set(names), {}
    for key, values in tensors.items():
        layer = unwrapped(key)
        for ending in (".weight", *(kind.ending for kind in KINDS)):
            layer = layer.removesuffix(ending)
        if f"{layer}.weight" not in held and prefix:
            layer = layer.removeprefix(unwrapped(prefix))
        found[f"{layer}.weight"] = values
    return found


def _is_mark(name: str) -> bool:
    return name.endswith(_IGNORED) or name == _MARKER


def _inside(file: Tensors, held: set[str]) -> Iterator[tuple[str, Scale]]:
    """The scales that stand beside their weights."""
    for name in file.names():
        kind = next((kind for kind in KINDS if name.endswith(kind.ending)), None)
        if kind is None:
            continue
        weight = name.removesuffix(kind.ending) + ".weight"
        if weight not in held or (kind.ending == ".scale" and file.stored(weight) not in (*_EIGHT, *_WHOLE)):
            if kind.ending in (".scale_weight", ".weight_scale"):
                raise CheckpointError(f"{file.path} has {name!r} but no {weight!r}. Download it again.")
            continue
        yield weight, Scale(file.shape(name), functools.partial(file.read, name), kind.times, repr(name), name)


def _grid(file: Tensors, name: str, scale: Scale) -> tuple[int, int]:
    """Rows and columns of a weight's scales: each holds for a rectangle of the same size."""
    shape = file.shape(name)
    rows, columns = (shape or (1,))[0], math.prod(shape[1:])
    found = list(scale.shape)
    while len(found) > 2 and found[-1] == 1:
        found.pop()
    if not rows * columns and not math.prod(found):
        return 1, 1
    grid = (1, 1) if math.prod(found) == 1 else (found[0], (*found, 1)[1]) if len(found) in (1, 2) else (0, 0)
    is_right = (
        all(grid) and rows % grid[0] == 0 and columns % grid[1] == 0 and (len(found) != 1 or grid[0] in (1, rows))
    )
    if not is_right:
        raise CheckpointError(
            f"{file.path}: the scale {scale.label} is {list(scale.shape)}; expected one number, {[rows]}, or blocks "
            f"that {[rows, columns]} can be divided into."
        )
    return grid


def _check_numbers(file: Tensors, scale: Scale) -> None:
    if 0 < math.prod(scale.shape) <= _CHECKED_NUMBERS:
        values = scale.read()
        if not np.isfinite(values).all() or (values < 0).any() or not values.any():
            raise CheckpointError(
                f"{file.path}: the scale {scale.label} is {values.reshape(-1)[0]}; positive numbers are expected. The "
                "file that holds it is damaged: download it again."
            )


def _check_packed(file: Tensors) -> None:
    for name in file.names():
        for pattern, what in PACKED.items():
            if re.search(pattern, name):
                raise CheckpointError(f"{file.path} is in {what}, by {name!r}, which is not read. {PACKED_ADVICE}")
        if name.endswith(".comfy_quant"):
            said = _quantisation(file, name)
            if said not in _COMFY:
                raise CheckpointError(
                    f"{file.path}: {name!r} says {said!r}; {' and '.join(_COMFY)} are read. {PACKED_ADVICE}"
                )


def _quantisation(file: Tensors, name: str) -> str:
    """The type that ComfyUI says of a layer."""
    try:
        said = json.loads(np.asarray(file.read(name), np.uint8).tobytes())
        return "a rotated type" if said.get("convrot") else str(said["format"])
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError):
        return "nothing readable"


def _check_complete(file: Tensors, without: list[str], *, place: Path | None, has_some: bool) -> None:
    """No weight is left whose scale is missing; ``place`` is a map's, ``has_some``: others have theirs."""
    eight = [name for name in without if file.stored(name) in _EIGHT and len(file.shape(name)) > 1]
    whole = [n for n in without if n.endswith(".weight") and file.stored(n) in _WHOLE and len(file.shape(n)) > 1]
    if whole:
        raise CheckpointError(
            f"{file.path}: {len(whole)} weights are whole numbers ({file.stored(whole[0])}) and have no scales, first "
            f"{whole[0]!r}. Take a file that has its scales, or the bfloat16 one."
        )
    held = file.names()
    is_named = _TENCENT.search(file.path.stem) is not None and place is None
    is_marked = _MARKER in held and not any(name.endswith((".scale_weight", ".weight_scale")) for name in held)
    marked = {name.removesuffix(".comfy_quant") + ".weight" for name in held if name.endswith(".comfy_quant")}
    # Each look costs a place on the disk: where no weight has a scale, some tell for all.
    has_some = has_some or bool(marked)
    looked = eight if has_some else eight[:: max(1, len(eight) // LOOKS)]
    lost = [name for name in looked if is_named or is_marked or name in marked or mean_size(file, name) > MOST_MEAN]
    if lost:
        lost = lost if has_some else eight
        raise CheckpointError(
            f"{file.path}: {len(lost)} weights in 8 bits need scales that are not there, first {lost[0]!r}: without "
            f"them it makes noise. {_way_to_scales(file.path, place, has_some=has_some)} Else take the bfloat16 file."
        )


def _way_to_scales(path: Path, place: Path | None, *, has_some: bool) -> str:
    if place is not None:
        return f"{place} has scales of other weights, not of these: download both files again."
    if has_some:
        return "The other weights have theirs in the same file, which is incomplete: download it again."
    return (
        f"Expected {path.stem}{MAP}{path.suffix} beside it, as Tencent publishes it: download it too, or name it with "
        "--part dit-scales=FILE."
    )


def mean_size(file: Tensors, name: str) -> float:
    """How large a weight's numbers are on average, from two of its rows."""
    raw = file.raw(name)
    if not raw.size:
        return 0.0
    values = np.abs(widen(np.stack([raw[0], raw[len(raw) // 2]]), file.stored(name)))
    return float(np.where(np.isfinite(values), values, 0).mean())
