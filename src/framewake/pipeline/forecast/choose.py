"""Where the weights go and into which pieces a step is cut so that a run fits, and what it will take."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from framewake.config import TilingConfig
from framewake.engine.contract import Dtype, Engine
from framewake.errors import ResourceError
from framewake.pipeline.drafts import NO_DRAFTS
from framewake.pipeline.events import Stage
from framewake.pipeline.forecast import cost
from framewake.pipeline.forecast.advice import advice
from framewake.pipeline.forecast.duration import duration
from framewake.pipeline.forecast.links import Links
from framewake.pipeline.forecast.place import Placement, about, fitting, gib, said, shortage
from framewake.pipeline.forecast.probe import BUSY, Rates, busy_note
from framewake.pipeline.forecast.setup import Setup, arrangement_of, is_composed, scene_of
from framewake.pipeline.jobs import Plan
from framewake.text.crop import TextLength
from framewake.weights.checkpoint.component import LARGER_DIT, UPSAMPLER

CHUNKS = (16384, 8192, 4096, 2048)  # tokens at a time: larger ones use the device better
SLABS = (1 << 26, 1 << 20)  # numbers of the decoder's widest layer at a time
# Where an engine asks for it, blocks whose widest layer is larger than the caches are quicker a few hundred tokens at a
# time: on a CPU 18 % for the 13B model (2.6 s instead of 3.2 s a block).
CACHED_BYTES = 32 << 20
USUAL_LINKS = (20, 300)  # GB/s from a device to the others: over PCI Express, over NVLink


@dataclasses.dataclass(frozen=True)
class Forecast:
    """What a run will take.

    ``is_busy``: other programs take so much of the machine that the times are too short. ``links`` of several
    devices: what the times count with, where that was measured.
    Units: bytes and seconds, ``stages`` too. On a CPU, device and host are one memory and the peak is the process's.
    """

    placements: dict[str, Placement]
    device_peak: int
    host_peak: int
    room: int
    lines: tuple[str, ...]
    step_seconds: float | None = None
    seconds: float | None = None
    stages: Mapping[Stage, float] = dataclasses.field(default_factory=dict)
    is_busy: bool = False
    links: Links | None = None

    @property
    def notes(self) -> list[str]:
        """What a person should know who did not ask: only what is not as usual."""
        return sorted(
            said(place)
            for place in self.placements.values()
            if place.is_streamed or place.is_shared or place.chunk_tokens or place.slab_numbers
        )


def forecast(  # a setup and a plan, and what is known beside them
    setup: Setup,
    plan: Plan,
    *,
    room: int,
    keeps_all: bool = False,
    rates: Rates | None = None,
    text: TextLength | None = None,
) -> Forecast:
    """Placement, memory and, where rates are known, time of a run.

    ``room`` is how many bytes the run may add on the device; ``text`` is the prompt's, where it is counted:
    memory is said for the longest prompt, time for this one.
    Raises: ResourceError when nothing fits, with the largest setting that does.
    """
    scene = scene_of(setup, plan)
    found = all_placements(setup, plan, room)
    lacking = [place for place in found.values() if place.peak > room]
    if lacking:
        raise too_little(setup, plan, lacking[0], room=room)
    size = plan.made
    used = setup.engine.memory()["used"] + setup.engine.traits.start_bytes
    if keeps_all:
        held = sum(place.weights for place in found.values())
        device = held + max(place.work for place in found.values())
    else:
        device = max(place.peak for place in found.values())
    clip = cost.host_bytes(size)
    is_host = setup.engine.traits.is_host
    timed = scene if text is None else scene._replace(text=text.kept, read=text.read)
    takes = None if rates is None else duration(setup, plan, timed, rates, found)
    device_peak = used + max(device, found["vae"].peak + clip if is_host else 0)
    transformers = [found[each.transformer].weights for each in (plan, plan.larger) if each is not None]
    host = device_peak if is_host else clip + max(transformers)
    made = Forecast(found, device_peak, host, room, (), links=setup.links)
    if takes is not None:
        made = dataclasses.replace(made, step_seconds=takes.step, seconds=takes.total, stages=takes.stages)
    is_busy = rates is not None and rates.busy_now > BUSY
    return dataclasses.replace(made, lines=tuple(described(setup, plan, scene, made, rates)), is_busy=is_busy)


def all_placements(setup: Setup, plan: Plan, room: int) -> dict[str, Placement]:
    """The placement of every part of a run: both transformers, and the autoencoder for the clip that comes out."""
    if plan.larger is None:
        return placements(setup, plan, scene_of(setup, plan), room)
    further = placements(setup, plan.larger, scene_of(setup, plan.larger), room)
    found = placements(setup, plan, scene_of(setup, plan), room, autoencoder=further["vae"])
    return found | {name: further[name] for name in (UPSAMPLER, plan.larger.transformer)}


def placements(
    setup: Setup, plan: Plan, scene: cost.Scene, room: int, *, autoencoder: Placement | None = None
) -> dict[str, Placement]:
    """The first placement of each part that fits, fastest first; the smallest where none does.

    ``autoencoder``: its placement, where a larger clip has decided it.
    """
    checkpoint, precision, transformer = setup.checkpoint, setup.precision, plan.transformer
    shape = checkpoint.configs[transformer]
    tiling = checkpoint.settings.tiling if plan.request.vae_tiling else None
    has_scores = is_composed(setup.engine, precision.text)
    works: dict[str, tuple[Dtype, list[tuple[int | None, int]]]] = {}
    states = 0  # of the encoders that have worked
    for encoder in setup.family.present(checkpoint):
        config = checkpoint.configs[encoder.name]
        work = encoder.work_bytes(config, scene, precision.text, has_scores)
        works[encoder.name] = (precision.text, [(None, work + states)])
        states += scene.batch * (scene.read + scene.text) * shape.text_width * cost.BYTES[precision.text]
    works["vae"] = (precision.vae, decoding_sizes(setup, plan, tiling))
    if transformer == LARGER_DIT:
        works[UPSAMPLER] = ("float32", [(None, cost.upsampler_bytes(checkpoint.configs[UPSAMPLER], plan.latent))])
    works[transformer] = (precision.transformer, step_sizes(setup, plan, scene))
    found: dict[str, Placement] = {}
    for name, (dtype, sizes) in works.items():
        model = setup.models[name]
        held = cost.weights(model.shapes(), model.streams(), dtype)
        # The weights of the other encoders, and of the autoencoder, are still there while a part works.
        kept = [] if name == "vae" else ["vae"] if name in (UPSAMPLER, transformer) else found
        other = sum(found[each].weights for each in kept)
        if name == transformer:
            touched: dict[str, bool] = {}
            for update in (update for each in plan.loras for update in each.lora.updates):
                touched[update.place.weight] = touched.get(update.place.weight, True) and update.is_by_row()
            other += cost.merging_bytes(model.shapes(), touched, model.streams(), dtype)
        beside = [(chunk, work + other) for chunk, work in sizes]
        devices = setup.devices if name == transformer else 1  # the encoders work on the first device alone
        place = fitting(held, beside, room, has_streams=bool(model.streams()), devices=devices)
        if name == "vae":
            place = autoencoder or place._replace(chunk_tokens=None, slab_numbers=place.chunk_tokens)
        found[name] = place._replace(part=setup.family.components[name].role)
    return found


def step_sizes(setup: Setup, plan: Plan, scene: cost.Scene) -> list[tuple[int | None, int]]:
    """Memory for a step: of all tokens at once, then of fewer at a time. Where an engine asks for it, of few alone."""
    config, usual = setup.checkpoint.configs[plan.transformer], setup.engine.traits.chunk_tokens
    widest = scene.batch * scene.joined * (config.hidden_size + config.mlp_size)
    if usual is not None and widest * cost.BYTES[scene.dtype] > CACHED_BYTES:
        chunk = min(usual, scene.joined)
        return [(chunk, cost.step_bytes(config, scene, chunk=chunk))]
    chunks = [(size, cost.step_bytes(config, scene, chunk=size)) for size in CHUNKS if size < scene.joined]
    return [(None, cost.step_bytes(config, scene)), *chunks]


def decoding_sizes(setup: Setup, plan: Plan, tiling: TilingConfig | None) -> list[tuple[int | None, int]]:
    """Memory for the autoencoder: whole tiles, then a few frames of each at a time. On a CPU that is the only way.

    Smaller tiles would be another picture, because normalisation sees a whole tile.
    """
    config, dtype, traits, size = setup.checkpoint.vae, setup.precision.vae, setup.engine.traits, plan.shape
    encode = cost.tile_bytes(config, None, (1, size.height, size.width), dtype)

    def decode(numbers: int) -> int:
        return cost.slab_bytes(config, tiling, size, dtype, slab_numbers=numbers, is_host=traits.is_host)

    found: list[tuple[int | None, int]] = [(None, cost.tile_bytes(config, tiling, size, dtype))]
    if traits.slab_numbers is not None:
        found = [(None, decode(traits.slab_numbers))]
    elif size.frames > 1:
        found += [(numbers, decode(numbers)) for numbers in SLABS]
    return [(numbers, cost.decode_bytes(max(work, encode), traits)) for numbers, work in found]


def described(setup: Setup, plan: Plan, scene: cost.Scene, made: Forecast, rates: Rates | None) -> list[str]:
    """The forecast in lines for a person: every choice with its reason."""
    engine, precision, shape = setup.engine, setup.precision, plan.shape
    attention = "put together from products (no fused kernel here)" if scene.is_composed else fused(engine)
    lines = [
        f"{shape.frames} frames of {shape.width}x{shape.height}, {plan.request.steps} steps: {scene.tokens} image and "
        f"up to {scene.text} text tokens",
        f"engine {engine.name}: {engine.reason}",
        f"precision {precision.name}: "
        + ("as asked" if plan.request.precision != "auto" else "what suits this device"),
        f"attention: {attention}",
    ]
    lines += enlarging(setup, plan, made)
    lines += caching(plan)
    lines += [] if setup.devices == 1 else sharing(setup, plan, scene)
    lines += [said(place) for place in made.placements.values()]
    where = "memory" if engine.traits.is_host else "device memory"
    margin = engine.traits.margin_bytes
    lines.append(f"peak {where}: about {gib(made.device_peak)}" + (f"; {gib(margin)} are left alone" if margin else ""))
    if not engine.traits.is_host:
        lines.append(f"peak host memory: about {gib(made.host_peak)}")
    if rates is not None and made.step_seconds is not None and made.seconds is not None:
        when = "measured just now" if rates.is_measured_now else "measured before"
        lines.append(
            f"time: about {about(made.step_seconds)} a step, {about(made.seconds)} in all (this device: "
            f"{rates.products / 1e12:.3g} Tflop/s, {rates.disk / 1e9:.2g} GB/s from disk, {when})"
        )
        busy = busy_note(rates)
        lines += [] if busy is None else [busy]
    return lines + drafting(plan, made)


def fused(engine: Engine) -> str:
    """The fused attention kernel; an engine that has several tells which, as soon as it has measured them."""
    reason = engine.attention_reason
    return f"fused kernel ({reason})" if reason else "fused kernel, the fastest of this device"


def sharing(setup: Setup, plan: Plan, scene: cost.Scene) -> list[str]:
    """What it means that several devices make a clip, and what their exchanges take."""
    sent, links = cost.sent_bytes(setup.checkpoint.dit, scene, arrangement_of(setup, plan)), setup.links
    lines = [f"{setup.devices} devices: memory and time are those of each"]
    if setup.engine.traits.is_host:
        lines[0] += "; the time does not count that they share the cores here"
    told = f"each sends {sent / 1e9:.3g} GB to the others in a step: "
    if links is None:
        slow, fast = (f"{about(sent / rate / 1e9)} at {rate} GB/s" for rate in USUAL_LINKS)
        told += f"{slow}, {fast}, not counted (`framewake doctor --devices {setup.devices}` measures the links)"
    else:
        rate = links.bytes_per_second
        told += f"{about(sent / rate)} at {rate / 1e9:.2g} GB/s, counted (measured on {links.day})"
    return [*lines, told]


def enlarging(setup: Setup, plan: Plan, made: Forecast) -> list[str]:
    """What super-resolution means for a run."""
    if plan.larger is None:
        return []
    shape, scene, seconds = plan.larger.shape, scene_of(setup, plan.larger), made.stages.get("enlarge")
    what = f"{plan.larger.request.steps} steps: {scene.tokens} image tokens"
    time = "" if seconds is None else f", about {about(seconds)}"
    return [f"super-resolution to {shape.width}x{shape.height}, {what}{time}"]


def caching(plan: Plan) -> list[str]:
    """What a step cache means for a run."""
    if plan.cache is None:
        return []
    steps = plan.request.steps
    computed = plan.cache.schedule(steps)
    if computed is None:
        what = "the run itself decides which steps are skipped, so the time below is the most it takes"
    else:
        what = f"{len(computed)} of {steps} steps are computed"
    return [f"step cache {plan.request.cache}: {what}"]


def drafting(plan: Plan, made: Forecast) -> list[str]:
    """What the drafts of a run cost."""
    drafts = NO_DRAFTS if plan.output is None else plan.output.drafts
    if not drafts.steps and drafts.stop is None:
        return []
    seconds = {"small": 0.0, "full": made.stages.get("decode", 0.0) + made.stages.get("write", 0.0)}[drafts.size]
    cost = "a full draft costs a decode" if drafts.size == "full" else "a small draft costs no decode"
    if made.step_seconds is None or made.seconds is None:
        return [cost]
    lines = [f"{cost}, about {about(seconds)}" if seconds else cost]
    if drafts.stop is not None:
        steps = made.stages["denoise"] * (plan.request.steps - drafts.stop) / plan.request.steps
        late = sum(made.stages.get(stage, 0.0) for stage in ("enlarge", "decode", "write"))
        ready = made.seconds - steps - late + seconds
        lines.append(f"draft after step {drafts.stop} of {plan.request.steps}: in about {about(ready)}")
    return lines


def too_little(setup: Setup, plan: Plan, place: Placement, *, room: int) -> ResourceError:
    """The error when a run cannot fit, with the largest settings that do."""

    def fits(other: Plan) -> bool:
        found = all_placements(setup, other, room)
        return all(each.peak <= room for each in found.values())

    smaller = plan.larger is not None and fits(dataclasses.replace(plan, larger=None))
    way = "Without super-resolution it fits." if smaller else advice(setup.checkpoint, plan, fits)
    return ResourceError(
        f"{shortage(setup.engine, place, room=room)} {way}",
        bytes_needed=place.peak,
        bytes_free=room,
    )
