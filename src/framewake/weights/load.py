"""A checkpoint folder in the diffusers layout: its configurations, its settings, its weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from framewake.config import ClipTextConfig, DiTConfig, LlavaConfig, VAEConfig
from framewake.engine.contract import Dtype, Engine
from framewake.errors import CheckpointError
from framewake.weights import configs, diffusers, names
from framewake.weights.files import open_tensors, read_json
from framewake.weights.mapped import MappedTensors, Shapes
from framewake.weights.settings import Settings, read_settings
from framewake.weights.store import Resident

Component = Literal["dit", "vae", "llava", "clip_text"]

# Tensors that text encoders bring and that no state used here depends on (specification, section 3.3).
_UNUSED = {
    "dit": (),
    "vae": (),
    "llava": (
        r"language_model\.lm_head\.weight",
        r"language_model\.model\.norm\.weight",
        r"language_model\.model\.layers\.\d+\..*",
        r"language_model\.model\..*rotary_emb\.inv_freq",
        r"vision_tower\.vision_model\.post_layernorm\.(weight|bias)",
        r"vision_tower\.vision_model\.encoder\.layers\.\d+\..*",
        r"vision_tower\.vision_model\.embeddings\.position_ids",
    ),
    "clip_text": (r"text_model\.embeddings\.position_ids",),
}


class ImageProcessor(NamedTuple):
    """How the vision tower's picture is made. Units: ``size_px`` in pixels, mean and std of values in [0, 1]."""

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Checkpoint:
    """An opened checkpoint folder; weights are read when ``store`` asks for them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings: Settings = read_settings(folder)
        self.dit: DiTConfig = self._config("dit", diffusers.dit_config)
        self.vae: VAEConfig = self._config("vae", diffusers.vae_config)
        self.llava: LlavaConfig = self._config("llava", configs.llava_config)
        self.clip_text: ClipTextConfig = self._config("clip_text", configs.clip_text_config)
        self.image_processor = _image_processor(folder / "image_processor" / "preprocessor_config.json")
        self.tokenizer = self._folder("tokenizer")
        self.tokenizer_2 = self._folder("tokenizer_2")
        self._check_fit()

    def tensors(self, component: Component) -> MappedTensors:
        """A component's tensors under our names; only headers are read."""
        file = open_tensors(self._folder(diffusers.FOLDERS[component]))
        if component == "dit":
            return MappedTensors(file, names.diffusers_dit(self.dit))
        table: dict[str, Callable[[Iterable[str]], list[names.Rule]]]
        table = {"vae": names.same, "llava": names.llava, "clip_text": names.clip_text}
        return MappedTensors(file, table[component](file.names()))

    def store(self, component: Component, engine: Engine, dtype: Dtype, *, shapes: Shapes) -> Resident:
        """A component's weights on the engine's device, after the file was checked against ``shapes``.

        ``shapes`` is the model's own list of names and shapes; nothing else is read.
        Raises: CheckpointError when the file does not hold exactly the model's tensors.
        """
        tensors = self.tensors(component)
        tensors.check(shapes, _UNUSED[component])
        return Resident({name: engine.asarray(tensors.read(name), dtype) for name in shapes})

    def _config(self, component: str, parse: Callable[[dict[str, Any]], Any]) -> Any:
        path = self._folder(diffusers.FOLDERS[component]) / "config.json"
        try:
            return parse(read_json(path))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error

    def _folder(self, name: str) -> Path:
        if not (self.folder / name).is_dir():
            raise CheckpointError(f"{self.folder} has no folder {name!r}; download the checkpoint in full.")
        return self.folder / name

    def _check_fit(self) -> None:
        """Components of different checkpoints in one folder do not fit together."""
        pairs = [
            ("the transformer's text width", self.dit.text_width, "LLaVA's width", self.llava.text.hidden_size),
            ("the transformer's pooled width", self.dit.pooled_width, "CLIP's width", self.clip_text.hidden_size),
            ("the transformer's latents", self.dit.out_channels, "the autoencoder's", self.vae.latent_channels),
            ("the picture size", self.image_processor.size_px, "the vision tower's", self.llava.vision.image_size),
        ]
        for first, one, second, two in pairs:
            if one != two:
                raise CheckpointError(f"{self.folder} mixes checkpoints: {first} is {one}, {second} is {two}.")


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """A checkpoint folder that has a ``model_index.json``; no weights are read yet.

    Raises: CheckpointError when the folder is not one, or its parts do not fit together.
    """
    folder = Path(path)
    if not (folder / "model_index.json").is_file():
        what = "has no model_index.json" if folder.is_dir() else "is not a folder"
        raise CheckpointError(
            f"{folder} {what}; a HunyuanVideo-I2V checkpoint in the diffusers layout is expected "
            f"(model_index.json, {', '.join(f'{name}/' for name in diffusers.FOLDERS.values())} and tokenizers)."
        )
    read_json(folder / "model_index.json")
    return Checkpoint(folder)


def _image_processor(path: Path) -> ImageProcessor:
    content = read_json(path)
    crop = content.get("crop_size", content.get("size"))
    if isinstance(crop, dict):
        crop = crop.get("height", crop.get("shortest_edge"))
    mean, std = content.get("image_mean"), content.get("image_std")
    colours = [values for values in (mean, std) if isinstance(values, list) and len(values) == 3]
    is_colour = len(colours) == 2 and all(isinstance(x, int | float) for values in colours for x in values)
    if type(crop) is not int or not is_colour:
        raise CheckpointError(f"{path} needs crop_size, image_mean and image_std; it has {sorted(content)}.")
    return ImageProcessor(crop, tuple(mean), tuple(std))
