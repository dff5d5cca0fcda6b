"""Where the parts of a checkpoint lie: the folder layouts, and single files given one by one.

Source: specification, sections 8.1 and 8.2.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from framewake.config import Condition
from framewake.errors import InputError, nearest
from framewake.weights.checkpoint import diffusers

Component = Literal["dit", "vae", "llava", "clip_text"]
COMPONENTS: tuple[Component, ...] = ("dit", "vae", "llava", "clip_text")
WORDS = {"dit": "transformer", "vae": "autoencoder", "llava": "LLaVA text encoder", "clip_text": "CLIP text encoder"}


class Files(NamedTuple):
    """Single files that are taken instead of a folder's parts; None leaves the folder's.

    ``dit_scales``: the scales of a transformer in eight bits, where they are not beside it.
    """

    dit: Path | None = None
    dit_scales: Path | None = None
    vae: Path | None = None
    llava: Path | None = None
    llava_vision: Path | None = None
    clip_text: Path | None = None


NAMES = {
    "dit": "dit",
    "dit-scales": "dit_scales",
    "vae": "vae",
    "llava": "llava",
    "llava-vision": "llava_vision",
    "clip": "clip_text",
}


def parse_files(texts: Sequence[str]) -> Files:
    """Single files from texts such as "dit=hunyuan.safetensors".

    Raises: InputError for anything else, and for a name that stands twice.
    """
    found: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if name not in NAMES:
            raise InputError(f"{text!r}: expected NAME=FILE with {', '.join(NAMES)} for a name.{nearest(name, NAMES)}")
        if not path:
            raise InputError(f"{text!r} names no file: expected NAME=FILE, such as {name}=model.safetensors.")
        if "://" in path:
            raise InputError(
                f"{text!r}: addresses are not fetched. Download it with `curl -fLO {path}`, and name the file."
            )
        if NAMES[name] in found:
            raise InputError(f"{name} is given twice: {found[NAMES[name]]} and {path}.")
        found[NAMES[name]] = Path(path).expanduser()
    return Files(**found)


@dataclasses.dataclass(frozen=True)
class Layout:
    """What was recognised.

    ``weights``: the files or folders of each part; ``configs``: where a part's ``config.json`` would be.
    ``condition``: what the place of a transformer says about it, where its tensors do not.
    ``is_strict``: every part has its ``config.json``. ``singles``: parts that were given as files of their own.
    ``scales``: the map of the transformer's scales, where it was named.
    """

    name: str
    root: Path
    weights: dict[Component, tuple[Path, ...]]
    configs: dict[Component, Path]
    tokenizer: Path
    tokenizer_2: Path
    image_processor: Path
    condition: Condition
    is_strict: bool
    singles: frozenset[Component] = frozenset()
    scales: Path | None = None

    def needs_config(self, component: Component) -> bool:
        """Whether a part's ``config.json`` cannot be missing."""
        return self.is_strict and component not in self.singles

    def with_files(self, files: Files) -> Layout:
        """The same with single files in place of parts."""
        given = {name: path for name in COMPONENTS if (path := getattr(files, name)) is not None}
        weights = self.weights | {name: (path,) for name, path in given.items()}
        if files.llava_vision is not None:
            weights["llava"] = (*weights["llava"], files.llava_vision)
        return dataclasses.replace(self, weights=weights, singles=frozenset(given), scales=files.dit_scales)


def known_layout(path: Path) -> Layout | None:
    """The layout of a folder, or of the folder that a ``.pt`` file lies in; None when it is none that is known."""
    if (path / "model_index.json").is_file():
        return _diffusers_layout(path)
    model = _tencent_model(path)
    return None if model is None else _tencent_layout(model, path)


def _diffusers_layout(root: Path) -> Layout:
    folders: dict[Component, Path] = {name: root / diffusers.FOLDERS[name] for name in COMPONENTS}
    return Layout(
        name="diffusers",
        root=root,
        weights={name: (folder,) for name, folder in folders.items()},
        configs={name: folder / "config.json" for name, folder in folders.items()},
        tokenizer=root / "tokenizer",
        tokenizer_2=root / "tokenizer_2",
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


def _tencent_layout(model: Path, path: Path) -> Layout:
    is_text_only = model.name.startswith("hunyuan-video-t2v")
    root = model.parent
    llava = root / ("text_encoder" if is_text_only else "text_encoder_i2v")
    clip = root / "text_encoder_2"
    transformer = path if path.is_file() else transformer_file(model / "transformers")
    return Layout(
        name="tencent",
        root=root,
        weights={"dit": (transformer,), "vae": (model / "vae",), "llava": (llava,), "clip_text": (clip,)},
        configs={
            "dit": model / "transformers" / "config.json",
            "vae": model / "vae" / "config.json",
            "llava": llava / "config.json",
            "clip_text": clip / "config.json",
        },
        tokenizer=llava,
        tokenizer_2=clip,
        image_processor=llava / "preprocessor_config.json",
        condition="none" if is_text_only else "token_replace",
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
