"""LoRAs merged for good: a normal checkpoint folder with a changed transformer."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import CheckpointError
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.lora.file import Lora
from framewake.weights.lora.view import Merger
from framewake.weights.reading import names
from framewake.weights.reading.files import ShardedFiles, TensorFile, Tensors, open_tensors
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.reading.narrow import STORED, narrowed
from framewake.weights.writing.files import write_tensors


def fuse(
    checkpoint: Checkpoint, loras: Sequence[Lora], scales: Sequence[float], *, folder: str | Path, engine: Engine
) -> int:
    """Write a checkpoint whose transformer has the LoRAs in it; the number of weights changed.

    The transformer's files keep their names, types and division into shards; everything else is copied.
    Precision: float32, rounded once to the stored type.
    Raises: CheckpointError when the folder exists, cannot be written, or a stored type cannot hold a sum.
    """
    folder, part = Path(folder), checkpoint.layout.components["dit"].folder
    if folder.exists():
        raise CheckpointError(f"{folder} already exists: name a new folder for the merged checkpoint.")
    source = checkpoint.folder / part
    if not source.is_dir():
        raise CheckpointError(f"{checkpoint.folder} is not in the diffusers layout, the only one that is written.")
    file = open_tensors(source)
    mapped = MappedTensors(file, names.diffusers_dit(checkpoint.dit))
    if not {update.place.weight for lora in loras for update in lora.updates}.issubset(mapped.names()):
        raise CheckpointError(f"{file.path} has not the names of the diffusers layout, the only one that is written.")
    unfinished = folder.with_name(folder.name + ".part")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        skipped = {path.name for path in (*source.glob("*.safetensors"), *(shard.path for shard in shards_of(file)))}
        shutil.copytree(
            checkpoint.folder,
            unfinished,
            ignore=lambda place, found: skipped.intersection(found) if Path(place) == source else set(),
        )
        merger = _Shards(mapped, Merger(engine, loras), scales)
        for shard in shards_of(file):
            merger.write(shard, unfinished / part / shard.path.name)
        unfinished.rename(folder)
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return merger.changed


def shards_of(file: Tensors) -> list[TensorFile]:
    """The single files behind a component.

    Raises: CheckpointError when they are no safetensors files.
    """
    if isinstance(file, ShardedFiles):
        return file.shards()
    if not isinstance(file, TensorFile):
        raise CheckpointError(f"{file.path} is no safetensors file, the only kind that is written.")
    return [file]


class _Shards:
    """Merges file by file; of a fused weight that several files hold pieces of, the last one is remembered."""

    def __init__(self, tensors: MappedTensors, merger: Merger, scales: Sequence[float]) -> None:
        self._tensors = tensors
        self._merger = merger
        self._scales = scales
        self._rules = {their: rule for rule in tensors.rules() for their in rule.theirs}
        self._last: tuple[str, dict[str, np.ndarray]] = ("", {})
        self._done: set[str] = set()

    @property
    def changed(self) -> int:
        return len(self._done)

    def write(self, shard: TensorFile, path: Path) -> None:
        values: dict[str, np.ndarray] = {}
        kinds: Mapping[str, str] = {name: shard.dtype(name) for name in shard.names()}
        for name in shard.names():
            rule = self._rules.get(name)
            if rule is None or not self._merger.touches(rule.ours, self._scales):
                values[name] = shard.raw(name)
                continue
            if self._last[0] != rule.ours:
                engine = self._merger.engine
                base = engine.asarray(self._tensors.read(rule.ours).astype(np.float32), "float32")
                merged = engine.numpy(self._merger.merged(rule.ours, base, self._scales))
                self._last = (rule.ours, rule.cut(merged))
                self._done.add(rule.ours)
            values[name] = stored(self._last[1][name], kinds[name], name)
        write_tensors(path, values, metadata=shard.metadata, kinds=kinds)


def stored(values: np.ndarray, kind: str, name: str) -> np.ndarray:
    """Float32 numbers as stored bits of a type, rounded to the nearest.

    Raises: CheckpointError for numbers that the type cannot hold, or a type that is not written.
    """
    if kind not in STORED:
        raise CheckpointError(f"{name} is stored as {kind}; a LoRA is merged into float32, float16 or bfloat16 only.")
    found = narrowed(values, STORED[kind])
    if found.dtype == np.float16 and not np.isfinite(found).all():
        raise CheckpointError(f"{name} with the LoRA has values that float16 cannot hold.")
    return np.ascontiguousarray(found)
