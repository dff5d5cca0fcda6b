"""Alpha: from a key of the file, or from a configuration that PEFT or diffusers put beside or into it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from framewake.errors import CheckpointError
from framewake.weights.files import read_json
from framewake.weights.lora.keys import Pair

# diffusers writes its configuration under this name of the file's metadata, with the part's name in front.
METADATA_KEY = "lora_adapter_metadata"
_PART = "transformer."
# PEFT keeps its configuration in a file of its own beside one with this name.
_PEFT_FILE, _PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"


class _Tensors(Protocol):
    metadata: dict[str, str]

    def read(self, name: str) -> np.ndarray: ...


class Alphas(NamedTuple):
    """Alpha of every pair of a file."""

    path: Path
    tensors: _Tensors
    config: dict[str, Any]

    def of(self, pair: Pair) -> tuple[float | None, bool]:
        """A pair's alpha, None when nothing names one, and whether the rank counts by its root.

        Raises: CheckpointError when it is no finite number.
        """
        if pair.alpha is not None:
            values = self.tensors.read(pair.alpha)
            found: Any = float(values.reshape(-1)[0]) if values.size == 1 else None
            where = repr(pair.alpha)
        else:
            found, where = self._configured(pair.module), "lora_alpha"
            if found is None:
                return None, False
        if type(found) not in (int, float) or not math.isfinite(found):
            raise CheckpointError(f"{self.path}: {where} is {found!r}; a finite number is expected.")
        return float(found), pair.alpha is None and self.config.get("use_rslora") is True

    def _configured(self, module: str) -> Any:
        patterns = self.config.get("alpha_pattern")
        for pattern, value in patterns.items() if isinstance(patterns, dict) else ():
            if module == pattern or module.endswith(f".{pattern}"):
                return value
        return self.config.get("lora_alpha")


def read_alphas(path: Path, tensors: _Tensors) -> Alphas:
    """What a file and its neighbourhood say about alpha.

    Raises: CheckpointError for a configuration that is none.
    """
    config: dict[str, Any] = {}
    text = tensors.metadata.get(METADATA_KEY)
    if text is not None:
        try:
            content = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path}: its {METADATA_KEY} is not JSON ({error}).") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path}: its {METADATA_KEY} is {content!r}, not an object.")
        config = {name.removeprefix(_PART): value for name, value in content.items()}
    elif "lora_alpha" in tensors.metadata:
        try:
            config = {"lora_alpha": float(tensors.metadata["lora_alpha"])}
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: its lora_alpha is no number: {error}.") from error
    elif path.name == _PEFT_FILE and (path.parent / _PEFT_CONFIG).is_file():
        config = read_json(path.parent / _PEFT_CONFIG)
    return Alphas(path, tensors, config)
