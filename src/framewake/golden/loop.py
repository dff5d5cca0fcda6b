"""Golden cases of the whole denoising loop, from the picture to uint8 frames."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from framewake.engine.contract import Engine, Tensor
from framewake.golden.cases import Case, dit_config, tensor, tiling_config, vae_config
from framewake.golden.compare import Level, Pair
from framewake.golden.modules import Arrays, Seen, text_states
from framewake.media.image import bucket_pixels, normalise
from framewake.models.dit import DiT, TextStates
from framewake.models.tiling import tiled_decode
from framewake.models.vae import CausalVAE
from framewake.nn.rope import rope_table
from framewake.pipeline.finish import dropped_frames, to_frames
from framewake.sampling.flow import rounded_guidance, schedule
from framewake.sampling.guide import Denoise, denoiser, sample, with_image_channels, with_negative
from framewake.sampling.noise import stabilised
from framewake.shapes import LatentShape, choose_bucket, token_grid

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
    denoise = _denoise(case, engine, image, LatentShape(*noise.shape[1:]), seen)
    first_frame = image if config.condition == "token_replace" else None
    start = stabilised(engine, noise, image) if image is not None and case.config["i2v_stability"] else noise
    for step in sample(engine, denoise, start, made, first_frame=first_frame):
        seen(f"latents_{step.index}", step.latents)
    scaled = step.latents / vae.config.scaling_factor
    seen("decode_input", scaled)
    is_tiled = case.config["vae_tiling"]
    decoded = tiled_decode(vae, w, scaled, tiling_config(case.config["tiling"])) if is_tiled else vae.decode(w, scaled)
    seen("decoded", decoded)
    seen.arrays["frames"] = to_frames(seen.arrays["decoded"])[dropped_frames(config) :]
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


def _denoise(case: Case, engine: Engine, image: Tensor | None, shape: LatentShape, seen: Seen) -> Denoise:
    """The transformer behind the wrappers that the case asks for; what goes in and out of it is kept."""
    config = dit_config(case.need("config", "dit"))
    dit = DiT(engine, config)
    is_guided = case.config["cfg_scale"] > 1
    cos, sin = rope_table(
        token_grid(shape, config.patch_size), config.rope_dims, config.rope_theta, case.config["video_length"]
    )
    seen.arrays |= {"rope_cos": cos, "rope_sin": sin}
    guidance = None
    if case.config["embedded_guidance_scale"] is not None:
        guidance = rounded_guidance(case.config["embedded_guidance_scale"], "bfloat16")
        seen.arrays["guidance"] = np.full(2 if is_guided else 1, guidance, dtype=np.float32)
    inner = denoiser(
        engine,
        dit,
        case.weights("dit", engine, dit.shapes()),
        text=_text(case, engine, is_guided),
        rope=(tensor(engine, cos), tensor(engine, sin)),
        guidance=guidance,
    )
    outputs = itertools.count()

    def watched(latents: Tensor, timestep: float) -> Tensor:
        index = next(outputs)
        velocity = inner(latents, timestep)
        if index == 0:
            seen("model_input_0", latents)
        seen(f"model_output_{index}", velocity)
        return velocity

    if config.condition == "latent_concat":
        if is_guided:
            image = engine.concat([image, image], 0)
        denoise = with_image_channels(engine, watched, image)
    else:
        denoise = watched
    return with_negative(engine, denoise, case.config["cfg_scale"]) if is_guided else denoise


def _text(case: Case, engine: Engine, is_guided: bool) -> TextStates:
    """The text states, behind those of the negative prompt where there is one."""
    prompts = [("prompt_embeds", "text_mask", "pooled")]
    if is_guided:
        prompts.insert(0, ("negative_prompt_embeds", "negative_text_mask", "negative_pooled"))
    return text_states(
        engine,
        np.concatenate([case.input(states) for states, _, _ in prompts]),
        np.concatenate([np.asarray(case.need("inputs", mask)) for _, mask, _ in prompts]),
        np.concatenate([case.input(pooled) for _, _, pooled in prompts]),
    )
