"""The recipe of the demonstration checkpoint, step by step."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np

from demonstration import misses, models, pool, train_dit, train_vae, transformer
from demonstration.lora import make_lora
from demonstration.state import begun_state, read_scale, save_state, write_scale
from demonstration.tokenizers import carried_rows, write_tokenizers
from demonstration.world import DOMAIN, FRAMES_PER_SECOND, FULL_FRAMES, MOTIONS, Scene, corpus
from framewake.config import HUNYUAN_TILING
from framewake.demo import CHECKPOINT
from framewake.engine.contract import Engine, Weights
from framewake.errors import InputError
from framewake.media.image import CLIP_MEAN, CLIP_STD
from framewake.models.vae import CausalVAE
from framewake.weights.checkpoint.load import ImageProcessor, open_checkpoint
from framewake.weights.checkpoint.settings import Settings
from framewake.weights.reading.mapped import MappedTensors
from framewake.weights.writing.export import write_checkpoint

log = logging.getLogger(__name__)

STEPS = (
    "tokenizers",
    "pictures",
    "freeze",
    "pool64",
    "dit64",
    "pool128",
    "dit128",
    "spins",
    "poolpairs",
    "pairs",
    "kinds",
    "poollate",
    "late",
    "poolturns",
    "turns",
    "poolstars",
    "stars",
    "poolagain",
    "again",
    "poolnames",
    "poolsmall",
    "poollast",
    "last",
    "misses",
    "decoder",
    "export",
    "lora",
)
SETTINGS = Settings(
    name="framewake demonstration",
    is_demo=True,
    resolutions=models.RESOLUTION_BASES,
    frames=FULL_FRAMES,
    steps=20,
    fps=FRAMES_PER_SECOND,
    negative_prompt="deformation",
    tiling=HUNYUAN_TILING,
    domain=DOMAIN,
)
EMBEDDINGS = {
    "tokenizer": "llava.language_model.model.embed_tokens.weight",
    "tokenizer_2": "clip.text_model.embeddings.token_embedding.weight",
}
ADOPT = "adopt"  # no step of the recipe: takes up training where the shipped checkpoint stands

_SIZES = {
    "128x128": (0.66, 16),
    "64x64": (0.1, 32),
    "96x96": (0.08, 24),
    "96x160": (0.04, 16),
    "160x96": (0.04, 16),
    "96x128": (0.04, 16),
    "128x96": (0.04, 16),
}
_NO_SPINS = {motion: 2 for motion in MOTIONS if motion != "spin"}
DIT_STAGES = {
    "dit64": train_dit.Plan(2200, 2e-3, 1.3e-3, {"64x64": (1.0, 24)}),
    "dit128": train_dit.Plan(7600, 1.5e-3, 2e-4, _SIZES, often={"spin": 2}),
    "spins": train_dit.Plan(2700, 7e-4, 8e-5, _SIZES, often={"spin": 8}),
    "pairs": train_dit.Plan(22900, 1e-3, 1.5e-5, _SIZES, {"spin": 4, "grow": 5, "shrink": 5}, pairs=3, foresight=1),
    "kinds": train_dit.Plan(11600, 2.5e-4, 1.5e-5, _SIZES, {"spin": 7, "grow": 4, "shrink": 4, "fade": 2}, foresight=1),
    "late": train_dit.Plan(4680, 2.5e-4, 1e-5, _SIZES, {"spin": 4, "grow": 3, "shrink": 3, "fade": 2}, foresight=1),
    "turns": train_dit.Plan(5900, 3e-4, 1e-5, _SIZES, {"spin": 5, "grow": 2, "shrink": 2, "fade": 2}, foresight=1),
    "stars": train_dit.Plan(5130, 4e-4, 1e-5, _SIZES, _NO_SPINS, pairs=2),
    "again": train_dit.Plan(5100, 4e-4, 1e-5, _SIZES, _NO_SPINS, pairs=2),
    "last": train_dit.Plan(5200, 4e-4, 1e-5, _SIZES, _NO_SPINS),
}
MISS_CLIPS = 360


def _is_hard_to_turn(scene: Scene) -> bool:
    """A turn by 22.5 degrees, as between two latent frames, is easily mistaken where an outline repeats after 72 or 90
    and covers few cells."""
    return scene.shapes[0].kind in ("star", "square") and scene.shapes[0].size < 0.24


def _is_small_star(scene: Scene) -> bool:
    """What is mistaken longest."""
    return scene.shapes[0].kind == "star" and scene.shapes[0].size < 0.24


_LATE = ("spin", "spin", "spin", "grow", "grow", "grow", "shrink", "fade")
_AGAIN = (*MOTIONS, "grow", "shrink", "shrink", "bounce", "left", "down-left", "fade")  # colours were worst
POOLS = {
    "pool64": pool.Plan(0.6, {(64, 64): 64}),
    "pool128": pool.Plan(
        0.6, {(128, 128): 96, (96, 96): 24, (96, 160): 16, (160, 96): 16, (96, 128): 16, (128, 96): 16}
    ),
    "poolpairs": pool.Plan(1.0, {(128, 128): 326}),  # telling two shapes apart is learned late, and needs many pictures
    "poollate": pool.Plan(0.6, {(128, 128): 406}, _LATE),
    "poolturns": pool.Plan(0.3, {(128, 128): 456}, ("spin",), _is_hard_to_turn),
    "poolstars": pool.Plan(0.3, {(128, 128): 496}, ("spin",), _is_small_star),
    "poolagain": pool.Plan(
        0.5,
        {(128, 128): 576, (64, 64): 88, (96, 96): 36, (96, 160): 20, (160, 96): 20, (96, 128): 20, (128, 96): 20},
        _AGAIN,
    ),
    "poolnames": pool.Plan(1.0, {(128, 128): 608}, ("spin",), by_colour=3),
    "poolsmall": pool.Plan(0.5, {(128, 128): 624}, ("spin",), _is_hard_to_turn, by_colour=2),
    "poollast": pool.Plan(
        0.5,
        {(128, 128): 696, (64, 64): 104, (96, 96): 44, (96, 160): 23, (160, 96): 23, (96, 128): 23, (128, 96): 23},
        _AGAIN,
        by_colour=1,
    ),
}


def run_step(step: str, engine: Engine, folder: Path, *, seconds: float | None = None) -> None:
    """One step; training goes on where it stopped."""
    log.info("step %s", step)
    if step == "tokenizers":
        write_tokenizers(folder, corpus())
    elif step == ADOPT:
        adopt(engine, folder, CHECKPOINT)
    elif step in train_vae.STAGES:
        train_vae.train(engine, folder, step, seconds=seconds)
    elif step == "freeze":
        freeze(engine, folder)
    elif step in POOLS:
        vae, weights = pool.frozen_vae(engine, folder)
        pool.fill(engine, vae, weights, folder / "pool", POOLS[step])
    elif step == "misses":
        vae, weights = pool.frozen_vae(engine, folder)
        misses.fill(engine, vae, weights, folder, count=MISS_CLIPS)
    elif step in DIT_STAGES:
        plan = DIT_STAGES[step]
        train_dit.train(engine, folder, step, plan if seconds is None else plan._replace(seconds=seconds))
    elif step == "export":
        export(engine, folder, CHECKPOINT)
    else:
        make_lora(engine, folder, seconds=seconds)


def adopt(engine: Engine, folder: Path, source: Path) -> None:
    """Begin a run in an empty folder from a checkpoint's weights instead of from random ones.

    Words that the world has got since then begin as what the checkpoint's tokenizers make of them.
    Raises: InputError when the folder already holds a run.
    """
    if (folder / "dit.safetensors").exists():
        raise InputError(f"{folder} already holds a run: name an empty folder.")
    checkpoint = open_checkpoint(source)
    write_tokenizers(folder, corpus())
    write_scale(folder, checkpoint.vae.scaling_factor)
    vae = read_all(checkpoint.tensors("vae"))
    done = {step: stage.seconds for step, stage in train_vae.STAGES.items()}
    weights = as_tensors(engine, vae)
    save_state(folder / "vae.safetensors", engine, weights=weights, average=weights, progress=done)
    found: dict[str, np.ndarray] = {}
    parts = {"dit": checkpoint.tensors("dit"), "llava": checkpoint.tensors("llava")}
    parts["clip"] = checkpoint.tensors("clip_text")
    for prefix, tensors in parts.items():
        found |= {f"{prefix}.{name}": value for name, value in read_all(tensors).items()}
    for tokenizer, table in EMBEDDINGS.items():
        found[table] = carried_rows(source / tokenizer, folder / tokenizer, found[table])
    wanted = transformer.Model(engine, transformer.Texts(folder)).start(1)
    weights = as_tensors(engine, {name: found[name] for name in wanted})
    save_state(folder / "dit.safetensors", engine, weights=weights, average=weights, progress={})


def read_all(tensors: MappedTensors) -> dict[str, np.ndarray]:
    """Every tensor of a component in float32."""
    return {name: np.asarray(tensors.read(name), np.float32) for name in tensors.names()}


def as_tensors(engine: Engine, arrays: dict[str, np.ndarray]) -> Weights:
    """Arrays on the engine."""
    return {name: engine.asarray(array) for name, array in arrays.items()}


def freeze(engine: Engine, folder: Path) -> None:
    """Settle the encoder: the moving average becomes a clip's weights, and the latents' spread the scaling factor.

    Once a run: what the decoder has learned since about time would be summed up and lost.
    """
    if (folder / "scale.txt").exists():
        log.info("settled before")
        return
    state = begun_state(folder / "vae.safetensors")
    weights = as_tensors(engine, train_vae.inflate(state.average))
    save_state(folder / "vae.safetensors", engine, weights=weights, average=weights, progress=state.progress)
    vae = CausalVAE(engine, models.VAE)
    pixels = train_vae.sample_pixels(np.random.default_rng(77), 64, 1, 128)
    scale = round(float(1 / np.std(engine.numpy(vae.encode(weights, engine.asarray(pixels))[0]))), 6)
    write_scale(folder, scale)
    log.info("scaling factor %s", scale)


def export(engine: Engine, folder: Path, target: Path) -> None:
    """Write the shipped checkpoint from the moving averages of both runs."""
    vae_state, dit_state = begun_state(folder / "vae.safetensors"), begun_state(folder / "dit.safetensors")
    texts = transformer.Texts(folder)
    scale = read_scale(folder)
    average = dit_state.average | transformer.settled_guidance(engine, dit_state.average)
    # Layers that no computation reads complete the published layout.
    from framewake.models.llava import Llava

    llava = transformer.part(average, "llava.")
    unused = Llava(None, texts.llava_config).unused_shapes()
    llava |= {n: np.zeros(s, np.float32) if len(s) > 1 else np.ones(s, np.float32) for n, s in unused.items()}
    parts = dict(
        dit=(models.DIT, transformer.part(average, "dit.")),
        vae=(replace(models.VAE, scaling_factor=scale), vae_state.average),
        llava=(texts.llava_config, llava),
        clip_text=(texts.clip_config, transformer.part(average, "clip.")),
    )
    processor = ImageProcessor(size_px=pool.LLAVA_SIDE, mean=CLIP_MEAN, std=CLIP_STD)
    write_checkpoint(target, parts, settings=SETTINGS, image_processor=processor)
    write_tokenizers(target, corpus())
    log.info("checkpoint of %.1f MB", sum(f.stat().st_size for f in target.rglob("*") if f.is_file()) / 1e6)
