"""The pipeline: requests become events, and each ends in a clip."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from framewake import engine as engines
from framewake.engine.contract import Engine
from framewake.errors import InputError, ResourceError
from framewake.media.metadata import video_metadata
from framewake.media.output import check_output
from framewake.pipeline import finish
from framewake.pipeline.checkpoint import check_parts, find_checkpoint
from framewake.pipeline.denoise import followed_steps
from framewake.pipeline.drafting import Course, denoise_with_drafts, steps_told
from framewake.pipeline.encoding import Images, Texts, encode_picture, encode_text
from framewake.pipeline.enlarging import course_of, enlarge
from framewake.pipeline.events import Cached, Event, Note, Result, Stage, StageFinished, StageStarted
from framewake.pipeline.family import Family
from framewake.pipeline.forecast import (
    Forecast,
    ProbedParts,
    Setup,
    forecast,
    known_links,
    largest_file,
    measured_rates,
)
from framewake.pipeline.forecast.choose import placements
from framewake.pipeline.forecast.place import memory_told, said, shortage
from framewake.pipeline.forecast.setup import scene_of
from framewake.pipeline.group import division_of, follow, join_in
from framewake.pipeline.hunyuan import family_of
from framewake.pipeline.jobs import Job, Output, Plan, count_steps, placed, plan_job
from framewake.pipeline.latents import Keeper, SavedLatents, latents_path
from framewake.pipeline.notes import notes_of
from framewake.pipeline.origin import (
    UNFIT,
    check_fit,
    check_sources,
    clip_sources,
    differences,
    origin_of,
    own_request,
    part_sources,
    take_kernels,
)
from framewake.pipeline.parts import Parts
from framewake.pipeline.precision import Precision, choose_precision
from framewake.pipeline.preview import Preview
from framewake.pipeline.velocity import Condition
from framewake.request import Request, Settled
from framewake.shapes import LatentShape, PixelShape
from framewake.weights.checkpoint.component import LARGER_DIT
from framewake.weights.checkpoint.load import Checkpoint, open_checkpoint

Timings = dict[str, float]
Events = Generator[Event, None, None]


@dataclasses.dataclass
class Making:
    """What is known of one clip so far."""

    plan: Plan
    precision: Precision
    timings: Timings
    start: SavedLatents | None = None


class Finished(NamedTuple):
    """A clip that only has to be decoded and written. Shapes: latents float32 (1, C, F, H, W)."""

    request: Settled
    output: Output | None
    latents: np.ndarray
    metadata: Mapping[str, Any]
    cached: Cached | None = None


class Pipeline:
    """A checkpoint on an engine. Weights are read when the first run asks for them.

    Of several processes that share clips (``engine.join``), each makes one of the same checkpoint. The first runs it as
    if it were alone and closes it at the end; the others ``follow``.
    """

    def __init__(
        self, checkpoint: Checkpoint, engine: Engine, *, memory: int | None = None, family: Family | None = None
    ) -> None:
        self.checkpoint = checkpoint
        self.engine = engine
        self.family = family or family_of(checkpoint)
        self.parts = Parts(checkpoint, engine, self.family, memory=memory)
        self.reader = self.family.reader(checkpoint)
        self._link = join_in(self.parts)
        self._sources: dict[str, str] | None = None

    @classmethod
    def load(
        cls, checkpoint: str | os.PathLike[str] = "demo", *, engine: str | Engine = "auto", memory: int | None = None
    ) -> Pipeline:
        """A pipeline for a checkpoint folder; "demo" is the embedded one.

        ``memory`` is how many bytes the process may use on the device, everything that is free when it is None.
        Raises: CheckpointError, EngineError.
        """
        opened = open_checkpoint(find_checkpoint(os.fspath(checkpoint)))
        return cls(opened, engines.get(engine) if isinstance(engine, str) else engine, memory=memory)

    def follow(self) -> None:
        """In a process that is not the first: do its share of every clip, until the first one closes its pipeline.

        Raises: PeerError when the first process has ended, or another one in a step; whatever the work raises.
        """
        follow(self.parts, self._link, {"denoise": followed_steps, "decode": finish.followed_tiles})

    def close(self) -> None:
        """Send the processes home that follow this one."""
        self.parts.lead.close()

    def plan(self, job: Job | Plan) -> Plan:
        """Every choice of a job, made and checked without loading a model; a plan is that already.

        Raises: InputError, CheckpointError, ResourceError.
        """
        check_parts(self.checkpoint, self.family)
        plan = job if isinstance(job, Plan) else plan_job(job, self.checkpoint)
        if plan.request.rng == "torch" and not self.engine.traits.draws_as_torch:
            raise InputError(f"rng is 'torch' but the engine is {self.engine.name}: use philox, or a torch engine.")
        division_of(self.parts, plan)
        return plan

    def forecast(self, job: Job | Plan, *, is_timed: bool = True) -> Forecast:
        """What a job will take, and where its weights will be; nothing is loaded.

        ``is_timed``: the device's speed is looked up, and measured when it is not known yet.
        Raises: InputError, and ResourceError when the job cannot fit.
        """
        plan = self.plan(job)
        precision = choose_precision(plan.request.precision, self.engine)
        return self._forecast(plan, precision, is_timed=is_timed)

    def _forecast(self, plan: Plan, precision: Precision, *, is_timed: bool) -> Forecast:
        parts, dtype = self.parts, precision.transformer
        file = self.checkpoint.layout.weights["dit"][0]
        setup = self._setup(precision)
        room = parts.room() + parts.held_bytes()
        found = forecast(setup, plan, room=room, keeps_all=parts.keeps_all)
        if not is_timed:
            return found
        # Behind the first look, which refuses what cannot fit: measuring takes seconds, and memory.
        makes = self.family.transformer, self.family.autoencoder
        probed = ProbedParts((self.checkpoint.dit, self.checkpoint.vae), (dtype, precision.vae), makes)
        rates = measured_rates(self.engine, dtype, largest_file(file), parts=probed)
        text = self.reader.lengths(plan.request.prompt)
        if parts.devices > 1:
            setup = setup._replace(links=known_links(self.engine, parts.devices))
        return forecast(setup, plan, room=room, keeps_all=parts.keeps_all, rates=rates, text=text)

    def _setup(self, precision: Precision) -> Setup:
        parts, limit = self.parts, self.reader.limit()
        return Setup(self.engine, self.checkpoint, self.family, parts.models, precision, limit, parts.devices)

    def run(self, request: Request, output: Output | str | os.PathLike[str] | None = None) -> Events:
        """Make one clip, told as events; closing the iterator stops the work within a step.

        Raises: FramewakeError of any kind, when the first event is asked for or later.
        """
        if isinstance(output, str | os.PathLike):
            output = Output(Path(output))
        return self.run_all([Job(request, output)])

    def run_all(self, jobs: Sequence[Job | Plan]) -> Events:
        """Make clips one after another, each part loaded once: all texts are encoded first.

        All jobs are checked before any work starts.
        """
        clips = []
        for job in jobs:
            plan = self.plan(job)
            clips.append(Making(plan, choose_precision(plan.request.precision, self.engine), {}))
        is_roomy = yield from self._place(clips)
        yield from self._run(clips, is_roomy=is_roomy)

    def _place(self, clips: Sequence[Making]) -> Generator[Note, None, bool]:
        """Decide where the weights go, before any are loaded; told where that is not as usual.

        The generator's value: whether the transformer's weights may stay while a clip is decoded.
        Raises: ResourceError when a clip cannot fit.
        """
        if not clips:
            return True
        # The weights stay where they are for all clips, so the largest clip decides.
        largest = max(clips, key=lambda clip: math.prod(clip.plan.made) * (1 + (clip.plan.request.guidance_scale > 1)))
        found = self._forecast(largest.plan, largest.precision, is_timed=False)
        self.parts.placements = found.placements
        yield from map(Note, found.notes)
        return self.parts.keeps_all or has_room_for_both(found)

    def _place_decoding(self, done: Finished, precision: Precision) -> Iterator[Note]:
        """The same for latents that only have to be decoded: nothing but the autoencoder is needed.

        Raises: ResourceError when it cannot fit, InputError for latents of an impossible size.
        """
        self.checkpoint.check("vae", self.parts.models["vae"].shapes())
        config, latent = self.checkpoint.vae, LatentShape(*done.latents.shape[1:])
        if done.latents.size == 0 or done.latents.shape[0] != 1:
            raise InputError(f"the saved latents are of size {done.latents.shape}, which is no clip: start anew.")
        frames = (latent.frames - 1) * config.temporal_compression + 1
        sides = latent.height * config.spatial_compression, latent.width * config.spatial_compression
        if frames != done.request.frames or list(sides[::-1]) != done.metadata.get("size"):
            raise InputError(UNFIT)
        plan = Plan(done.request, done.output, PixelShape(frames, *sides), latent)
        setup = self._setup(precision)
        room = self.parts.room() + self.parts.held_bytes()
        place = placements(setup, plan, scene_of(setup, plan), room)["vae"]
        if place.peak > room:
            raise ResourceError(
                f"{shortage(self.engine, place, room=room)} Nothing is lost: free some memory, or take another device.",
                bytes_needed=place.peak,
                bytes_free=room,
            )
        self.parts.placements = {"vae": place}
        if place.slab_numbers or place.is_streamed:
            yield Note(said(place))

    def _run(self, clips: Sequence[Making], *, is_roomy: bool) -> Iterator[Event]:
        shared: Timings = {}
        try:
            yield from self._staged("read image", shared, self._read(clips))
            texts = yield from self._staged("encode text", shared, self._encode_text(clips))
            self.parts.release(*(encoder.name for encoder in self.family.encoders))
            for clip in clips:
                clip.timings.update({stage: seconds / len(clips) for stage, seconds in shared.items()})
            for index, clip in enumerate(clips):
                text = texts.pop(0)  # let go of when its clip is made
                yield from self._make(clip, text, is_roomy=is_roomy, is_last=index == len(clips) - 1)
        finally:
            # However it ended: the next run's forecast takes nothing to be there that it does not use.
            self.parts.release(*self.parts.held())

    def resume(
        self,
        saved: SavedLatents,
        output: Output | None = None,
        *,
        request: Request | None = None,
        plan: Plan | None = None,
    ) -> Events:
        """Make the clip of latents that an earlier run has saved, from the step where it stopped.

        ``request``: what is asked for, where that is known apart from the latents, and ``plan`` what has become of it.
        Raises: InputError when they come from another checkpoint, picture or request, or do not fit their own settings.
        """
        own = own_request(saved, self.checkpoint, self._part_sources(), asked=request)
        if output is not None:
            check_output(output.path, fps=own.fps)
        precision = choose_precision(own.precision, self.engine)
        take_kernels(self.engine, saved.origin)
        changed = differences(saved.origin, origin_of(self.engine))
        if changed:
            yield Note(
                f"what was saved was made elsewhere ({'; '.join(changed)}): the clip is as good, but not the same to "
                "the last bit as one made in one go."
            )
        if saved.step < count_steps(own, self.checkpoint):
            kept = None if plan is None else placed(dataclasses.replace(plan, request=own), output, seed=own.seed)
            plan = self.plan(kept or Job(own, output))
            check_sources(saved.sources, self._sources_of(plan))
            check_fit(saved, plan)
            clip = Making(plan, precision, {}, start=saved)
            is_roomy = yield from self._place([clip])
            yield from self._run([clip], is_roomy=is_roomy)
            return
        done = Finished(own, output, saved.latents, saved.metadata)
        yield from self._place_decoding(done, precision)
        try:
            yield from self._finish(done, precision, {})
        finally:
            self.parts.release(*self.parts.held())

    def _sources_of(self, plan: Plan) -> dict[str, str]:
        return clip_sources(plan, self.checkpoint, self._part_sources())

    def _part_sources(self) -> dict[str, str]:
        """Digests of the checkpoint's parts, taken once: a run's weights stay those of its beginning."""
        if self._sources is None:
            self._sources = part_sources(self.checkpoint)
        return self._sources

    # --- stages

    def _read(self, clips: Sequence[Making]) -> Generator[Event, None, None]:
        for clip in clips:
            picture = clip.plan.picture
            yield from map(Note, notes_of(clip.plan.request, None if picture is None else picture.small, self.reader))

    def _encode_text(self, clips: Sequence[Making]) -> Generator[Event, None, list[Texts]]:
        yield from ()
        return [encode_text(self.parts, self.reader, clip.plan, clip.precision) for clip in clips]

    def _make(self, clip: Making, texts: Texts, *, is_roomy: bool, is_last: bool) -> Iterator[Event]:
        plan, timings, start = clip.plan, clip.timings, clip.start
        images, preview = yield from self._staged("encode image", timings, self._encode_image(clip))
        request = dataclasses.replace(plan.request, precision=clip.precision.name)
        metadata, cached = self._metadata(clip, request), None
        keeper = None
        if plan.output is not None:
            path, every = latents_path(plan.output.path), plan.output.save_every
            keeper = Keeper(path, metadata, self._sources_of(plan), origin_of(self.engine), every)
            keeper.step = 0 if start is None else start.step
        course = Course(plan, clip.precision, Condition(texts.own, images.own), preview, keeper)
        latents = None if start is None else start.smaller(plan.request.steps)
        if latents is None:
            steps = denoise_with_drafts(self.parts, course, start=start, keeps_transformer=is_roomy)
            (latents, cached, *_), draft = yield from self._staged("denoise", timings, steps)
            if not is_roomy or is_last or plan.larger is not None:
                self.parts.release("dit")
            if draft is not None:
                yield draft
                return
        saved = None if keeper is None or not keeper.path.is_file() else keeper.path
        with finish.told_where(keeper, plan.output):
            if plan.larger is not None:
                assert texts.larger is not None  # encoded for this
                further = course_of(course, plan.larger, texts.larger, images.larger, latents)
                begun = None if start is None else start.larger(plan.request.steps)
                work = enlarge(self.parts, further, latents, begun)
                latents = yield from self._staged("enlarge", timings, work)
                self.parts.release(LARGER_DIT)
            done = Finished(request, plan.output, latents, metadata | steps_told(cached), cached)
            yield from self._finish(done, clip.precision, timings, saved=saved)

    def _encode_image(self, clip: Making) -> Generator[Event, None, tuple[Images, Preview]]:
        yield from ()
        return encode_picture(self.parts, clip.plan, clip.precision)

    def _finish(
        self, done: Finished, precision: Precision, timings: Timings, *, saved: Path | None = None
    ) -> Iterator[Event]:
        decoding = finish.decode(self.parts, done.latents, done.request, precision)
        frames = yield from self._staged("decode", timings, decoding)
        path = None
        if done.output is not None:
            writing = finish.write(done.output, frames, done.request, done.metadata)
            path = yield from self._staged("write", timings, writing)
        if saved is not None:
            saved.unlink(missing_ok=True)
        yield Result(frames, path, done.request.seed, timings, done.metadata, done.cached)

    def _metadata(self, clip: Making, request: Settled) -> dict[str, Any]:
        """What a clip says about its own making."""
        name, shape, output = self.checkpoint.settings.name, clip.plan.made, clip.plan.output
        if output is not None and output.picture_name is not None and request.image is not None:
            request = dataclasses.replace(request, image=output.picture_name)
        metadata = video_metadata(request, checkpoint=name, engine=self.engine.name, shape=shape)
        if clip.start is not None and "steps" in clip.start.metadata:  # of a step cache that has done its work
            metadata["steps"] = clip.start.metadata["steps"]
        return metadata if output is None else metadata | {"crf": output.crf}

    def _staged(self, stage: Stage, timings: Timings, work: Generator[Event, None, Any]) -> Generator[Event, None, Any]:
        """The events of a stage between its start and its end; the stage's value is passed on.

        Raises: ResourceError where the framework itself ran out of memory.
        """
        yield StageStarted(stage)
        begin = time.perf_counter()
        with memory_told(self.engine, stage):
            value = yield from work
        timings[stage] = time.perf_counter() - begin
        yield StageFinished(stage, timings[stage])
        return value


def has_room_for_both(found: Forecast) -> bool:
    """Whether the transformer's weights leave room for a decode: each part was placed as if it were alone."""
    return found.placements["dit"].weights + found.placements["vae"].peak <= found.room
