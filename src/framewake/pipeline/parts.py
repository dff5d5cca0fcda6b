"""The models of a checkpoint with their weights, loaded when a stage needs them and released when it ends."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from framewake.engine.contract import Dtype, Engine
from framewake.engine.forks import check_process
from framewake.errors import ResourceError
from framewake.models.manner import PLAIN, Manner
from framewake.pipeline.adapters import Adapted, Adapters, OpenedLora
from framewake.pipeline.family import Family
from framewake.pipeline.forecast.cost import BYTES
from framewake.pipeline.forecast.place import Placement, gib
from framewake.pipeline.messages import Lead
from framewake.weights.checkpoint.component import LARGER_DIT
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.stores.by_tensor import ByTensor
from framewake.weights.stores.shared import Shared
from framewake.weights.stores.store import Resident
from framewake.weights.stores.streamed import Streamed

COMPILED_WIDTH = 1024  # of a transformer whose blocks are compiled


class Part(NamedTuple):
    """A model, its weights on the device, and how it works."""

    model: Any
    weights: Resident | Streamed | Shared
    manner: Manner


class Parts:
    """Hands out parts by name.

    ``keeps_all``: the checkpoint takes less than a quarter of the free memory, so nothing is ever let go and
    the next run starts at once. The rest is left to activations, which are the larger share at full size.
    """

    def __init__(self, checkpoint: Checkpoint, engine: Engine, family: Family, *, memory: int | None = None) -> None:
        self.checkpoint = checkpoint
        self.engine = engine
        self.models = family.models(checkpoint.configs, engine)
        self.memory = memory
        # Of several processes that share a clip: how many, and the first one's connection to the others.
        self.devices, self.lead = 1, Lead()
        self.placements: dict[str, Placement] = {}
        self._loaded: dict[str, tuple[Dtype, Resident | Streamed | Shared]] = {}
        self._adapters = Adapters(engine, self.models["dit"].shapes())
        bytes_all = sum(self.bytes_needed(name, "float32") for name in self.models)
        self.keeps_all = bytes_all < self.room() // 4

    def room(self) -> int:
        """Bytes that this process may still take on the device: what is free but a margin, or what the limit leaves."""
        memory = self.engine.memory()
        free = memory["free"] - self.engine.traits.margin_bytes
        return max(free if self.memory is None else min(free, self.memory - memory["used"]), 0)

    def held_bytes(self) -> int:
        """Bytes of the weights that are loaded; they count as room for a run that uses them again."""
        return sum(
            self.bytes_needed(name, dtype)
            for name, (dtype, store) in self._loaded.items()
            if isinstance(store, Resident) and not isinstance(store, ByTensor)
        )

    def bytes_needed(self, name: str, dtype: Dtype) -> int:
        """Bytes of a part's weights in a type."""
        return sum(math.prod(shape) for shape in self.models[name].shapes().values()) * BYTES[dtype]

    def get(self, name: str, dtype: Dtype) -> Part:
        """A part in a type, read from disk unless it is there already.

        Raises: CheckpointError when the file does not hold exactly the model's tensors, ResourceError when the
        weights alone do not fit into the free memory, EngineError in a child of a process that has computed.
        """
        check_process()
        model = self.models[name]
        if name not in self._loaded or self._loaded[name][0] != dtype:
            self._drop(name)  # never two types of one part at a time
            self._loaded[name] = (dtype, self._store(name, dtype))
        return Part(model, self._loaded[name][1], self.manner(name))

    def _store(self, name: str, dtype: Dtype) -> Resident | Streamed | Shared:
        """A part's weights, where it has been placed."""
        model, place = self.models[name], self.placements.get(name)
        shapes, streams = model.shapes(), model.streams()
        if streams and place is not None and place.is_shared:
            make = self.checkpoint.shared
            return make(name, self.engine, dtype, shapes=shapes, streams=streams, is_streamed=place.is_streamed)
        is_streamed = bool(streams) and place is not None and place.is_streamed
        if not is_streamed:
            self._check_room(name, dtype)
        return self.checkpoint.store(name, self.engine, dtype, shapes=shapes, streams=streams if is_streamed else ())

    def manner(self, name: str) -> Manner:
        """How a part works where it has been placed."""
        place = self.placements.get(name)
        if place is None:
            return PLAIN
        compiles = name in ("dit", LARGER_DIT) and place.chunk_tokens is None and self._compiles(name)
        return Manner(compiles, place.chunk_tokens, place.slab_numbers)

    def _compiles(self, name: str) -> bool:
        """Whether a transformer's blocks are compiled: on CUDA, where it is large enough to be worth a minute of it.

        Norms, modulation and rotations are then one pass over memory instead of several. A loop over chunks would
        be compiled as one long program; what sparse attention sees is found while it runs.
        """
        config = self.checkpoint.configs[name]
        return config.most_seen is None and self.engine.traits.compiles_blocks and config.hidden_size >= COMPILED_WIDTH

    def adapted(self, name: str, loras: Sequence[OpenedLora], dtype: Dtype) -> Adapted:
        """A transformer's weights with LoRAs."""
        weights, place = self.get(name, dtype).weights, self.placements.get(name)
        # What is merged may stay where that leaves room for the work; a quarter of the room at the most.
        spare = self.room() - (0 if place is None else place.work)
        return self._adapters.adapt(weights, loras, dtype, room=min(spare, self.room() // 4))

    def _check_room(self, name: str, dtype: Dtype) -> None:
        needed, free = self.bytes_needed(name, dtype), self.engine.memory()["free"]
        if needed > free:
            part = self.checkpoint.layout.components[name].role
            raise ResourceError(
                f"the weights of the {part} need {gib(needed)} in {dtype}; {gib(free)} are free on "
                f"{self.engine.name}. Free some, take another device with --engine, or --precision bfloat16.",
                bytes_needed=needed,
                bytes_free=free,
            )

    def held(self) -> tuple[str, ...]:
        """The parts whose weights are loaded."""
        return tuple(self._loaded)

    def release(self, *names: str) -> None:
        """Let parts go, unless everything is kept."""
        if not self.keeps_all:
            for name in names:
                self._drop(name)
            self.engine.memory()  # which returns what was freed: the next part has tensors of other sizes
            if not self.lead.is_lost:
                self.lead.tell("release", {"names": names})

    def _drop(self, name: str) -> None:
        if name == "dit":
            self._adapters.drop()  # a view holds on to the weights that it shows
        if name in self._loaded:
            self._loaded.pop(name)[1].close()
