"""A training run as a generator of events: everything checked, encoded once, then update after update."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import os
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import CheckpointError, InputError, NumericsError
from framewake.lasting import clear_abandoned
from framewake.models.dit import DiT
from framewake.pipeline.adapters import targets_for
from framewake.pipeline.checkpoint import check_whole
from framewake.pipeline.events import Note, Result
from framewake.pipeline.jobs import Job, Output, Plan, placed, plan_job, with_loras
from framewake.pipeline.origin import part_sources
from framewake.pipeline.precision import NO_BFLOAT16, Precision, choose_precision
from framewake.pipeline.run import Pipeline
from framewake.request import Request
from framewake.train.adapted import AdaptedLayers, Dressing
from framewake.train.batch import load_batch
from framewake.train.cache import Cache
from framewake.train.data import read_examples
from framewake.train.draws import batch_of
from framewake.train.encode import ExampleEncoder, Prepared
from framewake.train.events import Encoded, Sampled, Saved, Started, Trained, TrainingEvent, Update
from framewake.train.factors import chosen, start
from framewake.train.loss import FlowLoss
from framewake.train.optimiser import OptimiserState, learning_rate, norm_of, updated
from framewake.train.settings import Training, continued, training_from
from framewake.train.state import Run, load_run, save_run, saved_settings, state_path, unfit
from framewake.train.walk import Gradients, Walk
from framewake.train.writer import alpha_of, write_lora
from framewake.weights.checkpoint.load import Checkpoint

Events = Generator[TrainingEvent | Note, None, None]


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a run reads and writes: clips, the LoRA, and what was encoded (beside the clips by default)."""

    data: Path
    target: Path
    cache: Path | None = None


class Trainer:
    """A LoRA of a checkpoint, from a folder of clips.

    What a person did wrong is told by the constructor, before a framework starts; clips that cannot be used by the
    first event, before a model is loaded.
    """

    def __init__(self, checkpoint: Checkpoint, places: Places, given: Mapping[str, Any], *, resumes: bool) -> None:
        check_whole(checkpoint)
        self.checkpoint = checkpoint
        self.places = places
        self.resumes = resumes
        self._check_target()
        if resumes:
            stored, self.first = saved_settings(places.target)
            self.settings = continued(stored, given)
            if self.first >= self.settings.steps:
                raise InputError(f"{places.target} is trained to the end ({self.first} updates): ask for more --steps.")
        else:
            self.first, self.settings = 0, training_from(given)
        self.modules = chosen(targets_for(checkpoint.dit).tensors, self.settings.targets)
        self.examples = read_examples(places.data)
        self._sample = self._sample_plan()

    def run(self, engine: Engine) -> Events:
        """Train to the last update; closing the generator saves the run as it is.

        Raises: FramewakeError of any kind.
        """
        settings = self.settings
        precision = training_precision(settings.precision, engine)
        cache = Cache(self.places.cache or self.places.data / ".framewake")
        cache.prepare()
        clear_abandoned(self.places.target.parent)
        encoder = ExampleEncoder(self.checkpoint, settings, precision, engine.name)
        keys = [encoder.keys(example) for example in self.examples]
        missing = [key for key in keys if not encoder.is_there(cache, key)]
        encoder.check(missing)
        state, notes = self._begin(engine)
        yield from map(Note, notes)
        parameters = sum(settings.rank * (rows + columns) for rows, columns in self.modules.values())
        cached = len(keys) - len(missing)
        yield Started(len(keys), cached, len(self.modules), parameters, self.first, settings.steps)
        if missing:
            yield from encoder.encode(engine, cache, missing)
        clips = [encoder.prepared(cache, key) for key in keys]
        # The encoders' weights are gone by now: nothing refers to them any more.
        pipeline = Pipeline(self.checkpoint, engine)
        yield from _Loop(self, pipeline, self._walk(engine, precision), cache, clips).run(state)

    def _walk(self, engine: Engine, precision: Precision) -> Walk:
        settings, config = self.settings, self.checkpoint.dit
        guidance = self.checkpoint.settings.guidance if settings.guidance is None else settings.guidance
        loss = FlowLoss(engine, config, guidance=guidance, dtype=precision.transformer)
        model: Any = AdaptedLayers(engine)
        dressing = Dressing(engine, self.modules, settings.rank, alpha_of(settings))
        return Walk(DiT(model, config), loss, dressing)

    def save(self, engine: Engine, state: OptimiserState) -> None:
        """The LoRA and the state of an update."""
        target = self.places.target
        write_lora(target, state, self.settings, base=self.checkpoint.dit, name=self.checkpoint.settings.name)
        save_run(target, Run(state, self.settings, self.digest(), self.base(), engine.name))

    @functools.cache  # noqa: B019 - as long as the trainer lives
    def base(self) -> str:
        """What tells the transformer from others."""
        return part_sources(self.checkpoint)["the transformer"]

    def digest(self) -> str:
        """What tells these clips and captions from others."""
        facts = json.dumps([[example.digest, example.caption] for example in self.examples])
        return hashlib.sha256(facts.encode()).hexdigest()

    def sample(self, pipeline: Pipeline, step: int) -> Generator[Note | Sampled, None, None]:
        """A clip with the LoRA that was just saved, through the pipeline like any other."""
        if self._sample is None:
            return
        plan = placed(self._sample, self._sample_output(step), seed=self.settings.seed)
        for event in pipeline.run_all([with_loras(plan, (os.fspath(self.places.target),), self.checkpoint)]):
            if isinstance(event, Result) and event.path is not None:
                yield Sampled(step, event.path)
        # Neither its merged weights nor its placement is for training.
        pipeline.parts.placements = {}
        dtype = choose_precision(self.settings.precision, pipeline.engine).transformer
        pipeline.parts.adapted((), dtype)

    def _sample_plan(self) -> Plan | None:
        """Of a sample without its LoRA, which is still to be trained; None where none are asked for.

        Raises: InputError.
        """
        settings = self.settings
        if not settings.sample_prompt:
            return None
        request = Request(
            settings.sample_prompt,
            image=settings.sample_image,
            resolution=settings.resolution,
            frames=settings.frames,
            seed=settings.seed,
            precision=settings.precision,
        )
        return plan_job(Job(request, self._sample_output(0)), self.checkpoint)

    def _sample_output(self, step: int) -> Output:
        target = self.places.target
        return Output(target.with_name(f"{target.stem}-{step:06d}.mp4"), save_every=0)

    def _check_target(self) -> None:
        target = self.places.target
        if target.suffix != ".safetensors":
            raise InputError(f"{target}: the LoRA's file has to end in .safetensors.")
        if not target.parent.is_dir():
            raise InputError(f"{target.parent} is no folder: make it first, or name another place for the LoRA.")
        taken = [path for path in (target, state_path(target)) if path.exists()]
        if taken and not self.resumes:
            raise InputError(f"{taken[0]} exists: go on with it with --resume, or name another file.")

    def _begin(self, engine: Engine) -> tuple[OptimiserState, list[str]]:
        """The state to begin with, and what a person should know of it."""
        values = start(self.modules, self.settings.rank, self.settings.seed)
        if not self.resumes:
            first, second = ({name: np.zeros_like(x) for name, x in values.items()} for _ in range(2))
            return OptimiserState(0, values, first, second), []
        run = load_run(self.places.target)
        if run.data != self.digest():
            raise InputError(
                f"the clips or captions in {self.places.data} are not those that the run began with: put them back, "
                "or train a new file."
            )
        if run.base != self.base():
            raise CheckpointError(
                f"{state_path(self.places.target)} was trained on another checkpoint than {self.checkpoint.folder}: "
                "name the one that it began with, or train a new file."
            )
        if {name: tuple(x.shape) for name, x in run.state.factors.items()} != {n: x.shape for n, x in values.items()}:
            raise unfit(self.places.target)
        if run.engine != engine.name:
            return run.state, [f"the first {run.state.step} updates were made on {run.engine}."]
        return run.state, []


def training_precision(name: str, engine: Engine) -> Precision:
    """The precision of a name, for training.

    Raises: InputError for a type that the engine has no matrix product in; float16, which a clip could take in its
    place, is no way out here.
    """
    if name == "bfloat16" and name not in engine.traits.products:
        raise InputError(f"{NO_BFLOAT16}: train with --precision float32, or with --engine torch:cpu.")
    return choose_precision(name, engine)


class _Loop:
    """Update after update."""

    def __init__(self, trainer: Trainer, pipeline: Pipeline, walk: Walk, cache: Cache, clips: list[Prepared]) -> None:
        self.trainer, self.pipeline, self.cache, self.clips = trainer, pipeline, cache, clips
        self.settings: Training = trainer.settings
        self.engine = pipeline.engine
        self.walk = walk
        self.dtype = choose_precision(self.settings.precision, self.engine).transformer

    def run(self, state: OptimiserState) -> Events:
        """To the last update; the run is saved on the way and however it ends."""
        settings, begin, before = self.settings, time.perf_counter(), time.perf_counter()
        first = saved = state.step
        recent: list[float] = []
        try:
            while state.step < settings.steps:
                state, loss, norm = self._update(state)
                recent = [*recent, loss][-max(settings.steps // 10, 1) :]
                now = time.perf_counter()
                left = (now - begin) / (state.step - first) * (settings.steps - state.step)
                rate = learning_rate(settings, state.step)
                yield Update(state.step, settings.steps, loss, norm, rate, now - before, left)
                before = now
                is_sampled = bool(settings.sample_every) and state.step % settings.sample_every == 0
                if state.step % settings.save_every == 0 or is_sampled or state.step == settings.steps:
                    self.trainer.save(self.engine, state)
                    saved = state.step
                    yield Saved(state.step, self.trainer.places.target)
                if is_sampled:
                    yield from self.trainer.sample(self.pipeline, state.step)
                    before = time.perf_counter()
        finally:
            if saved < state.step:
                self.trainer.save(self.engine, state)
        mean = sum(recent) / len(recent)
        yield Trained(self.trainer.places.target, state.step, mean, time.perf_counter() - begin)

    def _update(self, state: OptimiserState) -> tuple[OptimiserState, float, float]:
        """One update: the next state, its loss, and the norm of its gradient.

        Raises: NumericsError for NaN and infinity.
        """
        engine, settings = self.engine, self.settings
        # Asked for anew each time: a sample clip may have let it go.
        store = self.pipeline.parts.get("dit", self.dtype).weights
        total: Gradients = {}
        losses = []
        for part in range(settings.accumulation):
            number = state.step * settings.accumulation + part
            sizes = [clip.latent for clip in self.clips]
            indices = batch_of(sizes, settings.batch, seed=settings.seed, number=number)
            batch = load_batch(engine, self.cache, [self.clips[i] for i in indices], settings, number=number)
            loss, gradients = self.walk(state.factors, store, batch)
            losses.append(loss)
            share = np.float32(1 / settings.accumulation)
            total = {n: g * share + total[n] if total else g * share for n, g in gradients.items()}
        norm = norm_of(engine, total)
        mean = sum(losses) / len(losses)
        if not (math.isfinite(mean) and math.isfinite(norm)):
            raise NumericsError(
                f"the loss is {mean} and the gradient's norm {norm} at update {state.step + 1}: try a smaller --lr, "
                "or --precision float32. The update before is saved."
            )
        rate = learning_rate(settings, state.step + 1)
        after = updated(engine, state, total, norm=norm, rate=rate, weight_decay=settings.weight_decay)
        return after, mean, norm


__all__ = ["Encoded", "Places", "Trainer"]
