"""Write our weights as a checkpoint folder in the diffusers layout."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from framewake.config import ClipTextConfig, DiTConfig, LlavaConfig, VAEConfig
from framewake.errors import CheckpointError, InputError
from framewake.weights.checkpoint import diffusers
from framewake.weights.checkpoint.load import ImageProcessor
from framewake.weights.checkpoint.settings import Settings, write_settings
from framewake.weights.reading import names
from framewake.weights.writing.files import write_tensors

Arrays = Mapping[str, np.ndarray]
FILES = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}

_CONTENTS: dict[str, Callable[[Any], dict[str, Any]]] = {
    "dit": diffusers.dit_content,
    "vae": diffusers.vae_content,
    "llava": diffusers.llava_content,
    "clip_text": diffusers.clip_text_content,
}


class Parts(NamedTuple):
    """The four models of a checkpoint: configuration and tensors under our names."""

    dit: tuple[DiTConfig, Arrays]
    vae: tuple[VAEConfig, Arrays]
    llava: tuple[LlavaConfig, Arrays]
    clip_text: tuple[ClipTextConfig, Arrays]


def to_diffusers(component: str, config: Any, tensors: Arrays) -> dict[str, np.ndarray]:
    """Tensors of one component under the names of the diffusers layout.

    The autoencoder and both text encoders have the published names there too.
    Raises: CheckpointError when a name is missing or unknown.
    """
    if component not in diffusers.FOLDERS:
        raise InputError(f"component {component!r} is unknown; one of {', '.join(diffusers.FOLDERS)} is expected.")
    rules = names.diffusers_dit(config) if component == "dit" else names.same(tensors)
    return names.translate(rules, tensors)


def write_component(
    folder: Path, component: str, config: Any, tensors: Arrays, *, dtype: Literal["float16", "float32"] = "float16"
) -> None:
    """Write one component's config file and weights into its folder of a checkpoint.

    Raises: CheckpointError when a value does not fit the storage type, or the file cannot be written.
    """
    target = Path(folder) / diffusers.FOLDERS[component]
    target.mkdir(parents=True, exist_ok=True)
    stored = {}
    for name, values in to_diffusers(component, config, tensors).items():
        with np.errstate(over="ignore"):  # told below, by name
            stored[name] = np.asarray(values).astype(dtype)
        if not np.isfinite(stored[name]).all():
            raise CheckpointError(f"{component}: {name} has values that {dtype} cannot hold.")
    content = _CONTENTS[component](config)
    if "architectures" in content:
        content["dtype"] = dtype
    _write_json(target / "config.json", content)
    write_tensors(target / FILES[diffusers.CLASSES[component][0]], stored)


def write_checkpoint(
    folder: str | Path,
    parts: Parts,
    *,
    settings: Settings,
    image_processor: ImageProcessor,
    dtype: Literal["float16", "float32"] = "float16",
) -> None:
    """Write everything but the tokenizers, which are files copied to ``tokenizer/`` and ``tokenizer_2/``."""
    folder = Path(folder)
    for component, (config, tensors) in parts._asdict().items():
        write_component(folder, component, config, tensors, dtype=dtype)
    write_descriptions(folder, settings, image_processor)


def write_descriptions(
    folder: Path,
    settings: Settings,
    image_processor: ImageProcessor,
    *,
    processor: Path | None = None,
    is_published: bool = False,
) -> None:
    """Write what a folder says of itself besides its parts.

    ``processor`` is the place of the picture settings in a layout that has nothing else of all this.
    ``is_published``: the transformer has the published names, which diffusers must not try to read.
    """
    if processor is not None:
        _write_json(folder / processor, _processor_content(image_processor))
        return
    classes = {diffusers.FOLDERS[name]: list(kind) for name, kind in diffusers.CLASSES.items()}
    classes |= {name: list(kind) for name, kind in diffusers.OTHERS.items()}
    name = "FramewakeCheckpoint" if is_published else "HunyuanVideoImageToVideoPipeline"
    index = {"_class_name": name, "_diffusers_version": diffusers.VERSION}
    _write_json(folder / "model_index.json", index | dict(sorted(classes.items())))
    scheduler = {
        "_class_name": diffusers.OTHERS["scheduler"][1],
        "_diffusers_version": diffusers.VERSION,
        "num_train_timesteps": 1000,
        "shift": settings.flow_shift,
        "use_dynamic_shifting": False,
    }
    _write_json(folder / "scheduler" / "scheduler_config.json", scheduler)
    _write_json(folder / "image_processor" / "preprocessor_config.json", _processor_content(image_processor))
    write_settings(folder, settings)


def _processor_content(processor: ImageProcessor) -> dict[str, Any]:
    side = processor.size_px
    return {
        "image_processor_type": "CLIPImageProcessor",
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
