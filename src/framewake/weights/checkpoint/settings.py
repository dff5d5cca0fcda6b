"""What a checkpoint says about its own use: ``framewake.json`` at its root, optional."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from framewake.config import HUNYUAN_TILING, TilingConfig
from framewake.errors import CheckpointError, nearest
from framewake.shapes import PUBLISHED_RESOLUTIONS
from framewake.weights.reading.files import read_json

FILE_NAME = "framewake.json"


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
    text_tokens: int = 256
    negative_prompt: str = "deformation, a poor composition and deformed video, bad teeth, bad eyes, bad limbs"
    tiling: TilingConfig = HUNYUAN_TILING


def read_settings(folder: Path) -> Settings:
    """The settings in a checkpoint's folder, the published ones when it has none.

    Raises: CheckpointError for an unknown name or a value of another kind.
    """
    path = folder / FILE_NAME
    if not path.exists():
        return Settings()
    return _read(Settings, read_json(path), path)


def write_settings(folder: Path, settings: Settings) -> None:
    """Write the settings beside a checkpoint."""
    text = json.dumps(dataclasses.asdict(settings), indent=2, ensure_ascii=False)
    (folder / FILE_NAME).write_text(text + "\n", encoding="utf-8")


def _read(kind: Any, content: dict[str, Any], path: Path) -> Any:
    """A dataclass from a JSON object; what is not named keeps its default."""
    default = Settings() if kind is Settings else HUNYUAN_TILING
    values = {}
    for name, value in content.items():
        if name not in {field.name for field in dataclasses.fields(kind)}:
            known = [field.name for field in dataclasses.fields(kind)]
            raise CheckpointError(f"{path} has the unknown setting {name!r}.{nearest(name, known)}")
        values[name] = _checked(value, getattr(default, name), f"{path}: {name}")
    return dataclasses.replace(default, **values)


def _checked(value: Any, like: Any, where: str) -> Any:
    """``value`` when it is of the same kind as the default."""
    if isinstance(like, TilingConfig) and isinstance(value, dict):
        return _read(TilingConfig, value, Path(where))
    if isinstance(like, float) and type(value) is int:
        value = float(value)
    is_table = isinstance(like, dict) and isinstance(value, dict)
    if type(value) is not type(like) or (is_table and not all(type(side) is int for side in value.values())):
        raise CheckpointError(f"{where} is {value!r}; a value like {like!r} is expected.")
    return value
