"""What a checkpoint says about its own use: ``framewake.json`` at its root, optional."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from framewake.config import HUNYUAN_TILING, TilingConfig
from framewake.errors import CheckpointError, nearest
from framewake.shapes import PUBLISHED_RESOLUTIONS
from framewake.weights.reading.files import read_json

FILE_NAME = "framewake.json"


@dataclasses.dataclass(frozen=True)
class Domain:
    """What a checkpoint knows, where that is little; whoever asks for something else is told. The default is anything.

    ``description`` completes "this checkpoint knows". A prompt needs one word of each list in ``words``, of letters a
    to z in lower case. ``most_edges`` is the share of a picture's places that may be edges when it is 64 pixels wide
    and high.
    """

    description: str = ""
    words: tuple[tuple[str, ...], ...] = ()
    most_edges: float = 1.0


@dataclasses.dataclass(frozen=True)
class Enlargement:
    """How a clip becomes a larger one, in so many steps more; the default is not at all.

    Units: ``side_px`` is the side of the square bucket of the larger class.
    """

    resolution: str = ""
    side_px: int = 0
    steps: int = 0
    flow_shift: float = 1.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings that belong to a checkpoint; the defaults are those of the published one.

    Units: ``resolutions`` maps a resolution class to the side in pixels of its square bucket;
    ``text_tokens`` counts the prompt's tokens with the template's last ones.
    Source: specification, sections 1.1, 2.1, 3.1, 3.6 and 7.6.
    """

    name: str = "HunyuanVideo-I2V"
    is_demo: bool = False
    resolutions: dict[str, int] = dataclasses.field(default_factory=lambda: dict(PUBLISHED_RESOLUTIONS))
    frames: int = 129
    steps: int = 50
    fps: int = 24
    flow_shift: float = 7.0
    guidance: float = 6.0
    guidance_scale: float = 1.0
    text_tokens: int = 256
    negative_prompt: str = "deformation, a poor composition and deformed video, bad teeth, bad eyes, bad limbs"
    tiling: TilingConfig = HUNYUAN_TILING
    domain: Domain = Domain()
    enlargement: Enlargement = Enlargement()


def has_settings(folder: Path) -> bool:
    """Whether a checkpoint says anything about its own use."""
    return (folder / FILE_NAME).exists()


def read_settings(folder: Path) -> Settings:
    """The settings in a checkpoint's folder, the published ones when it has none.

    Raises: CheckpointError for an unknown name, a value of another kind, or a domain that says nothing.
    """
    path = folder / FILE_NAME
    if not has_settings(folder):
        return Settings()
    settings: Settings = _read(Settings(), read_json(path), str(path))
    _check_domain(settings.domain, f"{path}: domain")
    return settings


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the settings beside a checkpoint."""
    values = dataclasses.asdict(settings)
    silent = {"domain": Domain(), "enlargement": Enlargement()}
    values = {name: value for name, value in values.items() if getattr(settings, name) != silent.get(name)}
    text = json.dumps(values, indent=2, ensure_ascii=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def _read(default: Any, content: dict[str, Any], where: str) -> Any:
    """A dataclass from a JSON object; what is not named keeps its default."""
    known = [field.name for field in dataclasses.fields(default)]
    values = {}
    for name, value in content.items():
        if name not in known:
            raise CheckpointError(f"{where} has the unknown setting {name!r}.{nearest(name, known)}")
        values[name] = _checked(value, getattr(default, name), f"{where}: {name}")
    return dataclasses.replace(default, **values)


def _checked(value: Any, like: Any, where: str) -> Any:
    """``value`` when it is of the same kind as the default."""
    if isinstance(like, TilingConfig | Domain | Enlargement) and isinstance(value, dict):
        return _read(like, value, where)
    if isinstance(like, tuple):
        return _lists_of_words(value, where)
    if isinstance(like, float) and type(value) is int:
        value = float(value)
    is_table = isinstance(like, dict) and isinstance(value, dict)
    if type(value) is not type(like) or (is_table and not all(type(side) is int for side in value.values())):
        like = dataclasses.asdict(like) if dataclasses.is_dataclass(like) and not isinstance(like, type) else like
        raise CheckpointError(f"{where} is {value!r}; a value like {like!r} is expected.")
    return value


def _lists_of_words(value: Any, where: str) -> tuple[tuple[str, ...], ...]:
    """Lists of words as tuples; an empty list would be one that no prompt has a word of."""
    lists: list[Any] = value if isinstance(value, list) else [None]
    is_word = [
        isinstance(each, list) and each and all(isinstance(word, str) and re.fullmatch("[a-z]+", word) for word in each)
        for each in lists
    ]
    if not all(is_word):
        raise CheckpointError(
            f'{where} is {value!r}; expected lists of words in letters a to z, as [["cat", "dog"], ["runs", "sleeps"]].'
        )
    return tuple(tuple(each) for each in lists)


def _check_domain(domain: Domain, where: str) -> None:
    """Whether a person can be told what a domain is.

    Raises: CheckpointError.
    """
    if not 0 <= domain.most_edges <= 1:
        raise CheckpointError(f"{where}: most_edges is {domain.most_edges!r}; expected a share from 0 to 1.")
    if domain != Domain() and not domain.description:
        raise CheckpointError(
            f"{where} has no description; say in it what the checkpoint knows, as 'cats and dogs, and what they do'."
        )
