"""What is to be made, checked as far as it can be without loading a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from framewake.config import DiTConfig
from framewake.errors import InputError, about
from framewake.media.image import bucket_pixels, clip_pixels
from framewake.media.opacity import background_colour
from framewake.media.output import check_output
from framewake.media.picture import Loaded, load_picture
from framewake.media.video import check_crf
from framewake.pipeline.adapters import check_loras
from framewake.request import Defaults, Request, resolve
from framewake.shapes import LatentShape, PixelShape, base_px, choose_bucket, latent_shape, token_grid
from framewake.weights.checkpoint.load import Checkpoint

WIDE = (9, 16)  # height and width of a text-to-video clip, which has no picture to follow


@dataclasses.dataclass(frozen=True)
class Output:
    """Where a clip goes and how it is written.

    Beside it, the latents are saved after every ``save_every`` steps and when the run is stopped; 0 saves none
    before the last step. ``options`` are words of the command line that a command which goes on repeats.
    Units: ``crf`` is x264's quality, lower is better.
    """

    path: Path
    crf: int = 18
    has_metadata: bool = True
    save_every: int = 5
    options: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", Path(self.path))  # text is as good


@dataclasses.dataclass(frozen=True)
class Job:
    """A request and where its clip goes; without an output the frames are only handed back."""

    request: Request
    output: Output | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """A job with every choice made: nothing in the request is left open but the negative prompt."""

    request: Request
    output: Output | None
    shape: PixelShape
    latent: LatentShape


@dataclasses.dataclass(frozen=True)
class Picture:
    """What the models see of the input picture.

    Shapes: ``pixels`` uint8 (H, W, 3) for the autoencoder, ``semantic`` and ``black`` float32 (1, 3, S, S) for
    LLaVA; ``black`` stands in for the picture beside a negative prompt.
    """

    pixels: np.ndarray
    semantic: np.ndarray
    black: np.ndarray


def defaults_of(checkpoint: Checkpoint) -> Defaults:
    """What a checkpoint does where a request says nothing."""
    settings = checkpoint.settings
    return Defaults(settings.frames, settings.steps, float(settings.fps), settings.resolutions)


def plan_job(job: Job, checkpoint: Checkpoint, *, picture: tuple[int, int] | None = None) -> Plan:
    """Make every choice of a job; nothing is loaded but the picture's header.

    ``picture`` is its height and width in pixels where they are known and the file is not at hand.
    Raises: InputError for anything that a person can fix.
    """
    request = job.request
    if request.flow_shift is None and request.is_stable:
        request = dataclasses.replace(request, flow_shift=checkpoint.settings.flow_shift)
    request = resolve(request, defaults_of(checkpoint))
    check_picture_use(request, checkpoint.dit)
    with about("loras"):
        check_loras(request, checkpoint)
    background_colour(request.background)
    with about("image"):
        height_px, width_px = picture or (WIDE if request.image is None else picture_size(request))
        bucket = choose_bucket(base_px(request.resolution, checkpoint.settings.resolutions), height_px, width_px)
    shape = PixelShape(request.frames, *bucket)
    latent = latent_shape(
        shape,
        channels=checkpoint.vae.latent_channels,
        spatial=checkpoint.vae.spatial_compression,
        temporal=checkpoint.vae.temporal_compression,
    )
    token_grid(latent, checkpoint.dit.patch_size)
    if job.output is not None:
        check_output(job.output.path, shape=shape, fps=request.fps)
        check_crf(job.output.crf)
    return Plan(request, job.output, shape, latent)


def check_picture_use(request: Request, dit: DiTConfig) -> None:
    """Whether the checkpoint wants a picture, and there is one.

    Raises: InputError when the two do not agree.
    """
    with about("image"):
        if dit.condition == "none" and request.image is not None:
            raise InputError(
                "this checkpoint makes videos from text alone and takes no picture: leave the picture out."
            )
        if dit.condition != "none" and request.image is None:
            raise InputError("this checkpoint animates a picture and none was named: add a PNG, JPEG or WebP file.")
    with about("frames"):
        if dit.condition == "latent_concat" and request.frames is not None and request.frames < 5:
            raise InputError(
                f"{request.frames} frame cannot be made with this checkpoint, which drops the first 4: take 5 or more."
            )


def picture_size(request: Request) -> tuple[int, int]:
    """Height and width in pixels of a request's picture as the models see it, with all its checks.

    Raises: InputError when it cannot be used.
    """
    image = open_picture(request).image
    return image.height, image.width


def open_picture(request: Request) -> Loaded:
    """A request's picture, and what a person should know of it.

    Raises: InputError when it cannot be used.
    """
    return load_picture(request.image, background=request.background, takes_first_frame=request.takes_first_frame)


def read_picture(image: Image.Image, plan: Plan, checkpoint: Checkpoint) -> Picture:
    """The two crops of a picture.

    Source: specification, sections 2.4, 2.6 and 3.6.
    """
    processor = checkpoint.image_processor
    black = Image.new("RGB", image.size)
    return Picture(
        bucket_pixels(image, plan.shape.height, plan.shape.width),
        clip_pixels(image, processor.size_px, mean=processor.mean, std=processor.std)[None],
        clip_pixels(black, processor.size_px, mean=processor.mean, std=processor.std)[None],
    )


def request_from(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of the request that made a clip, from the clip's metadata.

    Raises: InputError when there are none.
    """
    values = metadata.get("request")
    if not isinstance(values, Mapping):
        raise InputError("the clip's metadata holds no request: it was made by another version.")
    return dict(values)
