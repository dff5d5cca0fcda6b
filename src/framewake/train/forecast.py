"""What an update takes, from shapes alone, and the fastest way to make it that fits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Dtype, Engine
from framewake.errors import ResourceError
from framewake.models.manner import Manner
from framewake.pipeline.forecast import Rates, about, cost, gib
from framewake.pipeline.forecast.duration import step_parts
from framewake.pipeline.forecast.setup import is_composed
from framewake.pipeline.parts import Parts
from framewake.shapes import LatentShape, token_count

# Tensors of (tokens, width) alive at the widest place of a block's product, all tokens at once or runs of them computed
# again; its merged weights are beside them. Counted: tests/train/test_counted_training.py.
PRODUCT, AGAIN = 31.5, 16.5
RUN = 4096  # tokens of a run: smaller ones spare nothing, attention needs all tokens
KEPT_SCORES = 3  # tensors of all scores that attention keeps for its gradient where no fused kernel is used
WALKING, CHANGING = 4, 7  # tensors of all factors: with states and gradients; with the next state too
FORWARD, BACKWARD, ATTENTION = 1, 3, 4.5  # of a step's products and attention, in an update


class Work(NamedTuple):
    """What an update works on: ``shapes`` are the transformer's, ``trained`` the count of numbers in all factors."""

    config: DiTConfig
    shapes: Mapping[str, tuple[int, ...]]
    scene: cost.Scene
    trained: int
    is_host: bool
    accumulates: bool = False


class Way(NamedTuple):
    """How an update is made: where frozen weights and what blocks began with lie, and whether runs of tokens are
    computed again inside of a block. Units: bytes on the device and, beside it, on the host.
    """

    is_streamed: bool
    keeps_on_host: bool
    recomputes: bool
    device: int = 0
    host: int = 0

    @property
    def manner(self) -> Manner:
        """How blocks work."""
        return Manner(chunk_tokens=RUN, recomputes=True) if self.recomputes else Manner()

    def words(self) -> str:
        """It in words."""
        parts = ["weights streamed" if self.is_streamed else "weights resident"]
        parts += ["tokens computed again in runs"] if self.recomputes else []
        parts += [f"{gib(self.host)} on the host"] if self.host else []
        return ", ".join(parts)


def ways(work: Work) -> Iterator[Way]:
    """Every way, the fastest first."""
    for recomputes in (False, True):
        for is_streamed in (False, True):
            for keeps_on_host in (False,) if work.is_host else (False, True):
                way = Way(is_streamed, keeps_on_host, recomputes)
                device, host = needs(work, way)
                yield way._replace(device=device, host=host)


def needs(work: Work, way: Way) -> tuple[int, int]:
    """Bytes on the device and, beside it, on the host."""
    config, scene = work.config, work.scene
    held = cost.weights(work.shapes, ("double_blocks", "single_blocks"), scene.dtype)
    unit = scene.batch * scene.joined * config.hidden_size * cost.BYTES[scene.dtype]
    merging = max(cost.merging(shape, scene.dtype) for shape in work.shapes.values())
    product = int((AGAIN if way.recomputes else PRODUCT) * unit)
    if scene.is_composed:
        product += KEPT_SCORES * scene.batch * config.heads * scene.joined**2 * cost.BYTES[scene.dtype]
    inside = held.block + max(product, merging + 4 * unit)  # merged before activations exist
    weights = held.streamed if way.is_streamed else held.whole
    inputs = (config.double_blocks + config.single_blocks) * unit
    states = work.trained * cost.BYTES["float32"]
    walking = (WALKING + work.accumulates) * states
    if work.is_host:
        return weights + max(inside + inputs + walking, CHANGING * states), 0
    host = max(walking + (inputs if way.keeps_on_host else 0), CHANGING * states)
    return weights + inside + (0 if way.keeps_on_host else inputs), host


def update_seconds(engine: Engine, work: Work, way: Way, rates: Rates) -> float:
    """Seconds of an update on an idle machine."""
    products, attention = step_parts(engine, work.config, work.scene, rates)
    seconds = (BACKWARD + way.recomputes * FORWARD) * products + (ATTENTION + way.recomputes) * attention
    if not way.is_streamed:
        return seconds
    held = cost.weights(work.shapes, ("double_blocks", "single_blocks"), work.scene.dtype)
    read = 2 * (held.whole - held.kept) / rates.disk
    # A device computes while the host copies; on a CPU both are work for the same cores.
    return seconds + read if work.is_host else max(seconds, read)


class Clips(NamedTuple):
    """The largest clips of a run, and what smaller settings there are: sides of the resolution classes by name, and the
    bucket of a side, height and width."""

    latent: LatentShape
    frames: int
    size: tuple[int, int]  # height and width in pixels
    resolution: str
    sides: Mapping[str, int]
    bucket: Callable[[int, int, int], tuple[int, int]]


class Planner:
    """Finds the way for a run's clips in the room that there is."""

    def __init__(self, engine: Engine, work: Work, clips: Clips, *, rank: int) -> None:
        self.engine, self.work, self.clips, self.rank = engine, work, clips, rank

    def way(self, room: int, *, recomputes: bool | None = None) -> Way:
        """The fastest way that fits; one that computes tokens as a saved run did, where it fits.

        Raises: ResourceError with the largest settings that do.
        """
        fitting = [way for way in ways(self.work) if way.device <= room]
        if not fitting:
            least = min(way.device for way in ways(self.work))
            raise ResourceError(
                f"an update of {self._clip()} at rank {self.rank} needs {gib(least)} on {self.engine.name} at the "
                f"least and may take {gib(room)}. {self._advice(room)}",
                bytes_needed=least,
                bytes_free=room,
            )
        return next((way for way in fitting if recomputes in (None, way.recomputes)), fitting[0])

    def said(self, way: Way, room: int, rates: Rates) -> str:
        """The forecast in a sentence."""
        seconds = update_seconds(self.engine, self.work, way, rates)
        return (
            f"{gib(room)}: rank {self.rank}, {self._clip()}, {gib(way.device)}, about {about(seconds)} an update on "
            f"this device ({way.words()})"
        )

    def _clip(self) -> str:
        height, width = self.clips.size
        return f"{width}x{height} x {self.clips.frames} frames"

    def _advice(self, room: int) -> str:
        found = []
        for resolution, latent in self._sizes():
            count = self._longest(latent, lambda work: any(way.device <= room for way in ways(work)))
            if count:
                here = resolution == self.clips.resolution
                found.append(f"--frames {count}" if here else f"--resolution {resolution} --frames {count}")
            if count == self.clips.frames:
                break
        rank = self.rank // 2
        while rank and not any(way.device <= room for way in ways(self._ranked(rank))):
            rank //= 2
        found += [f"--rank {rank}"] if rank else []
        if not found:
            return "Nothing smaller fits either: take another device, or --precision bfloat16."
        return f"The largest that fits: {', or '.join(found)}."

    def _ranked(self, rank: int) -> Work:
        return self.work._replace(trained=self.work.trained // self.rank * rank)

    def _sizes(self) -> Iterator[tuple[str, LatentShape]]:
        """The clips as they are, and in each smaller class."""
        clips = self.clips
        yield clips.resolution, clips.latent
        for resolution, side in sorted(clips.sides.items(), key=lambda item: -item[1]):
            if side < clips.sides[clips.resolution]:
                height, width = clips.bucket(side, *clips.size)
                factor = clips.size[0] // clips.latent.height
                yield resolution, clips.latent._replace(height=height // factor, width=width // factor)

    def _longest(self, latent: LatentShape, fits: Callable[[Work], bool]) -> int | None:
        """The most frames that fit, at least two latent ones."""
        step = (self.clips.frames - 1) // max(self.clips.latent.frames - 1, 1)
        for frames in range(latent.frames, 1, -1):
            tokens = token_count(latent._replace(frames=frames), self.work.config.patch_size)
            if fits(self.work._replace(scene=self.work.scene._replace(tokens=tokens))):
                return (frames - 1) * step + 1
        return None


def work_of(
    parts: Parts, latent: LatentShape, *, batch: int, text: int, trained: int, dtype: Dtype, accumulates: bool
) -> Work:
    """What a batch works on."""
    engine, config = parts.engine, parts.checkpoint.dit
    tokens = token_count(latent, config.patch_size)
    scene = cost.Scene(batch, tokens, text, dtype, is_composed(engine, dtype))
    shapes, is_host = parts.models["dit"].shapes(), engine.traits.is_host
    return Work(config, shapes, scene, trained, is_host, accumulates)
