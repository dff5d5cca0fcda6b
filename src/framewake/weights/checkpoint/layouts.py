"""Where the parts of a checkpoint lie: the folder layouts, and single files given one by one.

Source: specification, sections 8.1 and 8.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from framewake.config import Condition
from framewake.errors import CheckpointError, InputError, nearest
from framewake.weights.checkpoint import hunyuan, hunyuan15
from framewake.weights.checkpoint.component import Component, Components, Whereabouts
from framewake.weights.checkpoint.settings import FILE_NAME, has_settings
from framewake.weights.checkpoint.upsampler15 import larger_variant
from framewake.weights.reading.files import read_json

COMPONENTS = hunyuan.COMPONENTS
TABLES = (COMPONENTS, hunyuan15.COMPONENTS)
VARIANT_FOLDER = "transformer"  # around those of the variants, in the tree of 1.5


class Files(dict[str, Path]):
    """Single files that are taken instead of a folder's parts, by what ``--part`` calls them.

    ``variant``: which one the transformer is, where neither its tensors nor names tell.
    """

    variant: str | None = None


def parse_files(texts: Sequence[str], components: Components | None = None) -> Files:
    """Single files from texts such as "dit=hunyuan.safetensors", and "variant=480p_i2v" for which one that is.

    Raises: InputError for anything else, and for a name that stands twice.
    """
    variants = [name for each in TABLES for name in each.facts.variants]
    rows = [row for each in (TABLES if components is None else (components,)) for row in each.values()]
    names, found = list(dict.fromkeys(flag for row in rows for flag in row.all_flags)), Files()
    for text in texts:
        name, _, path = text.partition("=")
        if name == "variant":
            if found.variant is not None:
                raise InputError(f"variant is given twice: {found.variant} and {path}.")
            if path not in variants:
                raise InputError(f"{text!r}: expected one of {', '.join(variants)}.{nearest(path, variants)}")
            found.variant = path
            continue
        if name not in names:
            raise InputError(f"{text!r}: expected NAME=FILE with {', '.join(names)} for a name.{nearest(name, names)}")
        if not path:
            raise InputError(f"{text!r} names no file: expected NAME=FILE, such as {name}=model.safetensors.")
        if "://" in path:
            raise InputError(
                f"{text!r}: addresses are not fetched. Download it with `curl -fLO {path}`, and name the file."
            )
        if name in found:
            raise InputError(f"{name} is given twice: {found[name]} and {path}.")
        found[name] = Path(path).expanduser()
    return found


@dataclasses.dataclass(frozen=True)
class Layout:
    """What was recognised.

    ``components``: the table of what belongs to it. ``weights``: the files or folders of each part; ``configs``: where
    a part's ``config.json`` would be; ``tokenizers``: folders, by the text encoder that they are for.
    ``condition``: what the place of a transformer says about it, where its tensors do not.
    ``is_strict``: every part has its ``config.json``. ``singles``: parts that were given as files of their own.
    ``scales``: maps of scales that were named, by part; ``variant``: what a person says that the transformer is.
    """

    name: str
    root: Path
    components: Components
    weights: dict[str, tuple[Path, ...]]
    configs: dict[str, Path]
    tokenizers: dict[str, Path]
    image_processor: Path
    condition: Condition
    is_strict: bool
    singles: frozenset[str] = frozenset()
    scales: dict[str, Path] = dataclasses.field(default_factory=dict)
    variant: str | None = None

    def needs_config(self, component: str) -> bool:
        """Whether a part's ``config.json`` cannot be missing."""
        return self.is_strict and component not in self.singles

    @property
    def places(self) -> Whereabouts:
        """Where the transformer lies."""
        return Whereabouts(self.root, self.weights["dit"][0], self.configs["dit"], "dit" in self.singles, self.variant)

    def with_files(self, files: Files) -> Layout:
        """The same with single files in place of parts.

        Raises: InputError for a part that this family of models does not have, and a variant that nothing is told by.
        """
        flags = [flag for row in self.components.values() for flag in row.all_flags]
        for flag in files:
            if flag not in flags:
                raise InputError(f"{self.root} has no part {flag!r}: its parts are {', '.join(flags)}.")
        if files.variant is not None and not self.components.facts.variants:
            raise InputError(
                f"{self.root} is {self.components.facts.name}, whose files tell what they are: no variant."
            )
        if files.variant is not None and "dit" not in files and has_settings(self.root):
            raise InputError(
                f"{self.root / FILE_NAME} says what its transformer is: leave out variant={files.variant}, or name the "
                "transformer that it is for with --part dit=FILE."
            )
        weights, scales, singles = dict(self.weights), {}, set()
        for row in self.components.values():
            if row.flag in files:
                weights[row.name] = (files[row.flag],)
                singles.add(row.name)
            if row.tower is not None and row.tower.flag in files:
                weights[row.name] = (*weights[row.name], files[row.tower.flag])
            if row.scales_flag is not None and row.scales_flag in files:
                scales[row.name] = files[row.scales_flag]
        return dataclasses.replace(
            self, weights=weights, singles=frozenset(singles), scales=scales, variant=files.variant
        )


def known_layout(path: Path, components: Components | None = None) -> Layout | None:
    """The layout of a folder, or of the folder that a ``.pt`` file lies in; None when it is none that is known.

    Without ``components``, the files tell which family it is.
    """
    if (path / "model_index.json").is_file():
        return _diffusers_layout(path, components or _table_of(path))
    for each in TABLES if components is None else (components,):
        find, make = TREES[each.facts.tree]
        model = find(path)
        if model is not None:
            return make(model, path, each)
    return None


def _table_of(root: Path) -> Components:
    """The family whose transformer's class a folder names; the first where it names none of them."""
    place = root / "transformer" / "config.json"
    try:
        kind = read_json(place).get("_class_name") if place.is_file() else None
    except CheckpointError:  # told when it is read
        kind = None
    return next((each for each in TABLES if each["dit"].kind == kind), COMPONENTS)


def _diffusers_layout(root: Path, components: Components) -> Layout:
    folders = {row.name: root / row.folder for row in components.values()}
    present = [name for name, folder in folders.items() if name not in components.facts.optional or folder.is_dir()]
    return Layout(
        name="diffusers",
        root=root,
        components=components,
        weights={name: (folders[name],) for name in present},
        configs={name: folder / "config.json" for name, folder in folders.items()},
        tokenizers={row.name: root / row.tokenizer[0] for row in components.values() if row.tokenizer is not None},
        image_processor=root / components.facts.image_processor[0] / "preprocessor_config.json",
        condition="token_replace",
        is_strict=True,
    )


def _tencent_model(path: Path) -> Path | None:
    """The folder ``hunyuan-video-*`` that a path means: below it, itself, or around it."""
    if path.is_dir():
        inside = [folder for folder in sorted(path.glob("hunyuan-video-*")) if folder.is_dir()]
        if inside:
            return inside[0]  # "i2v" comes before "t2v"
    around = [path, *path.absolute().parents][:3]
    return next((place for place in around if place.name.startswith("hunyuan-video-") and place.is_dir()), None)


def tencent_file(row: Component, model: str) -> Path:
    """A component's file in Tencent's tree, from whose root on ``model`` is a transformer's folder."""
    encoder = "text_encoder" if _is_text_only(model) else "text_encoder_i2v"
    return Path(row.tencent.format(model=model, encoder=encoder, larger=larger_variant(Path(model).name)))


def _is_text_only(model: str) -> bool:
    return model.startswith("hunyuan-video-t2v")


def _tencent_layout(model: Path, path: Path, components: Components) -> Layout:
    root = model.parent
    folders = {row.name: root / tencent_file(row, model.name).parent for row in components.values()}
    weights: dict[str, tuple[Path, ...]] = {name: (folder,) for name, folder in folders.items()}
    weights["dit"] = (path if path.is_file() else transformer_file(folders["dit"]),)
    tower = next(row.name for row in components.values() if row.tower is not None)
    return Layout(
        name="tencent",
        root=root,
        components=components,
        weights=weights,
        configs={name: folder / "config.json" for name, folder in folders.items()},
        tokenizers={row.name: folders[row.name] for row in components.values() if row.tokenizer is not None},
        image_processor=folders[tower] / "preprocessor_config.json",
        condition="none" if _is_text_only(model.name) else "token_replace",
        is_strict=False,
    )


def _variant_model(path: Path) -> Path | None:
    """The folder of a transformer in a tree of variants that a path means: below it, itself, or around it.

    Raises: CheckpointError for a tree with several.
    """
    around = [
        place
        for place in (path, *path.absolute().parents[:2])
        if place.parent.name == VARIANT_FOLDER and _is_variant(place)
    ]
    if around:
        return around[0]
    folder = path / VARIANT_FOLDER
    inside = [each for each in sorted(folder.iterdir()) if _is_variant(each)] if folder.is_dir() else []
    if len(inside) > 1:
        held = ", ".join(each.name for each in inside)
        raise CheckpointError(f"{path} has several transformers ({held}): name one of them, such as {inside[0]}.")
    return inside[0] if inside else None


def _is_variant(folder: Path) -> bool:
    return folder.is_dir() and hunyuan15.is_called_variant(folder.name)


def _variants_layout(model: Path, path: Path, components: Components) -> Layout:
    root, is_i2v = model.parent.parent, "i2v" in model.name
    files = {row.name: root / tencent_file(row, str(model.relative_to(root))) for row in components.values()}
    optional = [row for row in components.values() if row.name in components.facts.optional]
    absent = [row.name for row in optional if not (is_i2v if row.sees else files[row.name].parent.is_dir())]
    present = [name for name in files if name not in absent]
    # The encoder of quoted text comes alone; the config.json of its base model, elsewhere, has other numbers.
    weights: dict[str, tuple[Path, ...]] = {
        name: (files[name] if files[name].suffix == ".pt" else files[name].parent,) for name in present
    }
    if path.is_file():
        weights["dit"] = (path,)
    return Layout(
        name="tencent",
        root=root,
        components=components,
        weights=weights,
        configs={name: file.parent / "config.json" for name, file in files.items()},
        tokenizers={row.name: files[row.name].parent for row in components.values() if row.tokenizer is not None},
        image_processor=root / components.facts.processor / "preprocessor_config.json",
        condition="latent_concat" if is_i2v else "none",
        is_strict=False,
    )


# How a model's folder is found in Tencent's trees, and what is around it.
TREES = {"models": (_tencent_model, _tencent_layout), "variants": (_variant_model, _variants_layout)}


def transformer_file(path: Path) -> Path:
    """The file among a folder's that the original would take; the folder itself when there is only one."""
    if path.is_dir():
        for pattern in ("[!.]*_model_states.pt", "[!.]*_model_states_fp8.pt"):
            states = sorted(path.glob(pattern))
            if states:
                return states[0]
    return path
