"""A training run as a generator of events: everything checked, encoded once, then update after update."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import CheckpointError, InputError
from framewake.lasting import clear_abandoned
from framewake.media.framing import FRAMES
from framewake.pipeline.adapters import targets_of
from framewake.pipeline.checkpoint import check_whole
from framewake.pipeline.events import Note
from framewake.pipeline.forecast import Placement, ProbedParts, gib, largest_file, measured_rates
from framewake.pipeline.forecast.place import memory_told
from framewake.pipeline.hunyuan import family_of
from framewake.pipeline.jobs import latent_of
from framewake.pipeline.origin import part_sources
from framewake.pipeline.precision import NO_BFLOAT16, Precision, choose_precision
from framewake.pipeline.run import Pipeline
from framewake.shapes import LatentShape, PixelShape, base_px
from framewake.train.about import Used
from framewake.train.adapted import AdaptedLayers, Dressing
from framewake.train.board import board_folder
from framewake.train.data import Example
from framewake.train.dataset import gathered
from framewake.train.draws import Sized, batch_count
from framewake.train.encode import ExampleEncoder, Prepared
from framewake.train.events import Encoded, Started
from framewake.train.factors import chosen, start
from framewake.train.forecast import Clips, Planner, Way, work_of
from framewake.train.loop import Events, Feed, Loop
from framewake.train.loss import FlowLoss
from framewake.train.optimiser import OptimiserState
from framewake.train.results import Results
from framewake.train.samples import sample_plans
from framewake.train.settings import FREE, Training, continued, training_from, training_settings
from framewake.train.share import Alone, TrainingShare
from framewake.train.state import Run, load_run, other_clips, saved_settings, state_path, unfit
from framewake.train.use import Use
from framewake.train.validation import HeldOut, parted
from framewake.train.walk import Walk
from framewake.train.writer import alpha_of
from framewake.weights.checkpoint.load import Checkpoint


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
        check_trainable(checkpoint)
        self.checkpoint = checkpoint
        self.family = family_of(checkpoint)
        self.framed = FRAMES[checkpoint.dit.framing]
        self.places = places
        self.resumes = resumes
        self._check_target()
        if resumes:
            stored, self.first = saved_settings(places.target)
            self.settings = continued(stored, given)
            if self.first >= self.settings.steps:
                raise InputError(f"{places.target} is trained to the end ({self.first} updates): ask for more --steps.")
        else:
            self.first, self.settings = 0, training_from(own_settings(checkpoint, given) | dict(given))
        if self.settings.tensorboard is not None:
            board_folder(Path(self.settings.tensorboard), places.target)
        self.modules = chosen(
            targets_of(checkpoint).tensors, self.family.trained.modules, patterns=self.settings.targets
        )
        self._check_described(given)
        takes_pictures = not checkpoint.dit.needs_picture
        data = gathered(places.data, self._use(), places.cache, takes_pictures=takes_pictures)
        self.cache, self.notes = data.cache, data.notes

        def read(place: Path) -> list[Example]:
            return gathered(place, self._use(), self.cache.folder, takes_pictures=takes_pictures).examples

        too_few = other_clips(places.data) if resumes else None  # it began with more
        self.examples, self.held = parted(data.examples, self.settings, read, too_few=too_few)
        self.samples = sample_plans(self.settings, places.target, checkpoint)

    def run(
        self, engine: Engine, *, memory: int | None = None, clock: Callable[[], float] = time.perf_counter
    ) -> Events:
        """Train to the last update; closing the generator saves the run as it is.

        ``memory`` is how many bytes the process may use on the device, everything that is free when it is None.
        Raises: FramewakeError of any kind.
        """
        with contextlib.closing(TrainingShare(engine)) as share:
            alone: Any = Alone(engine)
            yield from self._run(engine if share.size == 1 else alone, share, memory=memory, clock=clock)

    def _run(self, engine: Engine, share: TrainingShare, *, memory: int | None, clock: Callable[[], float]) -> Events:
        settings = self.settings
        if not engine.traits.has_gradients:
            raise InputError(f"{engine.name} has no gradients: train without +fp8; files in eight bits are fine.")
        precision = training_precision(settings.precision, engine)
        engine.make_deterministic()
        cache = self.cache
        if share.leads:
            clear_abandoned(self.places.target.parent)
        encoder = ExampleEncoder(self.checkpoint, settings, precision, engine.name)
        keys = [encoder.keys(example) for example in self.examples]
        held = [encoder.keys(example, is_held=True) for example in self.held]
        keys += held
        missing = [key for key in keys if not encoder.is_there(cache, key)]
        begun = self._begin(engine, share.size)
        pipeline = Pipeline(self.checkpoint, engine, memory=memory)
        way, forecast = self._way(pipeline, precision, begun, tells=share.leads)
        if missing:
            forecast += f"; encoding clips takes {gib(encoder.autoencoder(pipeline, missing).peak)}"
        yield from map(Note, [*self.notes, *self._changes(begun, engine, way, share.size)])
        counts = (len(keys), len(keys) - len(missing), len(self.modules), self._trained())
        yield Started(*counts, self.first, settings.steps, forecast, len(held))
        if missing or share.size > 1:
            with memory_told(engine, "encode"):
                own = [key for key in share.of(keys) if not encoder.is_there(cache, key)]
                yield from encoder.encode(engine, cache, own, memory=memory)
        share.begin()
        share.compare(self._told(begun, precision))
        examples = [
            encoder.prepared(cache, key) for key in keys[: len(self.examples)] for _ in range(key.example.repeats)
        ]
        left_out = [HeldOut(encoder.prepared(cache, key), key.example.digest) for key in held]
        # The encoders' weights are gone by now: nothing refers to them any more.
        begun = Run(begun.state, settings, begun.data, begun.base, engine.name, way.recomputes, share.size)
        used = self._used(examples, precision, share.size)
        results = Results(self.places.target, self.checkpoint, begun, used, samples=self.samples)
        results.placements["dit"] = Placement(way.is_streamed, None, way.device, 0, "training")
        pipeline.parts.placements = results.placements
        feed = Feed(cache, examples, precision.transformer, left_out, share)
        loop = Loop(settings, pipeline, self._walk(engine, precision, way), feed, results, clock=clock)
        with memory_told(engine, "train"):
            if share.leads:
                yield from loop.run(begun.state)
            else:
                loop.follow(begun.state)

    def _trained(self) -> int:
        return sum(self.settings.rank * (rows + columns) for rows, columns in self.modules.values())

    def _way(self, pipeline: Pipeline, precision: Precision, begun: Run, *, tells: bool) -> tuple[Way, str]:
        """How updates are made, and the forecast in a sentence; nothing is loaded.

        Raises: ResourceError when nothing fits.
        """
        settings, checkpoint, parts = self.settings, self.checkpoint, pipeline.parts
        dtype, text = precision.transformer, pipeline.reader.limit().kept
        shapes = [(latent_of(PixelShape(x.frames, *x.size), checkpoint), x.batch) for x in (*self.examples, *self.held)]
        latent, batch = max(shapes, key=lambda each: math.prod(each[0]) * each[1])
        facts = {"text": text, "trained": self._trained(), "dtype": dtype, "accumulates": settings.accumulation > 1}
        work = work_of(parts, latent, batch=batch, **facts)
        frames, *size = self._pixels(latent)
        sides, bucket = checkpoint.settings.resolutions, self.framed.bucket
        clips = Clips(latent, frames, (size[0], size[1]), settings.resolution, sides, bucket)
        planner = Planner(pipeline.engine, work, clips, rank=settings.rank)
        # The forecast counts factors and states, and on a host they are there already.
        room = parts.room() + (begun.state.nbytes() if pipeline.engine.traits.is_host else 0)
        way = planner.way(room, recomputes=begun.recomputes if self.first else None)
        if not tells:
            return way, ""
        # Behind the first look, which refuses what cannot fit: measuring takes seconds, and memory.
        makes = (self.family.transformer, self.family.autoencoder)
        probed = ProbedParts((checkpoint.dit, checkpoint.vae), (dtype, precision.vae), makes)
        file = largest_file(checkpoint.layout.weights["dit"][0])
        return way, planner.said(way, room, measured_rates(pipeline.engine, dtype, file, parts=probed))

    def _told(self, begun: Run, precision: Precision) -> str:
        """What tells this run's updates from those of others."""
        settings = {n: x for n, x in dataclasses.asdict(self.settings).items() if n not in FREE or n == "steps"}
        factors = hashlib.sha256()
        for name in sorted(begun.state.factors):
            factors.update(begun.state.factors[name].tobytes())
        facts = [settings, self.digest(), self.base(), precision.name, begun.state.step, factors.hexdigest()]
        return json.dumps(facts)

    def _guidance(self) -> float:
        own = self.settings.guidance
        return self.checkpoint.settings.guidance if own is None else own

    def _used(self, clips: list[Prepared], precision: Precision, devices: int) -> Used:
        latents = [LatentShape(*clip.latent) for clip in clips]
        sizes = [self._pixels(latent) for latent in latents]
        batches = batch_count([Sized(clip.latent, clip.batch) for clip in clips])
        most = max(clip.batch for clip in clips)
        return Used(
            self.checkpoint.settings.name,
            self.family.trained,
            precision.transformer,
            self._guidance() if self.checkpoint.dit.has_guidance else None,
            sizes,
            batches,
            most,
            devices,
        )

    def _pixels(self, latent: LatentShape) -> tuple[int, int, int]:
        """Frames, height and width of a clip."""
        vae = self.checkpoint.vae
        scale = vae.spatial_compression
        return (latent.frames - 1) * vae.temporal_compression + 1, latent.height * scale, latent.width * scale

    def _walk(self, engine: Engine, precision: Precision, way: Way) -> Walk:
        settings, config = self.settings, self.checkpoint.dit
        loss = FlowLoss(engine, config, guidance=self._guidance(), dtype=precision.transformer)
        model: Any = AdaptedLayers(engine)
        dressing = Dressing(engine, self.modules, settings.rank, alpha_of(settings))
        transformer = self.family.transformer(model, config)
        return Walk(transformer, loss, dressing, manner=way.manner, keeps_on_host=way.keeps_on_host)

    @functools.cache  # noqa: B019 - as long as the trainer lives
    def base(self) -> str:
        """What tells the transformer from others."""
        return part_sources(self.checkpoint)["the transformer"]

    def digest(self) -> str:
        """What tells these clips and captions from others."""
        facts = json.dumps([example[1:] for example in self.examples])
        return hashlib.sha256(facts.encode()).hexdigest()

    def _use(self) -> Use:
        """How the clips of a folder are used.

        Raises: InputError for single frames, where the first one is given to the model.
        """
        settings, checkpoint = self.settings, self.checkpoint
        frames, takes_pictures = settings.frames or checkpoint.settings.frames, not checkpoint.dit.needs_picture
        if frames < 5 and not takes_pictures:
            raise InputError(f"--frames is {frames}: the first frame is given, so at least 5 count.")
        base = base_px(settings.resolution, checkpoint.settings.resolutions)
        size = functools.partial(self.framed.bucket, base)
        return Use((frames,), size, batch=settings.batch, takes_pictures=takes_pictures and frames == 1)

    def _check_described(self, given: Mapping[str, Any]) -> None:
        """A file says itself what options say for a folder."""
        told = [training_settings()[name].flag for name in ("frames", "resolution", "batch") if given.get(name)]
        if told and self.places.data.suffix.lower() == ".toml":
            raise InputError(f"{self.places.data} says what {told[0]} would: leave it out, or change the file.")

    def _check_target(self) -> None:
        target = self.places.target
        if target.suffix != ".safetensors":
            raise InputError(f"{target}: the LoRA's file has to end in .safetensors.")
        if not target.parent.is_dir():
            raise InputError(f"{target.parent} is no folder: make it first, or name another place for the LoRA.")
        if self.resumes:
            return
        if state_path(target).exists():
            raise InputError(f"{target} was begun: go on with it with --resume, or name another file.")
        if target.exists():
            raise InputError(f"{target} exists: name another file, or take this one away.")

    def _begin(self, engine: Engine, devices: int) -> Run:
        """The run to go on with, or a new one."""
        values = start(self.modules, self.settings.rank, self.settings.seed)
        if not self.resumes:
            first, second = ({name: np.zeros_like(x) for name, x in values.items()} for _ in range(2))
            state = OptimiserState(0, values, first, second)
            return Run(state, self.settings, self.digest(), self.base(), engine.name, False, devices)
        run = load_run(self.places.target)
        if run.data != self.digest():
            raise other_clips(self.places.data)
        if run.base != self.base():
            raise CheckpointError(
                f"{state_path(self.places.target)} was trained on another checkpoint than {self.checkpoint.folder}: "
                "name the one that it began with, or train a new file."
            )
        if {name: tuple(x.shape) for name, x in run.state.factors.items()} != {n: x.shape for n, x in values.items()}:
            raise unfit(self.places.target)
        return run

    def _changes(self, begun: Run, engine: Engine, way: Way, devices: int) -> list[str]:
        """What makes a run that goes on another one than in one go."""
        found = []
        if begun.engine != engine.name:
            found.append(f"the first {begun.state.step} updates were made on {begun.engine}.")
        if self.first and begun.recomputes != way.recomputes:
            found.append(f"the first {begun.state.step} updates had other memory: the file is as good, not the same.")
        if self.first and begun.devices != devices:
            found.append(f"the first {begun.state.step} updates were made by {begun.devices} devices, not {devices}.")
        return found


def check_trainable(checkpoint: Checkpoint) -> None:
    """Refuse a transformer that was distilled to whole steps, which the loss does not teach, and sparse attention.

    Raises: InputError.
    """
    if checkpoint.dit.has_next_timestep or checkpoint.dit.most_seen is not None:
        raise InputError(
            f"no LoRA is trained on {checkpoint.settings.name}: train on a variant that is neither step-distilled nor "
            "sparse, such as 480p_i2v or 720p_i2v. Its LoRAs go on this one too."
        )


def own_settings(checkpoint: Checkpoint, given: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint's training does where nobody says otherwise.

    Raises: InputError for given settings that mean nothing to it.
    """
    trained, resolutions = family_of(checkpoint).trained, checkpoint.settings.resolutions
    if given.get("picture_drop") and trained.picture_drop is None:
        raise InputError("--drop-picture: this model is never without its picture, so leave it out.")
    if given.get("guidance") is not None and not checkpoint.dit.has_guidance:
        raise InputError("--embedded-guidance: this transformer is told no guidance, so leave it out.")
    usual = Training.resolution
    return {
        "flow_shift": trained.flow_shift,
        "picture_drop": trained.picture_drop or 0.0,
        "resolution": usual if usual in resolutions else next(iter(resolutions)),
    }


def training_precision(name: str, engine: Engine) -> Precision:
    """The precision of a name, for training.

    Raises: InputError for a type that the engine has no matrix product in; float16, which a clip could take in its
    place, is no way out here.
    """
    if name == "bfloat16" and name not in engine.traits.products:
        raise InputError(f"{NO_BFLOAT16}: train with --precision float32, or with --engine torch:cpu.")
    return choose_precision(name, engine)


__all__ = ["Encoded", "Places", "Trainer"]
