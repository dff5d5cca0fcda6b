"""Golden cases without a model: rotary tables, embeddings, schedules, buckets and pictures."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import CheckpointError
from framewake.golden import rule
from framewake.golden.cases import Case, tensor
from framewake.golden.compare import Pair
from framewake.media.image import bucket_pixels, clip_crop, clip_pixels, normalise
from framewake.models.dit import SCALAR_LAYERS
from framewake.nn.embedding import FREQUENCIES, scalar_embedding, sinusoid
from framewake.nn.rope import rope_table
from framewake.sampling.flow import rounded_guidance, schedule
from framewake.sampling.solvers import euler_step
from framewake.shapes import (
    PUBLISHED_RESOLUTIONS,
    PixelShape,
    base_px,
    bucket_ratio,
    buckets,
    choose_bucket,
    crop_offset,
    latent_shape,
    resized_size,
    token_count,
    token_grid,
)

Arrays = dict[str, np.ndarray]


def rope(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Rotary tables from a video's size, and queries and keys turned by them."""
    pixels = PixelShape(*(case.need("config", name) for name in ("video_length", "height", "width")))
    latents = latent_shape(pixels, channels=1)
    dims = case.need("config", "dims")
    cos, sin = rope_table(token_grid(latents), dims, float(case.need("config", "theta")), pixels.frames)
    rows = arrays.get("rows", np.arange(len(cos)))
    made = {"token_count": np.asarray([token_count(latents)]), "cos": cos[rows], "sin": sin[rows], "rows": rows}
    yield from (Pair(name, made[name], arrays[name]) for name in made if name in arrays)
    for name in ("q", "k"):
        if name in case.inputs:
            x = tensor(engine, case.input(name))
            turned = engine.rotate(x, tensor(engine, cos), tensor(engine, sin))
            yield Pair(f"{name}_rotated", engine.numpy(turned), arrays[f"{name}_rotated"])


def timestep_embedding(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """The sinusoid and its two-layer embedder."""
    values = tensor(engine, case.need("inputs", "t"))
    width = case.need("config", "hidden_size")
    shapes = {"mlp.0.weight": (width, 2 * len(FREQUENCIES)), "mlp.0.bias": (width,)}
    shapes |= {"mlp.2.weight": (width, width), "mlp.2.bias": (width,)}
    w = {name: tensor(engine, rule.weight(f"time_in.{name}", shape, case.seed)) for name, shape in shapes.items()}
    made = {"embedding": sinusoid(engine, values), "mlp_output": scalar_embedding(engine, w, SCALAR_LAYERS, values)}
    if "frequencies" in arrays:
        yield Pair("frequencies", FREQUENCIES, arrays["frequencies"], "exact")
    yield from (Pair(name, engine.numpy(made[name]), arrays[name]) for name in made if name in arrays)


def guidance_rounding(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Embedded guidance as the transformer gets it."""
    scales = case.need("inputs", "embedded_guidance_scale")
    yield Pair("guidance", np.asarray([rounded_guidance(s, "bfloat16") for s in scales]), arrays["guidance"], "exact")


def schedules(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Sigmas and timesteps, bit for bit."""
    for entry in case.need("config", "combinations"):
        made = schedule(entry["steps"], entry["shift"], is_reverse=entry["reverse"])
        for name, values in made._asdict().items():
            array = f"{name}_{entry['index']}"
            if array in arrays:
                yield Pair(array, values, arrays[array], "exact")


def euler_steps(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Steps in a row, one from half precision, and one with the last pair of sigmas."""
    made = schedule(
        case.need("config", "steps"), case.need("config", "shift"), is_reverse=case.need("config", "reverse")
    )
    sigmas = made.sigmas
    start = tensor(engine, case.input("sample"))
    velocities = [tensor(engine, case.input(name)) for name in sorted(case.inputs) if name.startswith("velocity_")]
    x = start
    for index, velocity in enumerate(velocities):
        x = euler_step(engine, x, velocity, sigmas[index], sigmas[index + 1])
        yield Pair(f"sample_{index}", engine.numpy(x), arrays[f"sample_{index}"])
    mixed = (engine.cast(start, "float16"), engine.cast(velocities[0], "bfloat16"))
    if "sample_mixed" in arrays:
        yield Pair(
            "sample_mixed", engine.numpy(euler_step(engine, *mixed, sigmas[0], sigmas[1])), arrays["sample_mixed"]
        )
    if "sample_last" in arrays:
        last = euler_step(engine, start, velocities[0], sigmas[-2], sigmas[-1])
        yield Pair("sample_last", engine.numpy(last), arrays["sample_last"])


def bucket_choices(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """The list of buckets, and bucket, resize and crop of many picture sizes."""
    side = case.need("config", "base_size")
    found = [_places(side, int(width), int(height)) for width, height in arrays["image_size"]]
    ratios = np.asarray([bucket_ratio(bucket) for bucket in buckets(side)])
    made = {"image_size": arrays["image_size"], "bucket_list": np.asarray(buckets(side)), "bucket_ratio": ratios}
    for index, name in enumerate(("bucket", "resized", "crop_box")):
        made[name] = np.asarray([entry[index] for entry in found])
    yield from (Pair(name, made[name], arrays[name], "exact") for name in made if name in arrays)


def _places(side_px: int, width: int, height: int) -> tuple[tuple[int, ...], ...]:
    """Bucket (height, width), resized size (width, height) and crop box of a picture size."""
    bucket = choose_bucket(side_px, height, width)
    resized = resized_size(bucket, height, width)
    top, left = (crop_offset(size, crop) for size, crop in zip(resized, bucket, strict=True))
    return bucket, resized[::-1], (left, top, left + bucket[1], top + bucket[0])


def image_preprocess(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """A picture as the autoencoder gets it."""
    picture = case.picture()
    side = case.config.get("base_size") or base_px(case.need("config", "resolution"), PUBLISHED_RESOLUTIONS)
    places = _places(side, picture.width, picture.height)
    for name, got in zip(("bucket", "resized", "crop_box"), places, strict=True):
        if name in arrays:
            yield Pair(name, np.asarray(got), arrays[name], "exact")
    crop = bucket_pixels(picture, *places[0])
    pixels = np.ascontiguousarray(np.moveaxis(crop, -1, 0))
    digest = np.frombuffer(hashlib.sha256(pixels.tobytes()).digest(), dtype=np.uint8)
    made = {"pixels_u8": pixels, "pixels_u8_sub": pixels, "sha256_u8": digest, "pixels_sample": normalise(crop)}
    yield from (thinned(case, name, made[name], arrays[name]) for name in made if name in arrays)


def clip_image(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """A picture as LLaVA's vision tower gets it."""
    size, picture = case.need("config", "crop"), case.picture()
    values = clip_pixels(picture, size, mean=case.need("config", "mean"), std=case.need("config", "std"))
    made = {"pixels_u8": np.moveaxis(clip_crop(picture, size), -1, 0), "pixel_values_sample": values}
    yield from (thinned(case, name, made[name], arrays[name]) for name in made if name in arrays)


def thinned(case: Case, name: str, got: np.ndarray, want: np.ndarray) -> Pair:
    """Every n-th row and column where the case stores only those."""
    if got.shape == want.shape:
        return Pair(name, got, want)
    stride = re.search(r"every (\d+)(?:st|nd|rd|th) row and column", case.meanings[name])
    if stride is None:
        raise CheckpointError(f"case {case.id!r}: {name} is {list(want.shape)}, made was {list(got.shape)}.")
    step = int(stride.group(1))
    return Pair(name, got[:, ::step, ::step], want)
