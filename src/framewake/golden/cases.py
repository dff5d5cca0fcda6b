"""A folder of golden cases: ``cases.json``, ``tensors.json`` and one npz file per case."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from framewake.config import Condition, DiTConfig, TilingConfig, VAEConfig
from framewake.engine.contract import Engine, Tensor
from framewake.errors import CheckpointError, InputError
from framewake.golden import rule
from framewake.weights.reading.files import read_json
from framewake.weights.reading.names import NameRule, same
from framewake.weights.stores.store import Resident

Table = Mapping[str, list[int]]
Shapes = Mapping[str, tuple[int, ...]]


class Case(NamedTuple):
    """One golden case as the folder describes it.

    ``tables`` holds, per model of the case, the names and shapes of its tensors; ``meanings`` what is said
    about each stored array.
    """

    id: str
    kind: str
    seed: int
    config: dict[str, Any]
    inputs: dict[str, Any]
    content: dict[str, Any]
    meanings: dict[str, str]
    tables: dict[str, Table]
    file: Path

    def arrays(self) -> dict[str, np.ndarray]:
        """The stored arrays.

        Raises: CheckpointError when the file is missing, damaged, or holds other arrays than described.
        """
        try:
            with np.load(self.file, allow_pickle=False) as stored:
                arrays = {name: stored[name] for name in stored.files}
        except Exception as error:
            raise CheckpointError(f"{self.file} cannot be read as arrays: {error}.") from error
        strange = sorted(set(arrays) ^ set(self.meanings))
        if strange:
            raise CheckpointError(f"{self.file} and cases.json disagree about the arrays {', '.join(strange)}.")
        return arrays

    def need(self, *path: str) -> Any:
        """A value of the case, such as ``need("inputs", "t")``.

        Raises: CheckpointError when it is not there.
        """
        value: Any = self.content
        for name in path:
            if not isinstance(value, dict) or name not in value:
                raise CheckpointError(f"case {self.id!r} has no {'.'.join(path)}; a {self.kind} case needs it.")
            value = value[name]
        return value

    def input(self, name: str) -> np.ndarray:
        """An input array drawn by the rule."""
        return rule.input(name, self.need("inputs", name, "shape"), self.seed)

    def picture(self, name: str = "photo") -> Image.Image:
        """An input picture drawn by the rule."""
        entry = self.need("inputs", name)
        height, width = (entry.get(side, entry.get(f"image_{side}")) for side in ("height", "width"))
        if not isinstance(height, int) or not isinstance(width, int):
            raise CheckpointError(f"case {self.id!r}: the picture {name!r} has no height and width.")
        seed, block = entry.get("seed", self.seed), entry.get("block", 16)
        return Image.fromarray(rule.image(name, height, width, seed, block=block))

    def weights(
        self,
        model: str,
        engine: Engine,
        shapes: Mapping[str, tuple[int, ...]],
        *,
        optional: Any = (),
        rules: Callable[[Iterable[str]], list[NameRule]] = same,
    ) -> Resident:
        """A model's weights drawn by the rule, after its list of tensors was compared with the folder's.

        ``optional`` names tensors that the folder lists but the model does not read; ``rules`` is the table of the
        folder's names.
        Raises: CheckpointError when the lists differ.
        """
        if model not in self.tables:
            raise CheckpointError(f"tensors.json names no table of {model!r} tensors for case {self.id!r}.")
        listed = {name: tuple(shape) for name, shape in self.tables[model].items()}
        made = {each.ours: each for each in rules(listed) if each.ours not in optional}
        table = {name: each.shape(listed.__getitem__) for name, each in made.items()}
        strange = sorted(name for name in set(table) | set(shapes) if table.get(name) != tuple(shapes.get(name, ())))
        if strange:
            name = strange[0]
            raise CheckpointError(
                f"case {self.id!r}: {len(strange)} tensors of {model!r} differ between the model and tensors.json, "
                f"first {name!r}: {shapes.get(name)} and {table.get(name)}."
            )

        def drawn(name: str) -> np.ndarray:
            return rule.weight(name, listed[name], self.seed)

        return Resident({name: tensor(engine, made[name].join(drawn)) for name in shapes})


def tensor(engine: Engine, values: Any) -> Tensor:
    """A float32 tensor on the engine's device."""
    return engine.asarray(np.asarray(values, dtype=np.float32))


def read_cases(folder: str | os.PathLike[str]) -> list[Case]:
    """Every case of a folder, in its order; arrays and weights are not read yet.

    Raises: InputError when there are none, CheckpointError when they are not what they should be.
    """
    folder = Path(folder)
    if not (folder / "cases.json").is_file():
        raise InputError(f"{folder} holds no golden cases: name a folder with a cases.json, such as tests/golden.")
    content, tensors = read_json(folder / "cases.json"), read_json(folder / "tensors.json")
    if content.get("format") != 1:
        raise CheckpointError(f"{folder / 'cases.json'} has format {content.get('format')!r}; format 1 is expected.")
    listed, tables, models = content.get("cases"), tensors.get("tables"), tensors.get("cases")
    if not isinstance(listed, list) or not isinstance(tables, dict) or not isinstance(models, dict):
        raise CheckpointError(f"{folder} needs a list of cases and the objects tables and cases in tensors.json.")
    return [_case(folder, entry, tables, models) for entry in listed]


def _case(folder: Path, entry: Any, tables: dict[str, Table], models: dict[str, dict[str, str]]) -> Case:
    kinds = {"id": str, "kind": str, "seed": int, "file": str, "arrays": dict}
    if not isinstance(entry, dict) or not all(type(entry.get(name)) is kind for name, kind in kinds.items()):
        raise CheckpointError(f"{folder / 'cases.json'} has a case without {', '.join(kinds)}: {str(entry)[:80]}.")
    if Path(entry["file"]).name != entry["file"]:
        raise CheckpointError(f"case {entry['id']!r} points outside its folder: {entry['file']!r}.")
    named = models.get(entry["id"], {})
    missing = sorted(set(named.values()) - set(tables))
    if missing:
        raise CheckpointError(f"{folder / 'tensors.json'} lacks the tables {', '.join(missing)}.")
    return Case(
        id=entry["id"],
        kind=entry["kind"],
        seed=entry["seed"],
        config=entry.get("config") or {},
        inputs=entry.get("inputs") or {},
        content=entry,
        meanings={name: str(about.get("meaning", "")) for name, about in entry["arrays"].items()},
        tables={model: tables[table] for model, table in named.items()},
        file=folder / entry["file"],
    )


_CONDITIONS: dict[str | None, Condition] = {
    "token_replace": "token_replace",
    "latent_concat": "latent_concat",
    None: "none",
}


def dit_sizes(c: Mapping[str, Any]) -> dict[str, Any]:
    """What the cases write of every transformer."""
    return {
        "patch_size": tuple(c["patch_size"]),
        "out_channels": c["out_channels"],
        "hidden_size": c["hidden_size"],
        "heads": c["heads_num"],
        "rope_dims": tuple(c["rope_dim_list"]),
        "rope_theta": float(c["rope_theta"]),
        "mlp_ratio": float(c["mlp_width_ratio"]),
        "double_blocks": c["mm_double_blocks_depth"],
        "text_width": c["text_states_dim"],
    }


def dit_config(c: Mapping[str, Any]) -> DiTConfig:
    """A transformer's configuration as the cases write it."""
    with _naming("transformer"):
        return DiTConfig(
            **dit_sizes(c),
            in_channels=c["in_channels"],
            single_blocks=c["mm_single_blocks_depth"],
            # The original has no setting for the refiner's depth.
            refiner_blocks=c.get("refiner_depth", 2),
            pooled_width=c["text_states_dim_2"],
            condition=_CONDITIONS[c["condition_type"]],
            has_guidance=c["guidance_embed"],
        )


def vae_config(c: Mapping[str, Any]) -> VAEConfig:
    """An autoencoder's configuration as the cases write it."""
    with _naming("autoencoder"):
        return VAEConfig(
            in_channels=c["in_channels"],
            out_channels=c["out_channels"],
            latent_channels=c["latent_channels"],
            block_out_channels=tuple(c["block_out_channels"]),
            layers_per_block=c["layers_per_block"],
            norm_groups=c["norm_num_groups"],
            scaling_factor=c["scaling_factor"],
            spatial_compression=c["spatial_compression_ratio"],
            temporal_compression=c["time_compression_ratio"],
            mid_block_attention=c["mid_block_add_attention"],
        )


def tiling_config(c: Mapping[str, Any]) -> TilingConfig:
    """Tile sizes as the cases write them; both kinds of tiling are on unless said otherwise."""
    with _naming("tiling"):
        return TilingConfig(
            sample_size=c["tile_sample_min_size"],
            latent_size=c["tile_latent_min_size"],
            sample_frames=c["tile_sample_min_tsize"],
            latent_frames=c["tile_latent_min_tsize"],
            overlap=c["tile_overlap_factor"],
            is_spatial=c.get("spatial", True),
            is_temporal=c.get("temporal", True),
        )


class _naming:
    """Turns a missing field of a configuration into an error that names it."""

    def __init__(self, what: str) -> None:
        self.what = what

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, KeyError):
            raise CheckpointError(f"cases.json: a {self.what} configuration has no usable {error}.") from error
