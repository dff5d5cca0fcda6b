"""What is to be made, settled as far as it can be without loading a model."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from framewake.cache import OFF, CacheChoice
from framewake.config import DiTConfig
from framewake.errors import InputError, about, said
from framewake.media.framing import FRAMES
from framewake.media.opacity import background_colour
from framewake.media.output import check_output
from framewake.media.picture import Loaded, load_picture, picture_path
from framewake.media.video import check_crf
from framewake.pipeline.adapters import OpenedLora, open_loras
from framewake.pipeline.drafts import NO_DRAFTS, Drafts, check_drafts
from framewake.request import DYNAMIC_SHIFT, NO_SCALE, Defaults, Request, Settled, resolve
from framewake.shapes import LatentShape, PixelShape, base_px, larger_bucket, latent_shape, token_grid
from framewake.weights.checkpoint.component import LARGER_DIT, UPSAMPLER
from framewake.weights.checkpoint.load import Checkpoint
from framewake.weights.checkpoint.settings import FILE_NAME, Enlargement

WIDE = (9, 16)  # height and width of a text-to-video clip, which has no picture to follow
SMALL_PX = 64


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a clip goes and how it is written.

    Beside it, the latents are saved after every ``save_every`` steps, with each draft and when the run is stopped; 0
    saves none before the last step but with drafts. ``options`` are words of the command line that a command which goes
    on repeats. ``picture_name`` stands in the clip's metadata where the picture's path would, for a file that is
    nobody's own.
    Units: ``crf`` is x264's quality, lower is better.
    """

    path: Path
    crf: int = 18
    has_metadata: bool = True
    save_every: int = 5
    options: tuple[str, ...] = ()
    picture_name: str | None = None
    drafts: Drafts = NO_DRAFTS

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # text is as good


@dataclasses.dataclass(frozen=True)
class Job:
    """A request and where its clip goes; without an output the frames are only handed back.

    ``keeps_size``: a picture that is as large as a clip keeps its size, as a clip that goes on from another one needs
    it. The original's rule gives a wide picture a bucket that is narrower than the picture.
    """

    request: Request
    output: Output | None = None
    keeps_size: bool = False


@dataclasses.dataclass(frozen=True)
class Picture:
    """What the models see of the input picture, and what a person should know of it.

    ``small`` is all of it, enough to tell what kind of picture it is; ``digest`` tells the file's content from others.
    Shapes: ``pixels`` uint8 (H, W, 3) for the autoencoder, ``semantic`` and ``black`` float32 (1, 3, S, S) for
    LLaVA; ``black`` stands in for the picture beside a negative prompt.
    """

    pixels: np.ndarray
    semantic: np.ndarray
    black: np.ndarray
    small: Loaded
    digest: str


@dataclasses.dataclass(frozen=True)
class Plan:
    """A job with every choice made and every file opened, once: whoever has it asks nothing and opens nothing again.

    What the device decides is the pipeline's to settle: what precision "auto" is, and where the weights go.
    ``larger``: the plan of the larger clip that this one becomes, which has a ``transformer`` and steps of its own.
    """

    request: Settled
    output: Output | None
    shape: PixelShape
    latent: LatentShape
    cache: CacheChoice | None = None
    loras: tuple[OpenedLora, ...] = ()
    picture: Picture | None = None
    transformer: str = "dit"
    larger: Plan | None = None

    @property
    def made(self) -> PixelShape:
        """The size of the clip that comes out."""
        return self.shape if self.larger is None else self.larger.shape

    def sources(self) -> dict[str, str]:
        """Digests of the picture and the LoRAs, by their names for a person."""
        picture = hashlib.sha256(b"").hexdigest() if self.picture is None else self.picture.digest
        return {"the picture": picture} | {f"LoRA {n}": lora.digest for n, lora in enumerate(self.loras, 1)}


def defaults_of(checkpoint: Checkpoint) -> Defaults:
    """What a checkpoint does where a request says nothing."""
    settings = checkpoint.settings
    return Defaults(
        settings.frames,
        settings.steps,
        float(settings.fps),
        settings.resolutions,
        settings.flow_shift,
        DYNAMIC_SHIFT if checkpoint.dit.mixes_picture else settings.flow_shift,
        settings.guidance_scale,
    )


def count_steps(request: Settled, checkpoint: Checkpoint) -> int:
    """Steps of a clip, with those in which it is enlarged."""
    return request.steps + (checkpoint.settings.enlargement.steps if request.super_resolution else 0)


def plan_job(job: Job, checkpoint: Checkpoint) -> Plan:
    """Settle a job: make every choice, and open its picture and its LoRAs.

    Raises: InputError for anything that a person can fix, CheckpointError for a LoRA that cannot be used.
    """
    asked = job.request
    request = resolve(asked, defaults_of(checkpoint))
    check_picture_use(request, checkpoint.dit)
    check_enlarging(request, checkpoint)
    with about("loras"):
        loras = open_loras(request, asked.uses, checkpoint)
    background_colour(request.background)
    picture, loaded = None, None
    with about("image"):
        if request.image is None:
            shape = shape_of(request, checkpoint, None)
        else:
            loaded = open_picture(request.image, request)
            shape = shape_of(request, checkpoint, loaded.image.size[::-1], keeps_size=job.keeps_size)
            picture = read_picture(request.image, loaded, shape, checkpoint, place=request.crop_place)
    latent = latent_of(shape, checkpoint)
    plan = with_larger(Plan(request, None, shape, latent, asked.step_cache, loras, picture), checkpoint, loaded=loaded)
    if job.output is not None:
        _check_output(job.output, request, plan.made)
    return dataclasses.replace(plan, output=job.output)


def plan_size(
    request: Request, checkpoint: Checkpoint, size_px: tuple[int, int] | None, *, keeps_size: bool = False
) -> Plan:
    """The plan of a request whose files are not at hand, as far as it goes without them.

    ``size_px`` is the picture's height and width; ``keeps_size`` as in ``Job``.
    Raises: InputError.
    """
    settled = resolve(request, defaults_of(checkpoint))
    check_picture_use(settled, checkpoint.dit)
    check_enlarging(settled, checkpoint)
    background_colour(settled.background)
    with about("image"):
        shape = shape_of(settled, checkpoint, size_px, keeps_size=keeps_size)
    return with_larger(Plan(settled, None, shape, latent_of(shape, checkpoint), request.step_cache), checkpoint)


def placed(plan: Plan, output: Output | None, *, seed: int) -> Plan:
    """The plan of another clip that differs in nothing but its place and its seed.

    Raises: InputError for a place that cannot be used.
    """
    if output is not None:
        _check_output(output, plan.request, plan.made)
    larger = None if plan.larger is None else placed(plan.larger, None, seed=seed)
    request = dataclasses.replace(plan.request, seed=seed)
    return dataclasses.replace(plan, request=request, output=output, larger=larger)


def with_larger(plan: Plan, checkpoint: Checkpoint, *, loaded: Loaded | None = None) -> Plan:
    """The plan with that of the larger clip, where one is asked for: few steps, without guidance, cache and LoRAs.

    ``loaded`` is the whole picture, for its larger crop; without it there is none.
    Source: specification of 1.5, section 13.
    """
    asked = plan.request
    if not asked.super_resolution:
        return plan
    found, picture = checkpoint.settings.enlargement, plan.picture
    height, width = larger_bucket((plan.shape.height, plan.shape.width), found.side_px)
    shape = PixelShape(plan.shape.frames, height, width)
    plain = dataclasses.replace(asked, guidance_scale=NO_SCALE, cache=OFF, loras=())
    request = dataclasses.replace(plain, resolution=found.resolution, steps=found.steps, flow_shift=found.flow_shift)
    if picture is not None and loaded is not None:
        pixels, semantic, black = views(loaded, shape, checkpoint, place=asked.crop_place)
        picture = dataclasses.replace(picture, pixels=pixels, semantic=semantic, black=black)
    larger = Plan(request, None, shape, latent_of(shape, checkpoint), picture=picture, transformer=LARGER_DIT)
    return dataclasses.replace(plan, larger=larger)


def resized(plan: Plan, shape: PixelShape, checkpoint: Checkpoint) -> Plan:
    """The plan of a clip of another size; its pictures are those of the old one."""
    return with_larger(dataclasses.replace(plan, shape=shape, latent=latent_of(shape, checkpoint)), checkpoint)


def with_loras(plan: Plan, loras: tuple[str, ...], checkpoint: Checkpoint) -> Plan:
    """The plan with other LoRAs.

    Raises: InputError, CheckpointError.
    """
    request = dataclasses.replace(plan.request, loras=loras)
    return dataclasses.replace(plan, request=request, loras=open_loras(request, request.uses, checkpoint))


def shape_of(
    request: Settled, checkpoint: Checkpoint, size_px: tuple[int, int] | None, *, keeps_size: bool = False
) -> PixelShape:
    """The size of a clip, from the height and width of its picture.

    Raises: InputError.
    """
    base = base_px(request.resolution, checkpoint.settings.resolutions)
    framed, size = FRAMES[checkpoint.dit.framing], size_px or WIDE
    side = checkpoint.settings.enlargement.side_px
    for bucket in framed.buckets(base) if keeps_size else ():
        if size == (larger_bucket(bucket, side) if request.super_resolution else bucket):
            return PixelShape(request.frames, *bucket)
    return PixelShape(request.frames, *framed.bucket(base, *size))


def latent_of(shape: PixelShape, checkpoint: Checkpoint) -> LatentShape:
    """The size of a clip's latents.

    Raises: InputError for one that does not divide into the transformer's patches.
    """
    latent = latent_shape(
        shape,
        channels=checkpoint.vae.latent_channels,
        spatial=checkpoint.vae.spatial_compression,
        temporal=checkpoint.vae.temporal_compression,
    )
    token_grid(latent, checkpoint.dit.patch_size)
    return latent


def _check_output(output: Output, request: Settled, shape: PixelShape) -> None:
    check_output(output.path, shape=shape, fps=request.fps)
    check_crf(output.crf)
    check_drafts(output.drafts, request.steps)


def check_picture_use(request: Settled, dit: DiTConfig) -> None:
    """Whether the checkpoint wants a picture, and there is one.

    Raises: InputError when the two do not agree.
    """
    with about("image"):
        if not dit.needs_picture and request.image is not None:
            raise InputError(
                "this checkpoint makes videos from text alone and takes no picture: leave the picture out."
            )
        if dit.needs_picture and request.image is None:
            raise InputError("this checkpoint animates a picture and none was named: add a PNG, JPEG or WebP file.")
    with about("frames"):
        dropped = dit.dropped_frames
        if request.frames <= dropped:
            raise InputError(
                f"{request.frames} frame cannot be made with this checkpoint, which drops the first {dropped}: "
                f"take {dropped + 1} or more."
            )


def check_enlarging(request: Settled, checkpoint: Checkpoint) -> None:
    """Whether a checkpoint can make the clip larger, where that is asked for.

    Raises: InputError with what is missing.
    """
    if not request.super_resolution:
        return
    layout, name = checkpoint.layout, checkpoint.settings.name
    rows = [layout.components[part] for part in (UPSAMPLER, LARGER_DIT) if part in layout.components]
    missing = [row for row in rows if row.name not in checkpoint.configs]
    with about("super_resolution"):
        if not rows:
            raise InputError(
                f"{name} has no super-resolution: nobody has published one for it. Leave it out, or take "
                "HunyuanVideo-1.5, at 480p or 720p."
            )
        if missing:
            parts = " ".join(f"--part {row.flag}=FILE" for row in missing)
            raise InputError(
                f"{checkpoint.folder} has no {' and no '.join(row.word for row in missing)}: add {parts}, or fetch "
                "them with `framewake checkpoints download DIR --model hunyuanvideo-1.5 --variant NAME "
                "--super-resolution`."
            )
        if checkpoint.settings.enlargement == Enlargement():
            raise InputError(f"{checkpoint.folder}/{FILE_NAME} does not say how clips are enlarged: add enlargement.")


def open_picture(image: str, request: Request) -> Loaded:
    """A picture as the request wants it seen, and what a person should know of it.

    Raises: InputError when it cannot be used.
    """
    return load_picture(image, background=request.background, takes_first_frame=request.takes_first_frame)


def read_picture(
    path: str, loaded: Loaded, shape: PixelShape, checkpoint: Checkpoint, *, place: tuple[float, float] | None
) -> Picture:
    """What is needed of a picture: its crops, and all of it in small. ``place``: where the crop lies, x and y, or None.

    Raises: InputError when the file cannot be read any more.
    Source: specification, sections 2.4, 2.6 and 3.6.
    """
    digest = hashlib.sha256()
    try:
        with picture_path(path).open("rb") as file:
            while piece := file.read(1 << 20):  # a clip may be larger than memory
                digest.update(piece)
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({said(error)}).") from error
    small = Loaded(loaded.image.resize((SMALL_PX, SMALL_PX)), loaded.notes)
    return Picture(*views(loaded, shape, checkpoint, place=place), small, digest.hexdigest())


def views(
    loaded: Loaded, shape: PixelShape, checkpoint: Checkpoint, *, place: tuple[float, float] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the models see of a picture: the first fields of a ``Picture``."""
    image, processor, frame = loaded.image, checkpoint.image_processor, FRAMES[checkpoint.dit.framing]
    pixels = frame.crop(image, shape.height, shape.width, place=place)
    semantic, black = frame.seen(image, pixels, processor.size_px, processor.mean, processor.std)
    return pixels, semantic, black


def request_from(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the request that made a clip, from the clip's metadata.

    Raises: InputError when there are none.
    """
    values = metadata.get("request")
    if not isinstance(values, Mapping):
        raise InputError("the clip's metadata holds no request: it was made by another version.")
    return dict(values)
