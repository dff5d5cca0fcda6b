"""Write our weights as a checkpoint folder in the diffusers layout."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.checkpoint import diffusers
from framewake.weights.checkpoint.component import C, Component, Components, table
from framewake.weights.checkpoint.layouts import COMPONENTS
from framewake.weights.checkpoint.load import ImageProcessor
from framewake.weights.checkpoint.settings import Settings, write_settings
from framewake.weights.reading import names
from framewake.weights.writing.files import write_tensors

Arrays = Mapping[str, np.ndarray]
GUIDER = "ClassifierFreeGuidance"


def to_diffusers(row: Component[C], config: C, tensors: Arrays) -> dict[str, np.ndarray]:
    """Tensors of one component under the names of the diffusers layout.

    Raises: CheckpointError when a name is missing or unknown.
    """
    return names.translate(names.same(tensors) if row.diffusers is None else row.diffusers(config), tensors)


def write_component(
    folder: Path, row: Component[C], config: C, tensors: Arrays, *, dtype: Literal["float16", "float32"] = "float16"
) -> None:
    """Write one component's config file and weights into its folder of a checkpoint.

    Raises: CheckpointError when a value does not fit the storage type, or the file cannot be written.
    """
    target = Path(folder) / row.folder
    target.mkdir(parents=True, exist_ok=True)
    stored = {}
    for name, values in to_diffusers(row, config, tensors).items():
        with np.errstate(over="ignore"):  # told below, by name
            stored[name] = np.asarray(values).astype(dtype)
        if not np.isfinite(stored[name]).all():
            raise CheckpointError(f"{row.name}: {name} has values that {dtype} cannot hold.")
    content = row.write(config)
    if "architectures" in content:
        content["dtype"] = dtype
    _write_json(target / "config.json", content)
    write_tensors(target / row.file, stored)


def write_checkpoint(
    folder: str | Path,
    parts: Mapping[str, tuple[Any, Arrays]],
    *,
    settings: Settings,
    image_processor: ImageProcessor,
    dtype: Literal["float16", "float32"] = "float16",
    components: Components = COMPONENTS,
) -> None:
    """Write everything but the tokenizers, which are files copied to their folders.

    ``parts``: a component's configuration and its tensors under our names, by the component's name.
    """
    folder = Path(folder)
    for name, row in components.items():
        if name in parts:
            write_component(folder, row, *parts[name], dtype=dtype)
    present = table(*(row for name, row in components.items() if name in parts), facts=components.facts)
    write_descriptions(folder, settings, image_processor, components=present)


def write_descriptions(
    folder: Path,
    settings: Settings,
    image_processor: ImageProcessor,
    *,
    components: Components = COMPONENTS,
    processor: Path | None = None,
    is_published: bool = False,
) -> None:
    """Write what a folder says of itself besides its parts.

    ``processor`` is the place of the picture settings in a layout that has nothing else of all this.
    ``is_published``: the transformer has the published names, which diffusers must not try to read.
    """
    facts, sees = components.facts, any(row.sees for row in components.values())
    if processor is not None:
        if sees:
            _write_json(folder / processor, _processor_content(image_processor, facts.image_processor[1]))
        return
    classes = {"scheduler": list(diffusers.SCHEDULER)}
    if sees:
        classes[facts.image_processor[0]] = ["transformers", facts.image_processor[1]]
    if facts.has_guider:
        classes["guider"] = ["diffusers", GUIDER]
        guider = {"_class_name": GUIDER, "_diffusers_version": diffusers.VERSION}
        content = guider | {"guidance_scale": settings.guidance_scale}
        _write_json(folder / "guider" / "guider_config.json", content)
    for row in components.values():
        if row.kind:
            classes[row.folder] = [row.library, row.kind]
        if row.tokenizer is not None:
            classes[row.tokenizer[0]] = ["transformers", row.tokenizer[1]]
    name = "FramewakeCheckpoint" if is_published else facts.pipelines[0 if sees else 1]
    index = {"_class_name": name, "_diffusers_version": diffusers.VERSION}
    _write_json(folder / "model_index.json", index | dict(sorted(classes.items())))
    scheduler = {
        "_class_name": diffusers.SCHEDULER[1],
        "_diffusers_version": diffusers.VERSION,
        "num_train_timesteps": 1000,
        "shift": settings.flow_shift,
        "use_dynamic_shifting": False,
    }
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    if sees:
        place, kind = facts.image_processor
        _write_json(folder / place / "preprocessor_config.json", _processor_content(image_processor, kind))
    write_settings(folder, settings)


def _processor_content(processor: ImageProcessor, kind: str) -> dict[str, Any]:
    side = processor.size_px
    if kind != "CLIPImageProcessor":
        return {
            "image_processor_type": kind,
            "do_resize": True,
            "size": {"height": side, "width": side},
            "resample": 3,  # bicubic
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(processor.mean),
            "image_std": list(processor.std),
        }
    return {
        "image_processor_type": kind,
        "do_resize": True,
        "size": {"shortest_edge": side},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(processor.mean),
        "image_std": list(processor.std),
        "do_convert_rgb": True,
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
