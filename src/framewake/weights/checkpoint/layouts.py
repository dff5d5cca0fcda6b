"""Where the parts of a checkpoint lie: the folder layouts, and single files given one by one.

Source: specification, sections 8.1 and 8.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from framewake.config import Condition
from framewake.errors import InputError, nearest
from framewake.weights.checkpoint import hunyuan
from framewake.weights.checkpoint.component import Component, Components

COMPONENTS = hunyuan.COMPONENTS


class Files(dict[str, Path]):
    """Single files that are taken instead of a folder's parts, by what ``--part`` calls them."""


def parse_files(texts: Sequence[str], components: Components = COMPONENTS) -> Files:
    """Single files from texts such as "dit=hunyuan.safetensors".

    Raises: InputError for anything else, and for a name that stands twice.
    """
    names, found = [flag for row in components.values() for flag in row.all_flags], Files()
    for text in texts:
        name, _, path = text.partition("=")
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
    ``scales``: maps of scales that were named, by part.
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

    def needs_config(self, component: str) -> bool:
        """Whether a part's ``config.json`` cannot be missing."""
        return self.is_strict and component not in self.singles

    def with_files(self, files: Files) -> Layout:
        """The same with single files in place of parts."""
        weights, scales, singles = dict(self.weights), {}, set()
        for row in self.components.values():
            if row.flag in files:
                weights[row.name] = (files[row.flag],)
                singles.add(row.name)
            if row.tower is not None and row.tower.flag in files:
                weights[row.name] = (*weights[row.name], files[row.tower.flag])
            if row.scales_flag is not None and row.scales_flag in files:
                scales[row.name] = files[row.scales_flag]
        return dataclasses.replace(self, weights=weights, singles=frozenset(singles), scales=scales)


def known_layout(path: Path, components: Components = COMPONENTS) -> Layout | None:
    """The layout of a folder, or of the folder that a ``.pt`` file lies in; None when it is none that is known."""
    if (path / "model_index.json").is_file():
        return _diffusers_layout(path, components)
    model = _tencent_model(path)
    return None if model is None else _tencent_layout(model, path, components)


def _diffusers_layout(root: Path, components: Components) -> Layout:
    folders = {row.name: root / row.folder for row in components.values()}
    return Layout(
        name="diffusers",
        root=root,
        components=components,
        weights={name: (folder,) for name, folder in folders.items()},
        configs={name: folder / "config.json" for name, folder in folders.items()},
        tokenizers={row.name: root / row.tokenizer[0] for row in components.values() if row.tokenizer is not None},
        image_processor=root / "image_processor" / "preprocessor_config.json",
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
    """A component's file in Tencent's tree, below the folder that has a model's folder ``hunyuan-video-*`` in it."""
    encoder = "text_encoder" if _is_text_only(model) else "text_encoder_i2v"
    return Path(row.tencent.format(model=model, encoder=encoder))


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


def transformer_file(path: Path) -> Path:
    """The file among a folder's that the original would take; the folder itself when there is only one."""
    if path.is_dir():
        for pattern in ("[!.]*_model_states.pt", "[!.]*_model_states_fp8.pt"):
            states = sorted(path.glob(pattern))
            if states:
                return states[0]
    return path
