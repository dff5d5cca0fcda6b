"""What a worker's device is like, reported through the database: the server forecasts without a framework."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from framewake.engine.traits import Traits
from framewake.pipeline.forecast import (
    Forecast,
    Links,
    ProbedParts,
    Setup,
    forecast,
    known_links,
    largest_file,
    measured_rates,
    rates_from_plain,
    rates_to_plain,
)
from framewake.pipeline.hunyuan import family_of
from framewake.pipeline.jobs import Plan
from framewake.pipeline.precision import choose_precision
from framewake.pipeline.run import Pipeline
from framewake.text.crop import TextLength
from framewake.weights.checkpoint.load import Checkpoint


class Device:
    """Stands where a forecast wants an engine: it knows its name and its memory, and cannot compute."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.name: str = facts["name"]
        self.reason: str = facts["reason"]
        self.attention_reason: str = facts["attention"]
        self.traits = Traits.from_plain(facts["traits"])
        self._memory: dict[str, int] = facts["memory"]

    def memory(self) -> dict[str, int]:
        """Bytes when the worker began, before it had loaded anything."""
        return self._memory


def device_facts(pipeline: Pipeline) -> dict[str, Any]:
    """What a worker tells. The speed is measured when it is not known yet, which takes a few seconds."""
    engine = pipeline.engine
    precision, checkpoint = choose_precision("auto", engine), pipeline.checkpoint
    family = family_of(checkpoint)
    makes = family.transformer, family.autoencoder
    parts = ProbedParts((checkpoint.dit, checkpoint.vae), (precision.transformer, precision.vae), makes)
    weights = largest_file(checkpoint.layout.weights["dit"][0])
    return {
        "name": engine.name,
        "reason": engine.reason,
        "attention": engine.attention_reason,
        "traits": engine.traits.to_plain(),
        "memory": {name: int(value) for name, value in engine.memory().items()},
        "devices": pipeline.parts.devices,
        "links": known_links(engine, pipeline.parts.devices),
        "room": pipeline.parts.room(),
        "keeps_all": pipeline.parts.keeps_all,
        "text": pipeline.reader.limit(),
        "rates": rates_to_plain(measured_rates(engine, precision.transformer, weights, parts=parts)),
    }


class Forecaster:
    """What a plan would take on a device that another process has."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint

    def forecast(self, plan: Plan, facts: Mapping[str, Any]) -> Forecast:
        """Memory and time.

        Raises: InputError for a precision that the device cannot do, ResourceError when the plan cannot fit.
        """
        engine: Any = Device(facts)
        family = family_of(self.checkpoint)
        models = family.models(self.checkpoint.configs, engine)
        precision = choose_precision(plan.request.precision, engine)
        devices = facts.get("devices", 1)  # an older worker on another machine says nothing of them
        links = Links(*facts["links"]) if facts.get("links") else None
        setup = Setup(engine, self.checkpoint, family, models, precision, TextLength(*facts["text"]), devices, links)
        rates = rates_from_plain(facts["rates"])
        return forecast(setup, plan, room=facts["room"], keeps_all=facts["keeps_all"], rates=rates)
