"""A checkpoint written again in another layout or type, one part of a tensor at a time.

The layout "framewake" is diffusers' folder layout with the transformer under the published names: nothing has
to be joined when it is read. Source: specification, sections 4.2, 7.5 and 8.1.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from framewake.errors import CheckpointError, InputError, ResourceError, nearest
from framewake.weights.checkpoint import diffusers, inferred
from framewake.weights.checkpoint.layouts import COMPONENTS, Component
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.checkpoint.settings import write_settings
from framewake.weights.reading import names
from framewake.weights.reading.mapped import Shapes
from framewake.weights.reading.pieces import Target, targets
from framewake.weights.stores.quant import STORED, Kind, Tally, is_quantised, quantised_targets
from framewake.weights.writing.export import FILES, write_descriptions
from framewake.weights.writing.files import SAFETENSORS_KINDS, TORCH_KINDS, bytes_of, write_safetensors, write_torch

KINDS = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}
LAYOUTS = ("diffusers", "tencent", "framewake")
TENSORS_FILE = {"dit": "mp_rank_00_model_states.pt", "vae": "pytorch_model.pt"}


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
    shapes: Mapping[Component, Shapes],
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
    described = checkpoint.layout.configs["llava"]
    if not checkpoint.has_vision and not described.is_file():
        raise CheckpointError(f"{described} is missing: a language model alone needs its config.json here.")
    errors: dict[str, Tally] = {name: Tally() for name in COMPONENTS}
    plans = {
        name: _plan(checkpoint, name, shapes[name], kind=kind, layout=layout, tally=errors[name]) for name in COMPONENTS
    }
    needed, free = sum(map(bytes_of, plans.values())), _free(folder)
    if needed > free:
        raise ResourceError(
            f"{folder} needs {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free there: choose another disk.",
            bytes_needed=needed,
            bytes_free=free,
        )
    for component, plan in plans.items():
        path = folder / _place(checkpoint, component, layout)
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".pt":
            write_torch(path, plan, key="module" if component == "dit" else None)
        else:
            write_safetensors(path, plan)
        _describe(checkpoint, component, path.parent, layout)
        yield WrittenFile(component, path, len(plan), path.stat().st_size, errors[component].relative)
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
    checkpoint: Checkpoint, component: Component, shapes: Shapes, *, kind: str | None, layout: str, tally: Tally
) -> list[Target]:
    """Everything that goes into a part's file."""
    source = checkpoint.check(component, shapes)
    is_torch = layout == "tencent" and component in TENSORS_FILE
    if layout == "diffusers" and component == "dit":
        rules = names.diffusers_dit(checkpoint.dit)
    elif component == "llava" and not checkpoint.has_vision:
        rules = [names.NameRule(ours, (ours.removeprefix("language_model."),)) for ours in source.names()]
    else:
        rules = names.same(source.names())
    kept = tuple(TORCH_KINDS) if is_torch else SAFETENSORS_KINDS
    eight: Kind | None = "fp8" if kind == "fp8" else "int8" if kind == "int8" else None
    if eight is None:
        return list(targets(source, rules, kind, kept))
    large = [rule for rule in rules if is_quantised(rule.ours, source.shape(rule.ours))]
    names_large = {rule.ours for rule in large}
    small = [rule for rule in rules if rule.ours not in names_large]
    # What is not a large matrix is bfloat16, but for the autoencoder and CLIP, which run in float16.
    rest = "BF16" if component in ("dit", "llava") else "F16"
    wide = targets(source, large, "F32", kept)
    return [*targets(source, small, rest, kept), *quantised_targets(wide, eight, tally=tally)]


def _place(checkpoint: Checkpoint, component: Component, layout: str) -> Path:
    """A part's file below the new folder."""
    if layout != "tencent":
        return Path(diffusers.FOLDERS[component]) / FILES[diffusers.CLASSES[component][0]]
    is_text_only = checkpoint.dit.condition == "none"
    model = Path(f"hunyuan-video-{'t2v' if is_text_only else 'i2v'}-720p")
    return {
        "dit": model / "transformers" / TENSORS_FILE["dit"],
        "vae": model / "vae" / TENSORS_FILE["vae"],
        "llava": Path("text_encoder" if is_text_only else "text_encoder_i2v") / FILES["transformers"],
        "clip_text": Path("text_encoder_2") / FILES["transformers"],
    }[component]


def _describe(checkpoint: Checkpoint, component: Component, folder: Path, layout: str) -> None:
    """A part's config file: a text encoder's own where it has one, which says more than is read here."""
    known = checkpoint.layout.configs[component]
    content: dict[str, Any]
    if component in ("llava", "clip_text") and known.is_file():
        shutil.copyfile(known, folder / "config.json")
        return
    if component == "dit":
        if layout == "tencent" and _tells_itself(checkpoint):
            return
        content = diffusers.dit_content(checkpoint.dit)
    elif component == "vae":
        write = diffusers.original_vae_content if layout == "tencent" else diffusers.vae_content
        content = write(checkpoint.vae)
    elif component == "llava":
        content = diffusers.llava_content(checkpoint.llava)
    else:
        content = diffusers.clip_text_content(checkpoint.clip_text)
    (folder / "config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _tells_itself(checkpoint: Checkpoint) -> bool:
    """Whether the shapes of a transformer say all of it, as those of the published ones do."""
    tensors = checkpoint.tensors("dit")
    shapes = {name: tensors.shape(name) for name in tensors.names()}
    try:
        return inferred.dit_config(shapes, checkpoint.dit.condition) == checkpoint.dit
    except CheckpointError:
        return False


def _small_files(checkpoint: Checkpoint, folder: Path, layout: str) -> None:
    """Tokenizers, picture settings, and what else the layout has at its root."""
    is_tencent = layout == "tencent"
    encoder = _place(checkpoint, "llava", layout).parent
    for source, place in ((checkpoint.tokenizer, "tokenizer"), (checkpoint.tokenizer_2, "tokenizer_2")):
        target = folder / ((encoder if place == "tokenizer" else "text_encoder_2") if is_tencent else place)
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
        processor=encoder / "preprocessor_config.json" if is_tencent else None,
        is_published=layout == "framewake",
    )


def _free(folder: Path) -> int:
    """Bytes free where a folder will be."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free
