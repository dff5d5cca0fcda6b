"""A checkpoint in any layout: its configurations, its settings, its weights."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from framewake.config import CLIP_MEAN, CLIP_STD, ClipTextConfig, DiTConfig, LlavaConfig, VAEConfig
from framewake.engine.contract import Dtype, Engine
from framewake.errors import CheckpointError
from framewake.weights.checkpoint import configs, diffusers, inferred
from framewake.weights.checkpoint.layouts import Component, Files, Layout, known_layout
from framewake.weights.checkpoint.parts import open_part
from framewake.weights.checkpoint.settings import Settings, read_settings
from framewake.weights.checkpoint.single import open_kind, part_layout, told_of_place
from framewake.weights.reading import names
from framewake.weights.reading.direct import is_kept
from framewake.weights.reading.files import read_json
from framewake.weights.reading.mapped import MappedTensors, Shapes
from framewake.weights.reading.narrow import BYTES
from framewake.weights.reading.storage import Tensors
from framewake.weights.stores.store import Resident
from framewake.weights.stores.streamed import Streamed

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
    # The folder of a whole CLIP model has its other half as well.
    "clip_text": (
        r"text_model\.embeddings\.position_ids",
        r"vision_model\..*",
        r"(text_projection|visual_projection)\.weight",
        r"logit_scale",
    ),
}
_VISION = ("vision_tower.", "multi_modal_projector.")


class ImageProcessor(NamedTuple):
    """How the vision tower's picture is made. Units: ``size_px`` in pixels, mean and std of values in [0, 1]."""

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Checkpoint:
    """An opened checkpoint; weights are read when ``store`` asks for them.

    ``has_vision``: the text encoder brings a vision tower; without one it can only read prompts. ``has_text`` is false
    of a vision tower alone.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.folder = layout.root
        self.has_vision = self.has_text = True
        self._files: dict[Component, Tensors] = {}  # opened once: what was checked is what is read
        self._checked: dict[Component, MappedTensors] = {}
        self._configure()

    def _configure(self) -> None:
        """Configurations and settings of every part."""
        self.settings: Settings = read_settings(self.folder)
        self.llava: LlavaConfig = self._config("llava", self._llava_config, inferred.llava_config)
        self.dit: DiTConfig = self._dit_config()
        if self.dit.condition == "none" and self.settings == Settings():
            self.settings = Settings(name="HunyuanVideo")  # the text-to-video release
        self.vae: VAEConfig = self._config("vae", _vae_config, inferred.vae_config)
        self.clip_text: ClipTextConfig = self._config("clip_text", configs.clip_text_config, inferred.clip_text_config)
        self.image_processor = self._image_processor()
        self.tokenizer = _folder(self.layout.tokenizer)
        self.tokenizer_2 = _folder(self.layout.tokenizer_2)
        self._check_fit()

    def tensors(self, component: Component) -> MappedTensors:
        """A component's tensors under our names; only headers are read."""
        file = self._file(component)
        if component == "dit":
            is_diffusers = "x_embedder.proj.weight" in file.names()
            rules = names.diffusers_dit(self.dit) if is_diffusers else names.comfy_dit(file.names())
            return MappedTensors(file, rules)
        table = {"vae": names.same, "llava": names.llava, "clip_text": names.clip_text}
        return MappedTensors(file, table[component](file.names()))

    def needed(self, component: Component, shapes: Shapes) -> Shapes:
        """Those of a model's tensors that this checkpoint has to bring: without pictures, no vision tower."""
        if component != "llava" or (self.has_vision and self.has_text):
            return shapes
        return {name: shape for name, shape in shapes.items() if name.startswith(_VISION) == self.has_vision}

    def check(self, component: Component, shapes: Shapes) -> MappedTensors:
        """A component's tensors, compared once with the model's own list of names and shapes.

        Raises: CheckpointError when the file does not hold exactly the model's tensors.
        """
        if component not in self._checked:
            tensors = self.tensors(component)
            try:
                tensors.check(self.needed(component, shapes), _UNUSED[component])
            except CheckpointError as error:
                raise CheckpointError(f"{error}{self._contradiction(component)}") from error
            if component == "llava":
                self._check_layers(tensors)
            self._checked[component] = tensors
        return self._checked[component]

    def store(
        self, component: Component, engine: Engine, dtype: Dtype, *, shapes: Shapes, streams: Sequence[str] = ()
    ) -> Resident | Streamed:
        """A component's weights on the engine's device, after the file was checked against ``shapes``.

        ``shapes`` is the model's own list of names and shapes; nothing else is read. The block lists named in
        ``streams`` stay on disk and come one block at a time.
        Raises: CheckpointError when the file does not hold exactly the model's tensors.
        """
        tensors = self.check(component, shapes)
        wanted = self.needed(component, shapes)
        if streams:
            size = BYTES[dtype] * sum(map(math.prod, wanted.values()))
            return Streamed(engine, tensors, dtype, names=wanted, streams=streams, is_cached=is_kept(size))
        return Resident({name: engine.asarray(tensors.values(name, dtype), dtype) for name in wanted})

    def _file(self, component: Component) -> Tensors:
        """A part's tensors under the names in its files."""
        if component not in self._files:
            scales = self.layout.scales if component == "dit" else None
            self._files[component] = open_part(component, self.layout.weights[component], scales=scales)
        return self._files[component]

    def _shapes(self, component: Component) -> dict[str, tuple[int, ...]]:
        file = self._file(component)
        tables = {"dit": names.comfy_dit, "vae": names.same, "llava": names.llava, "clip_text": names.clip_text}
        return {rule.ours: file.shape(rule.theirs[0]) for rule in tables[component](file.names())}

    def _check_layers(self, tensors: MappedTensors) -> None:
        """Nothing reads the last layers of a text encoder, so that more than its configuration says would pass."""
        found = inferred.layers(tensors.names(), "language_model.model.layers")
        if found > self.llava.text.layers:
            raise CheckpointError(
                f"{tensors.file.path} has {found} layers, and {self.layout.configs['llava']} says "
                f"{self.llava.text.layers}: take the config.json of this text encoder."
            )

    def _contradiction(self, component: Component) -> str:
        """Where a ``config.json`` says another size than the tensors have; "" where it does not, or there is none."""
        if not self.layout.configs[component].is_file():
            return ""
        file = self._file(component)
        found = inferred.sizes_told(
            component, {name: file.shape(name) for name in file.names()}, self._shapes(component)
        )
        said = inferred.sizes(getattr(self, component))
        wrong = [name for name, size in found.items() if said.get(name, size) != size]
        told = ", ".join(f"{name} is {said[name]} and the tensors' {found[name]}" for name in wrong[:4])
        return f" In {self.layout.configs[component]}, {told}." if told else ""

    def _config(self, component: Component, parse: Callable[[dict[str, Any]], Any], infer: Callable[..., Any]) -> Any:
        """A part's configuration from its ``config.json``, from its tensors where there is none."""
        path = self.layout.configs[component]
        is_described = path.is_file() or self.layout.needs_config(component)
        shapes = {} if is_described and component not in self.layout.singles else self._shapes(component)
        try:
            if is_described:
                _folder(path.parent)
                found = parse(read_json(path))
            else:
                path = self.layout.weights[component][0]
                found = infer(shapes)
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
        if component == "llava" and shapes:  # what a folder says of its own tower holds for no other file
            self.has_vision = self.has_vision and inferred.has_vision(shapes)
        return found

    def _llava_config(self, content: dict[str, Any]) -> LlavaConfig:
        if content.get("model_type") == "llama":
            self.has_vision = False
            return inferred.text_only(configs.llama_config(content))
        return configs.llava_config(content)

    def _dit_config(self) -> DiTConfig:
        path = self.layout.configs["dit"]
        like: DiTConfig | None = None
        if path.is_file() or self.layout.needs_config("dit"):
            like = self._config("dit", diffusers.dit_config, inferred.dit_config)
            if "dit" not in self.layout.singles:
                return like
        file = self._file("dit")
        if like is not None and "x_embedder.proj.weight" in file.names():
            return like
        # Text-to-video and picture-to-video have the same tensors; what a folder says of its own holds for a file too.
        condition = self.layout.condition if like is None or like.condition == "latent_concat" else like.condition
        try:
            return inferred.dit_config(self._shapes("dit"), condition, like=like)
        except CheckpointError as error:
            raise CheckpointError(f"{file.path}: {error}") from error

    def _image_processor(self) -> ImageProcessor:
        path = self.layout.image_processor
        if path.is_file() or self.layout.is_strict:
            return _image_processor(path)
        return ImageProcessor(self.llava.vision.image_size, CLIP_MEAN, CLIP_STD)

    def _check_fit(self) -> None:
        """Components of different checkpoints in one folder do not fit together."""
        pairs = [
            ("the transformer's text width", self.dit.text_width, "LLaVA's width", self.llava.text.hidden_size),
            ("the transformer's pooled width", self.dit.pooled_width, "CLIP's width", self.clip_text.hidden_size),
            ("the transformer's latents", self.dit.out_channels, "the autoencoder's", self.vae.latent_channels),
        ]
        if self.has_vision:
            tower = self.llava.vision.image_size
            pairs.append(("the picture size", self.image_processor.size_px, "the vision tower's", tower))
        for first, one, second, two in pairs:
            if one != two:
                raise CheckpointError(f"{self.folder} mixes checkpoints: {first} is {one}, {second} is {two}.")
        if self.dit.condition != "none" and not self.has_vision:
            raise CheckpointError(
                f"{self.folder}: the transformer animates pictures, but its text encoder has no vision tower. Add "
                "it with --part llava-vision=FILE, or take a LLaVA encoder that has both with --part llava=FILE."
            )


class Part(Checkpoint):
    """One part alone, of which nothing but the tensors can be looked at; ``component`` says which it is."""

    def __init__(self, path: Path) -> None:
        self.kind = open_kind(path)
        self.component: Component = self.kind.component
        super().__init__(part_layout(path, self.component))

    def _configure(self) -> None:
        if self.component == "dit":
            self.dit = self._dit_config()
        elif self.component == "vae":
            self.vae = self._config("vae", _vae_config, inferred.vae_config)
        elif self.component == "clip_text":
            self.clip_text = self._config("clip_text", configs.clip_text_config, inferred.clip_text_config)
        else:
            held = self._shapes("llava")
            self.has_text, self.has_vision = self.kind.flag == "llava", inferred.has_vision(held)
            infer = inferred.llava_config if self.has_text else inferred.tower_config
            self.llava = self._config("llava", self._llava_config, infer)


def open_checkpoint(path: str | os.PathLike[str], files: Files = Files()) -> Checkpoint:  # noqa: B008
    """A checkpoint folder in any known layout, with single files in place of its parts; no weights are read yet.

    Raises: CheckpointError when the folder is not one, or its parts do not fit together.
    """
    found = known_layout(Path(path))
    if found is None:
        raise CheckpointError(told_of_place(Path(path)))
    layout = found.with_files(files)
    if layout.name == "diffusers":
        read_json(layout.root / "model_index.json")
    return Checkpoint(layout)


def _vae_config(content: dict[str, Any]) -> VAEConfig:
    is_original = content.get("_class_name") == diffusers.ORIGINAL_VAE
    return (diffusers.original_vae_config if is_original else diffusers.vae_config)(content)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise CheckpointError(f"{path.parent} has no folder {path.name!r}; download the checkpoint in full.")
    return path


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
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise CheckpointError(f"{path} says image_mean {mean} and image_std {std}: the second has to be above 0.")
    return ImageProcessor(crop, tuple(mean), tuple(std))
