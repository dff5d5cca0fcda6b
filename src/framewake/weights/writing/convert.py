"""A checkpoint written again in another layout or type, one part of a tensor at a time.

The layout "framewake" is diffusers' folder layout with the transformer under the published names: nothing has
to be joined when it is read. Source: specification, sections 4.2, 7.5 and 8.1.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from framewake.errors import CheckpointError, InputError, ResourceError, nearest
from framewake.weights.checkpoint.component import Component, Hints, table
from framewake.weights.checkpoint.layouts import tencent_file
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.checkpoint.settings import write_settings
from framewake.weights.reading import names
from framewake.weights.reading.mapped import Shapes
from framewake.weights.reading.pieces import Target, targets
from framewake.weights.stores.quant import STORED, Kind, Tally, is_quantised, quantised_targets
from framewake.weights.writing.export import write_descriptions
from framewake.weights.writing.files import SAFETENSORS_KINDS, TORCH_KINDS, bytes_of, write_safetensors, write_torch

KINDS = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
LAYOUTS = ("diffusers", "tencent", "framewake")


class WrittenFile(NamedTuple):
    """A file that was written.

    ``error``: how far its eight-bit matrices are from bfloat16, over all in squares; None where there are none.
    Units: ``size`` in bytes.
    """

    component: str
    path: Path
    tensors: int
    size: int
    error: float | None = None


def convert(
    checkpoint: Checkpoint,
    folder: Path,
    *,
    shapes: Mapping[str, Shapes],
    dtype: str | None = None,
    layout: str = "diffusers",
) -> Iterator[WrittenFile]:
    """Write a checkpoint into an empty or new folder, told file by file.

    ``shapes`` are the models' own lists, which everything is compared with before anything is written. At most
    some hundred megabytes are in memory at a time. Without a ``dtype`` numbers stay as they are stored.
    Raises: InputError, CheckpointError, ResourceError.
    """
    if layout not in LAYOUTS:
        raise InputError(f"layout {layout!r} is unknown: choose {', '.join(LAYOUTS)}.{nearest(layout, LAYOUTS)}")
    kind = _kind(dtype, layout)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is there already and not an empty folder: name a new one.")
    rows = checkpoint.rows
    for described in (checkpoint.layout.configs[row.name] for row in rows if row.tower is not None):
        if not checkpoint.has_vision and not described.is_file():
            raise CheckpointError(f"{described} is missing: a language model alone needs its config.json here.")
    errors = [Tally() for _ in rows]
    plans = [
        _plan(checkpoint, row, shapes[row.name], kind=kind, layout=layout, tally=tally)
        for row, tally in zip(rows, errors, strict=True)
    ]
    needed, free = sum(map(bytes_of, plans)), _free(folder)
    if needed > free:
        raise ResourceError(
            f"{folder} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free there: choose another disk.",
            bytes_needed=needed,
            bytes_free=free,
        )
    for row, plan, tally in zip(rows, plans, errors, strict=True):
        path = folder / _place(checkpoint, row, layout)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".pt":
            write_torch(path, plan, key=row.torch_key)
        else:
            write_safetensors(path, plan)
        _describe(checkpoint, row, path.parent, layout)
        yield WrittenFile(row.name, path, len(plan), path.stat().st_size, tally.relative)
    _small_files(checkpoint, folder, layout)


def _kind(dtype: str | None, layout: str) -> str | None:
    """The type of a file, or the name of an eight-bit kind."""
    if dtype in STORED:
        if layout != "framewake":
            raise InputError(f"dtype {dtype} has scales, which only our own layout holds: add --layout framewake.")
        return dtype
    known = (*KINDS, *STORED)
    if dtype is not None and dtype not in KINDS:
        raise InputError(f"dtype {dtype!r} is unknown: choose {', '.join(known)}.{nearest(dtype, known)}")
    return None if dtype is None else KINDS[dtype]


def _plan(
    checkpoint: Checkpoint, row: Component, shapes: Shapes, *, kind: str | None, layout: str, tally: Tally
) -> list[Target]:
    """Everything that goes into a part's file."""
    source = checkpoint.check(row.name, shapes)
    is_torch = _place(checkpoint, row, layout).suffix == ".pt"
    table_of = {"diffusers": row.diffusers, "tencent": row.published}.get(layout)
    if table_of is not None:
        rules = table_of(checkpoint.config(row))
    elif row.tower is not None and not checkpoint.has_vision:
        rules = [names.NameRule(ours, (ours.removeprefix(row.tower.rest),)) for ours in source.names()]
    else:
        rules = names.same(source.names())
    kept = tuple(TORCH_KINDS) if is_torch else SAFETENSORS_KINDS
    eight: Kind | None = "fp8" if kind == "fp8" else "int8" if kind == "int8" else None
    if eight is None:
        return list(targets(source, rules, kind, kept))
    large = [rule for rule in rules if is_quantised(rule.ours, source.shape(rule.ours))]
    names_large = {rule.ours for rule in large}
    small = [rule for rule in rules if rule.ours not in names_large]
    wide = targets(source, large, "F32", kept)
    return [*targets(source, small, row.narrow, kept), *quantised_targets(wide, eight, tally=tally)]


def _place(checkpoint: Checkpoint, row: Component, layout: str) -> Path:
    """A part's file below the new folder."""
    if layout != "tencent":
        return Path(row.folder) / row.file
    return tencent_file(row, checkpoint.layout.components.facts.model(checkpoint.dit, checkpoint.settings))


def _describe(checkpoint: Checkpoint, row: Component, folder: Path, layout: str) -> None:
    """A part's config file: a text encoder's own where it has one, which says more than is read here."""
    known, config = checkpoint.layout.configs[row.name], checkpoint.config(row)
    if row.library == "transformers" and known.is_file():
        shutil.copyfile(known, folder / "config.json")
        return
    write = row.write
    if layout == "tencent":
        if row.is_told and row.write_tencent is None and _tells_itself(checkpoint, row):
            return
        write = row.write_tencent or row.write
    facts = checkpoint.layout.components.facts
    content = write(config) | (facts.described(checkpoint.settings, layout) if row.name == "dit" else {})
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _tells_itself(checkpoint: Checkpoint, row: Component) -> bool:
    """Whether the shapes of a transformer say all of it, as those of the published ones do."""
    tensors = checkpoint.tensors(row.name)
    shapes = {name: tensors.shape(name) for name in tensors.names()}
    try:
        return row.infer(shapes, Hints(checkpoint.dit.condition)) == checkpoint.config(row)
    except CheckpointError:
        return False


def _small_files(checkpoint: Checkpoint, folder: Path, layout: str) -> None:
    """Tokenizers, picture settings, and what else the layout has at its root."""
    is_tencent = layout == "tencent"
    places = {row.name: _place(checkpoint, row, layout).parent for row in checkpoint.rows}
    for row in checkpoint.rows:
        if row.tokenizer is None:
            continue
        source = checkpoint.tokenizers[row.name]
        target = folder / (places[row.name] if is_tencent else row.tokenizer[0])
        target.mkdir(parents=True, exist_ok=True)
        for file in sorted(source.iterdir()):
            is_small = file.suffix in (".json", ".txt", ".model") and not file.name.endswith(".index.json")
            if is_small and file.name not in ("config.json", "preprocessor_config.json"):
                shutil.copyfile(file, target / file.name)
    if is_tencent:
        write_settings(folder, checkpoint.settings)
    write_descriptions(
        folder,
        checkpoint.settings,
        checkpoint.image_processor,
        components=table(*checkpoint.rows, facts=checkpoint.layout.components.facts),
        processor=_processor(checkpoint, places) if is_tencent else None,
        is_published=layout == "framewake",
    )


def _processor(checkpoint: Checkpoint, places: dict[str, Path]) -> Path:
    """Where Tencent's tree has the picture settings."""
    folder = Path(checkpoint.layout.components.facts.processor)
    tower = next((row.name for row in checkpoint.rows if row.tower is not None), None)
    return (folder if tower is None else places[tower]) / "preprocessor_config.json"


def _free(folder: Path) -> int:
    """Bytes free where a folder will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
