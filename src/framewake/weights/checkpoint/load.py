"""A checkpoint in any layout: its configurations, its settings, its weights."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from framewake.config import DiTConfig, VAEConfig
from framewake.engine.contract import BY_TENSOR, Dtype, Engine
from framewake.errors import CheckpointError
from framewake.weights.checkpoint import inferred
from framewake.weights.checkpoint.component import LARGER_DIT, C, Component, Components, Hints, Tower
from framewake.weights.checkpoint.layouts import Files, Layout, known_layout
from framewake.weights.checkpoint.parts import open_part
from framewake.weights.checkpoint.settings import Settings, has_settings, read_settings
from framewake.weights.checkpoint.single import open_kind, part_layout, table_of, told_of_place
from framewake.weights.reading.direct import is_kept
from framewake.weights.reading.files import read_json
from framewake.weights.reading.mapped import MappedTensors, Shapes
from framewake.weights.reading.narrow import BYTES
from framewake.weights.reading.storage import Tensors
from framewake.weights.stores.by_tensor import ByTensor
from framewake.weights.stores.shared import Shared
from framewake.weights.stores.store import Resident
from framewake.weights.stores.streamed import Streamed


class ImageProcessor(NamedTuple):
    """How the vision tower's picture is made. Units: ``size_px`` in pixels, mean and std of values in [0, 1]."""

    size_px: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Checkpoint:
    """An opened checkpoint; weights are read when ``store`` asks for them.

    ``configs`` are the parts' configurations by name. ``has_vision``: the text encoder brings a vision tower; without
    one it can only read prompts. ``has_text`` is false of a vision tower alone.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.folder = layout.root
        self.rows = [layout.components[name] for name in layout.weights]
        self.configs: dict[str, Any] = {}
        self.has_vision = self.has_text = True
        self._files: dict[str, Tensors] = {}  # opened once: what was checked is what is read
        self._checked: dict[str, MappedTensors] = {}
        self._configure()

    def _configure(self) -> None:
        """Configurations and settings of every part."""
        for row in self.rows:
            self.configs[row.name] = self._config(row)
        self.has_vision = self.has_vision and self._sees
        facts = self.layout.components.facts
        is_another = bool(facts.variants) and self.layout.places.is_single  # not the one that the folder's are of
        is_told = not is_another and has_settings(self.folder) and read_settings(self.folder) != Settings()
        self.settings: Settings = (
            read_settings(self.folder) if is_told else facts.settings(self.configs, self.layout.places)
        )
        self.image_processor = self._image_processor()
        self.tokenizers = {name: _folder(path) for name, path in self.layout.tokenizers.items()}
        self._check_fit()

    @property
    def dit(self) -> DiTConfig:
        """The transformer's configuration."""
        return self.configs["dit"]

    @property
    def vae(self) -> VAEConfig:
        """The autoencoder's configuration."""
        return self.configs["vae"]

    def config(self, row: Component[C]) -> C:
        """A part's configuration."""
        found: C = self.configs[row.name]
        return found

    @property
    def _sees(self) -> bool:
        return any(row.sees for row in self.rows)

    @property
    def tower(self) -> tuple[Component, Tower]:
        """The part that has, or might have, a vision tower.

        Raises: CheckpointError where there is none.
        """
        for row in self.rows:
            if row.tower is not None:
                return row, row.tower
        raise CheckpointError(f"{self.folder}: no part of it could have a vision tower, so it reads no pictures.")

    def tensors(self, component: str) -> MappedTensors:
        """A component's tensors under our names; only headers are read."""
        file = self._file(component)
        row = self.layout.components[component]
        return MappedTensors(file, row.rules(file.names(), self.configs[component]))

    def needed(self, component: str, shapes: Shapes) -> Shapes:
        """Those of a model's tensors that this checkpoint has to bring: without pictures, no vision tower."""
        tower = self.layout.components[component].tower
        if tower is None or (self.has_vision and self.has_text):
            return shapes
        return {name: shape for name, shape in shapes.items() if name.startswith(tower.starts) == self.has_vision}

    def check(self, component: str, shapes: Shapes) -> MappedTensors:
        """A component's tensors, compared once with the model's own list of names and shapes.

        Raises: CheckpointError when the file does not hold exactly the model's tensors.
        """
        if component not in self._checked:
            row = self.layout.components[component]
            tensors = self.tensors(component)
            try:
                tensors.check(self.needed(component, shapes), row.unused)
            except CheckpointError as error:
                raise CheckpointError(f"{error}{self._contradiction(row)}") from error
            if row.stack is not None:
                self._check_layers(row, *row.stack, tensors)
            self._checked[component] = tensors
        return self._checked[component]

    def store(
        self, component: str, engine: Engine, dtype: Dtype, *, shapes: Shapes, streams: Sequence[str] = ()
    ) -> Resident | Streamed:
        """A component's weights on the engine's device, after the file was checked against ``shapes``.

        ``shapes`` is the model's own list of names and shapes; nothing else is read. The block lists named in
        ``streams`` stay on disk and come one block at a time; ``BY_TENSOR`` stands for large tensors one at a time.
        Raises: CheckpointError when the file does not hold exactly the model's tensors.
        """
        tensors = self.check(component, shapes)
        wanted = self.needed(component, shapes)
        if tuple(streams) == BY_TENSOR:
            return ByTensor(engine, tensors, dtype, shapes=wanted)
        if streams:
            size = BYTES[dtype] * sum(map(math.prod, wanted.values()))
            return Streamed(engine, tensors, dtype, names=wanted, streams=streams, is_cached=is_kept(size))
        return Resident({name: engine.asarray(tensors.values(name, dtype), dtype) for name in wanted})

    def shared(
        self,
        component: str,
        engine: Engine,
        dtype: Dtype,
        *,
        shapes: Shapes,
        streams: Sequence[str],
        is_streamed: bool,
    ) -> Shared:
        """The same with the blocks of ``streams`` shared out among the devices of the engine.

        With ``is_streamed`` each device's part of them stays on disk.
        Raises: CheckpointError when the file does not hold exactly the model's tensors.
        """
        tensors, wanted = self.check(component, shapes), self.needed(component, shapes)
        return Shared(engine, tensors, dtype, shapes=wanted, streams=streams, is_streamed=is_streamed)

    def _file(self, component: str) -> Tensors:
        """A part's tensors under the names in its files."""
        if component not in self._files:
            places, scales = self.layout.weights[component], self.layout.scales.get(component)
            self._files[component] = open_part(component, places, self.layout.components, scales=scales)
        return self._files[component]

    def _shapes(self, row: Component) -> dict[str, tuple[int, ...]]:
        file = self._file(row.name)
        return {rule.ours: file.shape(rule.theirs[0]) for rule in row.rules(file.names(), None)}

    def _check_layers(self, row: Component, stack: str, number: str, tensors: MappedTensors) -> None:
        """Nothing reads the last layers of a text encoder, so that more than its configuration says would pass."""
        found, said = inferred.layers(tensors.names(), stack), attrgetter(number)(self.configs[row.name])
        if found > said:
            raise CheckpointError(
                f"{tensors.file.path} has {found} layers, and {self.layout.configs[row.name]} says "
                f"{said}: take the config.json of this text encoder."
            )

    def _contradiction(self, row: Component) -> str:
        """Where a ``config.json`` says another size than the tensors have; "" where it does not, or there is none."""
        if not self.layout.configs[row.name].is_file():
            return ""
        file, said = self._file(row.name), row.sizes(self.configs[row.name])
        found = row.diffusers_sizes({name: file.shape(name) for name in file.names()})
        if not found:
            with contextlib.suppress(CheckpointError):
                found = row.sizes(row.infer(self._shapes(row), Hints("token_replace")))
        wrong = [name for name, size in found.items() if said.get(name, size) != size]
        told = ", ".join(f"{name} is {said[name]} and the tensors' {found[name]}" for name in wrong[:4])
        return f" In {self.layout.configs[row.name]}, {told}." if told else ""

    def _config(self, row: Component, *, is_tower: bool = False) -> Any:
        """A part's configuration from its ``config.json``, from its tensors where there is none or they tell more."""
        path, hints = self.layout.configs[row.name], Hints(self.layout.condition, is_tower=is_tower)
        is_single = row.name in self.layout.singles
        is_described = path.is_file() or self.layout.needs_config(row.name)
        is_read = not is_described or is_single or row.is_measured
        shapes = self._shapes(row) if is_read else {}
        try:
            if is_described:
                _folder(path.parent)
                hints = hints._replace(like=row.read(read_json(path)))
            if not is_described or row.is_measured or (is_single and row.is_told):
                path = self._file(row.name).path
                hints = hints._replace(like=row.infer(shapes, hints))
        except CheckpointError as error:
            raise CheckpointError(f"{path}: {error}" if str(path) not in str(error) else str(error)) from error
        if row.tower is not None:  # what a folder says of its own tower holds for no other file
            self.has_vision = row.tower.is_in(hints.like) and (not shapes or row.tower.is_held(shapes))
        return hints.like

    def _image_processor(self) -> ImageProcessor:
        path = self.layout.image_processor
        is_given = any(row.picture_px is not None and row.name in self.layout.singles for row in self.rows)
        if path.is_file() or (self.layout.is_strict and self._sees and not is_given):
            return _image_processor(path)
        return ImageProcessor(self._side_px() if self._sees else 0, *self.layout.components.facts.colours)

    def _side_px(self) -> int:
        """The side of the picture that the vision tower sees."""
        for row in self.rows:
            if row.picture_px is not None:
                return row.picture_px(self.configs[row.name])
        row, tower = self.tower
        return tower.side_px(self.configs[row.name])

    def _check_fit(self) -> None:
        """Components of different checkpoints in one folder do not fit together."""
        met: dict[str, list[tuple[str, int]]] = {}
        for row in self.rows:
            for name, said in row.meets(self.configs[row.name]).items():
                met.setdefault(name, []).append(said)
        if self.has_vision:
            met["picture"] = [("the picture size", self.image_processor.size_px)]
            met["picture"].append(("the vision tower's", self._side_px()))
        for (first, one), *others in met.values():
            for second, two in others:
                if one != two:
                    raise CheckpointError(f"{self.folder} mixes checkpoints: {first} is {one}, {second} is {two}.")
        transformer = self.layout.weights.get(LARGER_DIT, (None,))[0]
        self.layout.components.facts.check_enlarging(self.configs, transformer, self.settings.enlargement)
        if self.dit.needs_picture and not self.has_vision:
            raise CheckpointError(
                f"{self.folder}: the transformer animates pictures, but there is no vision tower. "
                f"{self.layout.components.facts.advice or self.tower[1].advice}"
            )


class SinglePart(Checkpoint):
    """One part alone, of which nothing but the tensors can be looked at; ``row`` says which it is."""

    def __init__(self, path: Path, components: Components | None = None) -> None:
        components = components or table_of(path)
        self.kind, component = open_kind(path, components)
        self.row = components[component]
        super().__init__(part_layout(path, self.row.name, components))

    def _configure(self) -> None:
        self.has_text = self.kind.flag == self.row.flag
        self.configs[self.row.name] = self._config(self.row, is_tower=not self.has_text)
        if self.row.tower is not None:
            self.has_vision = self.has_vision and self.row.tower.is_held(self._shapes(self.row))


def open_checkpoint(
    path: str | os.PathLike[str],
    files: Files = Files(),  # noqa: B008
    *,
    components: Components | None = None,
) -> Checkpoint:
    """A checkpoint folder in any known layout, with single files in place of its parts; no weights are read yet.

    Raises: CheckpointError when the folder is not one, or its parts do not fit together.
    """
    found = known_layout(Path(path), components)
    if found is None:
        raise CheckpointError(told_of_place(Path(path), components))
    layout = found.with_files(files)
    if layout.name == "diffusers":
        read_json(layout.root / "model_index.json")
    return Checkpoint(layout)


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise CheckpointError(f"{path.parent} has no folder {path.name!r}; download the checkpoint in full.")
    return path


def _image_processor(path: Path) -> ImageProcessor:
    content = read_json(path)
    crop = content.get("crop_size", content.get("size"))
    if isinstance(crop, dict):
        crop = crop.get("height", crop.get("shortest_edge"))
    mean, std = content.get("image_mean", ()), content.get("image_std", ())
    colours = [values for values in (mean, std) if isinstance(values, list) and len(values) == 3]
    is_colour = len(colours) == 2 and all(isinstance(x, int | float) for values in colours for x in values)
    if type(crop) is not int or not is_colour:
        raise CheckpointError(f"{path} needs crop_size, image_mean and image_std; it has {sorted(content)}.")
    if not all(map(math.isfinite, (*mean, *std))) or min(std) <= 0:
        raise CheckpointError(f"{path} says image_mean {mean} and image_std {std}: the second has to be above 0.")
    return ImageProcessor(crop, tuple(mean), tuple(std))
