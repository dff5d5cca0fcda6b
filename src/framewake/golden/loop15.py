"""Golden cases of HunyuanVideo-1.5 without a single model: whole loops, tables, buckets, pictures and quoted text."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.golden import rule, tables
from framewake.golden.cases import Case, tensor
from framewake.golden.compare import Level, Pair
from framewake.golden.modules import Arrays, Seen, manner_among
from framewake.golden.modules15 import dit15_config, dit15_weights, tiling15_config, upsampler_config, vae15_config
from framewake.media.image import covering_pixels, normalise
from framewake.models.dit import SCALAR_LAYERS, TextPart, TextStates, joined_texts
from framewake.models.dit15 import GLYPH, VISION, DiT15
from framewake.models.tiling import tiled_decode
from framewake.models.upsampler import enlarged, upsampled, upsampler_of
from framewake.models.vae15 import CellVAE
from framewake.nn.embedding import FREQUENCIES, scalar_embedding, sinusoid
from framewake.nn.rope import rope_table
from framewake.pipeline.finish import to_frames
from framewake.pipeline.velocity import Condition, Wrapping
from framewake.sampling.flow import Schedule, schedule
from framewake.sampling.guide import sample
from framewake.sampling.noise import veiled
from framewake.shapes import (
    RESOLUTIONS_15,
    STEP_15,
    bucket_ratio,
    buckets,
    closest_bucket,
    covering_size,
    crop_offset,
    larger_bucket,
)
from framewake.text.glyph import glyph_text

EXACT = ("size", "vision_crop", "sigmas", "timesteps", "timesteps_r", "lq_seen")


def end_to_end15(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Every step of a run and what it ends in."""
    base = case.need("config", "bucket_base")
    if "photo" in case.inputs:
        picture = case.picture()
        size = closest_bucket(base, picture.height, picture.width)
    else:
        width, height = map(int, case.need("inputs", "aspect_ratio").split(":"))
        size = closest_bucket(base, height, width)
    yield from _compared(_run(case, engine, size, tiling=case.config["tiling"]), arrays)


def sr_end_to_end15(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """A larger clip from a smaller one's latents."""
    c, picture = case.config, case.picture()
    size = larger_bucket(closest_bucket(c["base_size"], picture.height, picture.width), c["target_size"])
    latents = enlarged(engine, tensor(engine, case.input("lq_latents")), size[0] // STEP_15, size[1] // STEP_15)
    upsampler = upsampler_of(engine, upsampler_config(c["upsampler"]))
    lesser = upsampled(upsampler, case.weights("upsampler", engine, upsampler.shapes()).part(""), latents)
    noise = rule.input("lq_noise", [int(n) for n in lesser.shape], case.seed)
    seen = _run(case, engine, size, lesser=veiled(lesser, tensor(engine, noise)))
    seen("enlarged", latents)
    seen("upsampled", lesser)
    yield from _compared(seen, arrays)


def _compared(seen: Seen, arrays: Arrays) -> Iterator[Pair]:
    for pair in seen.pairs(arrays):
        level: Level = "exact" if pair.array in EXACT else "level" if pair.array == "frames" else "loop"
        yield pair._replace(level=level)


def _run(
    case: Case, engine: Engine, size: tuple[int, int], *, tiling: Any = None, lesser: Tensor | None = None
) -> Seen:
    """All that is made on the way to the frames."""
    seen, c = Seen(engine), case.config
    config, vae = dit15_config(case.need("config", "dit")), CellVAE(engine, vae15_config(case.need("config", "vae")))
    w = case.weights("vae", engine, vae.shapes()).part("")
    seen.arrays["size"] = np.asarray(size)
    made = schedule(c["steps"], c["shift"])
    seen.arrays |= made._asdict() | {"timesteps_r": next_timesteps(made)}
    image = None
    if case.config["task"] == "i2v":
        seen.arrays["vision_crop"] = crop = covering_pixels(case.picture(), *size)
        image = vae.encode(w, tensor(engine, normalise(crop[None])[None]))[0] * vae.config.scaling_factor
    shape = (1, vae.config.latent_channels, (c["frames"] - 1) // 4 + 1, size[0] // STEP_15, size[1] // STEP_15)
    scale = c.get("guidance_scale", 1.0)
    times = [float(t) for t in made.timesteps]
    wrapping = Wrapping(engine, config, shape[1:], c["frames"], guidance=0.0, dtype="float32", timesteps=times)
    model = _watched(case, DiT15(engine, config), seen)
    condition = Condition(_texts(case, engine, scale=scale), image, lesser)
    denoise = wrapping.denoise(model, condition, scale=scale)
    for step in sample(engine, denoise, tensor(engine, rule.input("noise", shape, case.seed)), made):
        seen(f"latents_{step.index}", step.latents)
        seen(f"guided_{step.index}", step.velocity)
    scaled = step.latents / vae.config.scaling_factor
    seen("decode_input", scaled)
    decoded = vae.decode(w, scaled) if tiling is None else tiled_decode(vae, w, scaled, tiling15_config(tiling))
    seen("decoded", decoded)
    unit = np.clip(seen.arrays["decoded"] / 2 + np.float32(0.5), 0, 1)
    seen.arrays |= {"video_sub": unit[..., ::4, ::4], "frames": to_frames(seen.arrays["decoded"])}
    return seen


def _watched(case: Case, dit: DiT15, seen: Seen) -> Any:
    """The transformer with its weights; what goes in and out of it is kept."""
    outputs, shown, engine = itertools.count(), list[bool](), dit.engine
    transformer = functools.partial(dit, dit15_weights(case, engine, dit), manner=manner_among(engine, dit.config))

    def watched(
        latents: Tensor, *, timestep: Tensor, text: TextStates, rope: Any, guidance: Any, until: Tensor | None = None
    ) -> Tensor:
        index = next(outputs)
        shown.append(bool(engine.numpy(latents[:, -1:]).any()))
        seen.arrays["lq_seen"] = np.asarray(shown)
        velocity = transformer(latents, timestep=timestep, text=text, rope=rope, guidance=guidance, until=until)
        if index == 0:
            seen("model_input_0", latents)
        seen(f"model_output_{index}", velocity)
        return velocity

    return watched


def _texts(case: Case, engine: Engine, *, scale: float) -> TextStates:
    """The text states, behind those of the negative prompt where there is one; that never has quoted text."""
    kinds = [("prompt_embeds", "text_valid", case.need("inputs", "byt5_valid"))]
    if scale > 1:
        kinds.insert(0, ("negative_prompt_embeds", "negative_text_valid", 0))
    found = []
    for states, valid, quoted in kinds:
        further = {GLYPH: TextPart(tensor(engine, case.input("byt5_states")), (quoted,))}
        if case.config["task"] == "i2v":
            vision = tensor(engine, case.input("vision_states"))
            further[VISION] = TextPart(vision, (int(vision.shape[1]),))
        length = case.need("inputs", valid)
        found.append(TextStates(tensor(engine, case.input(states))[:, :length], (length,), None, further))
    return joined_texts(engine, found)


def next_timesteps(made: Schedule) -> np.ndarray:
    """Where each step ends."""
    return np.append(made.timesteps[1:], np.float32(0))


def rope15(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Rotary tables of a grid, and queries and keys turned by them; clips of all lengths have the same."""
    grid = tuple(case.need("config", "token_grid"))
    cos, sin = rope_table(grid, case.need("config", "dims"), float(case.need("config", "theta")))
    rows = arrays.get("rows", np.arange(len(cos)))
    made = {"token_count": np.asarray([len(cos)]), "cos": cos[rows], "sin": sin[rows], "rows": rows}
    yield from (Pair(name, made[name], arrays[name]) for name in made if name in arrays)
    for name in ("q", "k"):
        if name in case.inputs:
            turned = engine.rotate(tensor(engine, case.input(name)), tensor(engine, cos), tensor(engine, sin))
            yield Pair(f"{name}_rotated", engine.numpy(turned), arrays[f"{name}_rotated"])


def timestep_embedding15(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """The sinusoid and both embedders."""
    values, width = tensor(engine, case.need("inputs", "t")), case.need("config", "hidden_size")
    # Rounded by another machine's exp than in the first set: 5 of 128 differ in their last bit.
    yield Pair("frequencies", FREQUENCIES, arrays["frequencies"])
    yield Pair("embedding", engine.numpy(sinusoid(engine, values)), arrays["embedding"])
    for start, array in (("time_in", "mlp_output"), ("time_r_in", "mlp_output_r")):
        shapes = {"mlp.0.weight": (width, 256), "mlp.0.bias": (width,)}
        shapes |= {"mlp.2.weight": (width, width), "mlp.2.bias": (width,)}
        w = {name: tensor(engine, rule.weight(f"{start}.{name}", shape, case.seed)) for name, shape in shapes.items()}
        yield Pair(array, engine.numpy(scalar_embedding(engine, w, SCALAR_LAYERS, values)), arrays[array])


def schedule15(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Sigmas, timesteps and where steps end, bit for bit."""
    for entry in case.need("config", "combinations"):
        made = schedule(entry["steps"], entry["shift"], is_reverse=entry["reverse"])
        for name, values in (made._asdict() | {"timesteps_r": next_timesteps(made)}).items():
            array = f"{name}_{entry['index']}"
            if array in arrays:
                yield Pair(array, values, arrays[array], "exact")


def buckets15(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """The list of buckets, and bucket, resize and crop of many picture sizes."""
    side = case.need("config", "base_size")
    listed = buckets(side, STEP_15)
    larger = {640: 960, 960: 1440}.get(side, side)
    made: dict[str, list[Any]] = {"bucket": [], "resized": [], "crop_box": []}
    for width, height in arrays["image_size"]:
        bucket = closest_bucket(side, int(height), int(width))
        rows, columns = covering_size(bucket, int(height), int(width))
        top, left = crop_offset(rows, bucket[0]), crop_offset(columns, bucket[1])
        made["bucket"].append(bucket)
        made["resized"].append((columns, rows))
        made["crop_box"].append((left, top, left + bucket[1], top + bucket[0]))
    made |= {"bucket_list": list(listed), "bucket_ratio": [bucket_ratio(bucket) for bucket in listed]}
    made |= {"sr_bucket": [larger_bucket(bucket, larger) for bucket in listed]}
    yield Pair("image_size", arrays["image_size"], arrays["image_size"])
    yield from (
        Pair(name, np.asarray(values), arrays[name], "exact") for name, values in made.items() if name in arrays
    )


def image_preprocess15(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """A picture as the autoencoder gets it, and the vision tower."""
    picture = case.picture()
    bucket = closest_bucket(RESOLUTIONS_15[case.need("config", "resolution")], picture.height, picture.width)
    pixels = np.ascontiguousarray(np.moveaxis(covering_pixels(picture, *bucket), -1, 0))
    digest = np.frombuffer(hashlib.sha256(pixels.tobytes()).digest(), dtype=np.uint8)
    yield Pair("bucket", np.asarray(bucket), arrays["bucket"], "exact")
    yield Pair("sha256_u8", digest, arrays["sha256_u8"], "exact")
    yield tables.thinned(case, "pixels_u8_sub", pixels, arrays["pixels_u8_sub"])
    yield Pair("same_as_vision_crop", np.asarray([True]), arrays["same_as_vision_crop"])


def glyph_texts(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """What of prompts the encoder of quoted text reads."""
    for index, prompt in enumerate(case.need("inputs", "prompts")):
        text = np.frombuffer(glyph_text(prompt).encode(), dtype=np.uint8)
        yield Pair(f"text_{index}", text, arrays[f"text_{index}"], "exact")
