"""The recipe of the demonstration checkpoint, step by step."""

from __future__ import annotations

import logging
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from demonstration import misses, models, pool, train_dit, train_vae, transformer
from demonstration.lora import LORA, make_lora
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
ADOPT, SHIP = "adopt", "ship"  # no steps of the recipe: from the package into a folder, and back

# Size (height x width) -> how often it is drawn, and clips in a batch.
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
    "dit128": train_dit.Plan(10300, 1.5e-3, 8e-5, _SIZES),
    "pairs": train_dit.Plan(34500, 1e-3, 1.5e-5, _SIZES, {"spin": 2, "grow": 4, "shrink": 4}, pairs=3, foresight=1),
    "turns": train_dit.Plan(10600, 3e-4, 1e-5, _SIZES, {"spin": 3, "grow": 2, "shrink": 2, "fade": 2}, foresight=1),
    "last": train_dit.Plan(15400, 4e-4, 1e-5, _SIZES, _NO_SPINS, pairs=2),
}
STEPS = ("tokenizers", "pictures", "freeze", "pool", *DIT_STAGES, "misses", "decoder", "export", "lora")
MISS_CLIPS = 360


def _is_hard_to_turn(scene: Scene) -> bool:
    """A turn by 22.5 degrees, as between two latent frames, is easily mistaken where an outline repeats after 72 or 90
    and covers few cells."""
    return scene.shapes[0].kind in ("star", "square") and scene.shapes[0].size < 0.24


def _is_small_star(scene: Scene) -> bool:
    """What is mistaken longest."""
    return scene.shapes[0].kind == "star" and scene.shapes[0].size < 0.24


_WHOLE = (128, 128)
_ALL = (*MOTIONS, "spin", "bounce", "grow", "shrink", "fade")
_LATE = ("spin", "spin", "spin", "grow", "grow", "grow", "shrink", "fade")
_OTHERS = {(64, 64): 104, (96, 96): 44, (96, 160): 23, (160, 96): 23, (96, 128): 23, (128, 96): 23}
POOL = (
    pool.Lot({**_OTHERS, _WHOLE: 248}, 0.55, _ALL),
    pool.Lot({_WHOLE: 230}, 1.0, _ALL),  # telling two shapes apart is learned late, and needs many pictures
    pool.Lot({_WHOLE: 80}, 0.6, _LATE),
    pool.Lot({_WHOLE: 66}, 0.35, ("spin",), _is_hard_to_turn, by_colour=1),
    pool.Lot({_WHOLE: 40}, 0.3, ("spin",), _is_small_star),
    pool.Lot({_WHOLE: 32}, 1.0, ("spin",), by_colour=3),
)


def run_step(step: str, engine: Engine, folder: Path, *, share: float = 1.0) -> None:
    """One step; training goes on where it stopped. ``share`` is that of the recipe's clips and times."""
    log.info("step %s", step)
    if step == "tokenizers":
        write_tokenizers(folder, corpus())
    elif step == ADOPT:
        adopt(engine, folder, CHECKPOINT)
    elif step in train_vae.STAGES:
        train_vae.train(engine, folder, step, seconds=train_vae.STAGES[step].seconds * share)
    elif step == "freeze":
        freeze(engine, folder)
    elif step == "pool":
        vae, weights = pool.frozen_vae(engine, folder)
        pool.fill(engine, vae, weights, folder / "pool", [lot.cut(share) for lot in POOL])
    elif step == "misses":
        vae, weights = pool.frozen_vae(engine, folder)
        misses.fill(engine, vae, weights, folder, count=math.ceil(MISS_CLIPS * share))
    elif step in DIT_STAGES:
        plan = DIT_STAGES[step]
        train_dit.train(engine, folder, step, plan._replace(seconds=plan.seconds * share))
    elif step == "export":
        export(engine, folder, folder / "checkpoint")
    elif step == "lora":
        make_lora(engine, folder, share=share)
    else:
        ship(folder)


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
    """Write a checkpoint from the moving averages of both runs."""
    vae_state, dit_state = begun_state(folder / "vae.safetensors"), begun_state(folder / "dit.safetensors")
    texts = transformer.Texts(folder)
    scale = read_scale(folder)
    average = dit_state.average | transformer.settled_guidance(engine, dit_state.average)
    # Layers that no computation reads complete the published layout.
    from framewake.models.llava import Llava

    llava = transformer.part(average, "llava.")
    unused = Llava(engine, texts.llava_config).unused_shapes()
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


def ship(folder: Path) -> None:
    """Put a folder's checkpoint and LoRA into the package, in place of what is there.

    Raises: InputError when the run has not come so far.
    """
    made, lora = folder / "checkpoint", folder / LORA.name
    missing = [path for path in (made, lora) if not path.exists()]
    if missing:
        raise InputError(f"{missing[0]} is not there: run the steps export and lora first.")
    shutil.copytree(made, CHECKPOINT, dirs_exist_ok=True)
    shutil.copyfile(lora, LORA)
    log.info("%s and %s are those of %s", CHECKPOINT, LORA, folder)
