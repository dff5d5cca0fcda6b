"""Golden cases of the whole denoising loop, from the picture to uint8 frames."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.golden.cases import Case, dit_config, tensor, tiling_config, vae_config
from framewake.golden.compare import Level, Pair
from framewake.golden.modules import Arrays, Seen, manner_among, text_states
from framewake.media.image import bucket_pixels, normalise
from framewake.models.dit import DiT, TextStates
from framewake.models.tiling import tiled_decode
from framewake.models.vae import CausalVAE
from framewake.pipeline.finish import to_frames
from framewake.pipeline.velocity import Condition, Wrapping
from framewake.sampling.flow import schedule
from framewake.sampling.guide import Denoise, sample
from framewake.sampling.noise import stabilised
from framewake.shapes import choose_bucket

EXACT = ("timesteps", "sigmas", "guidance", "pixels")


def end_to_end(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """Every step of a run and what it ends in."""
    seen = Seen(engine)
    config = dit_config(case.need("config", "dit"))
    vae = CausalVAE(engine, vae_config(case.need("config", "vae")))
    w = case.weights("vae", engine, vae.shapes()).part("")
    made = schedule(
        case.need("config", "infer_steps"), case.config["flow_shift"], is_reverse=case.config["flow_reverse"]
    )
    seen.arrays |= made._asdict()
    image = None
    if case.config["i2v_mode"]:
        mean, _ = vae.encode(w, tensor(engine, _pixels(case, seen)))
        image = mean * vae.config.scaling_factor
        seen("image_latents", image)
    noise = tensor(engine, case.input("noise"))
    guidance, frames = case.config["embedded_guidance_scale"], case.config["video_length"]
    wrapping = Wrapping(engine, config, noise.shape[1:], frames, guidance=guidance, dtype="bfloat16")
    condition = Condition(_text(case, engine), image)
    denoise = _denoise(case, DiT(engine, config), wrapping, condition, seen)
    start = stabilised(engine, noise, image) if image is not None and case.config["i2v_stability"] else noise
    for step in sample(engine, denoise, start, made, first_frame=wrapping.first_frame(condition)):
        seen(f"latents_{step.index}", step.latents)
    scaled = step.latents / vae.config.scaling_factor
    seen("decode_input", scaled)
    is_tiled = case.config["vae_tiling"]
    decoded = tiled_decode(vae, w, scaled, tiling_config(case.config["tiling"])) if is_tiled else vae.decode(w, scaled)
    seen("decoded", decoded)
    seen.arrays["frames"] = to_frames(seen.arrays["decoded"])[config.dropped_frames :]
    for pair in seen.pairs(arrays):
        level: Level = "exact" if pair.array in EXACT else "level" if pair.array == "frames" else "loop"
        yield pair._replace(level=level)


def _pixels(case: Case, seen: Seen) -> np.ndarray:
    """The picture as the autoencoder gets it: given as numbers, or made from a photo."""
    if "photo" not in case.inputs:
        return np.clip(case.input("image_pixels"), -1, 1)
    picture = case.picture()
    bucket = choose_bucket(case.need("inputs", "photo", "bucket_base"), picture.height, picture.width)
    seen.arrays["pixels"] = normalise(bucket_pixels(picture, *bucket)[None])[None]
    return seen.arrays["pixels"]


def _denoise(case: Case, dit: DiT, wrapping: Wrapping, condition: Condition, seen: Seen) -> Denoise:
    """The transformer wrapped as the case asks for; what goes in and out of it is kept."""
    engine, scale, outputs = dit.engine, case.config["cfg_scale"], itertools.count()
    weights, manner = case.weights("dit", engine, dit.shapes()), manner_among(engine, dit.config)
    transformer = functools.partial(dit, weights, manner=manner)
    seen("rope_cos", wrapping.rope[0])
    seen("rope_sin", wrapping.rope[1])
    if wrapping.guidance is not None:
        seen.arrays["guidance"] = np.full(2 if scale > 1 else 1, wrapping.guidance, dtype=np.float32)

    def watched(latents: Tensor, *, timestep: Tensor, text: TextStates, guidance: Tensor | None, rope: Any) -> Tensor:
        index = next(outputs)
        velocity = transformer(latents, timestep=timestep, text=text, guidance=guidance, rope=rope)
        if index == 0:
            seen("model_input_0", latents)
        seen(f"model_output_{index}", velocity)
        return velocity

    return wrapping.denoise(watched, condition, scale=scale)


def _text(case: Case, engine: Engine) -> TextStates:
    """The text states, behind those of the negative prompt where there is one."""
    prompts = [("prompt_embeds", "text_mask", "pooled")]
    if case.config["cfg_scale"] > 1:
        prompts.insert(0, ("negative_prompt_embeds", "negative_text_mask", "negative_pooled"))
    return text_states(
        engine,
        np.concatenate([case.input(states) for states, _, _ in prompts]),
        np.concatenate([np.asarray(case.need("inputs", mask)) for _, mask, _ in prompts]),
        np.concatenate([case.input(pooled) for _, _, pooled in prompts]),
    )
