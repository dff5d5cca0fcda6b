"""A family of models as a value: what it is made of, and how prompts reach it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from framewake.weights.checkpoint.component import Component, Components
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.reading.mapped import Shapes

Make = Callable[[Any, Any], Any]  # a model's class: engine and configuration -> model


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder, and what its work on the longest prompt takes.

    ``work_bytes``: memory beside its weights, from configuration, scene, type, and whether attention is put together
    from products. ``operations``: of a prompt, from configuration, number of parameters and number of tokens.
    ``layers``: how many it has.
    """

    component: Component
    make: Make
    work_bytes: Callable[..., int]
    operations: Callable[[Any, int, int], float]
    layers: Callable[[Any], int]

    @property
    def name(self) -> str:
        """The component's name."""
        return self.component.name


class LoraTraining(NamedTuple):
    """How LoRAs of a family are trained where nobody says otherwise, and what other trainers call it in their files.

    ``modules`` are patterns for the modules that get factors; they lie in blocks, in the final layer, or in what makes
    the text's tokens. ``flow_shift`` is that of the noise levels. ``picture_drop`` is the share of clips whose picture
    is left out, None where it never can be.
    """

    modules: tuple[str, ...]
    flow_shift: float
    picture_drop: float | None
    version: str
    architecture: str
    network: str


@dataclass(frozen=True)
class Family:
    """What every family has: one transformer, "dit", one autoencoder, "vae", and encoders of its own.

    ``encoders`` stand in the order in which they work, the largest first. ``reader`` makes what turns prompts into
    what the transformer takes; ``trained``: how its LoRAs are. ``enlarging`` are the models that enlarge clips, by
    name, where there are any.
    """

    components: Components
    transformer: Make
    autoencoder: Make
    encoders: tuple[TextEncoder, ...]
    reader: Callable[[Checkpoint], Any]
    trained: LoraTraining
    enlarging: Mapping[str, Make] = field(default_factory=dict)

    def models(self, configs: Mapping[str, Any], engine: Any) -> dict[str, Any]:
        """The models of these configurations, in the order in which they work.

        Without an engine, they only say what they need.
        """
        makes = {encoder.name: encoder.make for encoder in self.encoders}
        makes |= {"vae": self.autoencoder, "dit": self.transformer, **self.enlarging}
        return {name: make(engine, configs[name]) for name, make in makes.items() if name in configs}

    def present(self, checkpoint: Checkpoint) -> tuple[TextEncoder, ...]:
        """The encoders that a checkpoint has."""
        return tuple(encoder for encoder in self.encoders if encoder.name in checkpoint.configs)

    def shapes(self, checkpoint: Checkpoint) -> dict[str, Shapes]:
        """The models' own lists of names and shapes."""
        return {name: model.shapes() for name, model in self.models(checkpoint.configs, None).items()}
