"""Alpha: from a key of the file, or from a configuration that PEFT, diffusers or a trainer put beside or into it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any, NamedTuple

from framewake.errors import CheckpointError
from framewake.weights.lora.updates import LoraTensors, WeightUpdate
from framewake.weights.reading.files import read_json

# diffusers writes its configuration under this name of the file's metadata, with the part's name in front.
METADATA_KEY = "lora_adapter_metadata"
_PART = "transformer."
# PEFT keeps its configuration in a file of its own beside one with this stem.
_PEFT_STEM, _PEFT_CONFIG = "adapter_model", "adapter_config.json"
# One number for the whole file, under the names that trainers give it.
_ALPHA_KEYS = ("lora_alpha", "network_alpha")
# kohya's scripts say it beside the tensors that hold it. It counts only under kohya's own names, for converters to
# dotted names multiply alpha into the factors and keep the metadata.
_KOHYA_KEY = "ss_network_alpha"
ALPHA_KEYS = (*_ALPHA_KEYS, _KOHYA_KEY)
_NOTHING = (None, "None", "")
# PEFT's ways to begin that take a part out of the weights, so that the factors alone are not the change.
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq")
# Patterns of PEFT are regular expressions of its user's; these forms cannot take long.
_SAFE_PATTERN = re.compile(r"\^?(?:[\w.|()-]|\\\.|\\d\+?|\[0-9\]\+?|\.\*)+\$?")
_MOST_REPEATS = 3


class Alphas(NamedTuple):
    """Alpha of every module of a file. ``kohya`` is what kohya's metadata say."""

    path: Path
    tensors: LoraTensors
    config: dict[str, Any]
    kohya: float | None = None

    def given(self, update: WeightUpdate) -> WeightUpdate:
        """An update with its alpha, which is None when nothing names one.

        Raises: CheckpointError when it is no finite number.
        """
        module, key = update.module, update.module.keys.get("alpha")
        if key is not None:
            values = self.tensors.read(key)
            found: Any = float(values.reshape(-1)[0]) if values.size == 1 else f"{values.size} numbers"
            where = repr(key)
        else:
            found, where = self._of_module(module.name, "alpha_pattern", "lora_alpha"), "lora_alpha"
            if found is None and module.is_underscored:
                found, where = self.kohya, _KOHYA_KEY
            if found is None:
                return update
        if type(found) not in (int, float) or not math.isfinite(found):
            raise CheckpointError(f"{self.path}: {where} is {found!r}; a finite number is expected.")
        has_root_rank = key is None and self.config.get("use_rslora") is True
        rank = update.rank
        if update.method == "kronecker" and not rank and key is None:
            # PEFT divides by its rank also where it did not need one.
            asked = self._of_module(module.name, "rank_pattern", "r")
            rank = asked if type(asked) is int and asked > 0 else 0
        return update._replace(alpha=float(found), has_root_rank=has_root_rank, rank=rank)

    def _of_module(self, module: str, patterns: str, default: str) -> Any:
        found = self.config.get(patterns)
        for pattern, value in found.items() if isinstance(found, dict) else ():
            if self._fits(str(pattern), module):
                return value
        return self.config.get(default)

    def _fits(self, pattern: str, module: str) -> bool:
        repeats = pattern.count(".*") + pattern.count("+")
        if not _SAFE_PATTERN.fullmatch(pattern) or repeats > _MOST_REPEATS or pattern.count("(") != pattern.count(")"):
            raise CheckpointError(
                f"{self.path}: its configuration chooses modules by {pattern[:80]!r}, which is not read; names of "
                "modules are expected. Write every module's alpha into the file as a key that ends in .alpha."
            )
        return re.fullmatch(rf"(?:.*\.)?(?:{pattern.removeprefix('^').removesuffix('$')})", module) is not None


def read_alphas(path: Path, tensors: LoraTensors) -> Alphas:
    """What a file and its neighbourhood say about alpha.

    Raises: CheckpointError for a configuration that is none.
    """
    metadata = tensors.metadata
    config: dict[str, Any] = {}
    text = metadata.get(METADATA_KEY)
    named = next((name for name in _ALPHA_KEYS if metadata.get(name) not in _NOTHING), None)
    if text is not None:
        try:
            content = json.loads(text)
        except (ValueError, TypeError, RecursionError) as error:
            raise CheckpointError(f"{path}: its {METADATA_KEY} is not JSON ({error}).") from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path}: its {METADATA_KEY} is {content!r}, not an object.")
        config = {name.removeprefix(_PART): value for name, value in content.items()}
    elif named is not None:
        config = {"lora_alpha": _number(path, named, metadata[named])}
    elif _is_pefts(path):
        config = read_json(path.parent / _PEFT_CONFIG)
        _check_start(path.parent / _PEFT_CONFIG, config)
        if "lora_alpha" not in config and "alpha" in config:  # as LoHa and LoKr call it
            config["lora_alpha"] = config["alpha"]
    kohya = metadata.get(_KOHYA_KEY)
    return Alphas(path, tensors, config, None if kohya in _NOTHING else _number(path, _KOHYA_KEY, kohya))


def _check_start(file: Path, config: dict[str, Any]) -> None:
    start = str(config.get("init_lora_weights", "")).lower()
    if start.startswith(_CHANGED_BASE):
        raise CheckpointError(
            f"{file} says init_lora_weights {start!r}: its factors are for weights that PEFT changed at first. "
            "Save the adapter again with path_initial_model_for_weight_conversion, which makes a plain LoRA of it."
        )


def _is_pefts(path: Path) -> bool:
    """Whether the configuration beside a file is about it: under PEFT's name, or because no other file is there."""
    if not (path.parent / _PEFT_CONFIG).is_file():
        return False
    others = (file for file in path.parent.iterdir() if file.suffix == path.suffix and file != path)
    return path.stem == _PEFT_STEM or next(others, None) is None


def _number(path: Path, name: str, text: Any) -> float:
    try:
        return float(text)
    except (ValueError, TypeError) as error:
        raise CheckpointError(f"{path}: its {name} is no number: {error}.") from error
