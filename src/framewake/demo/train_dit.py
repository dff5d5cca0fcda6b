"""Training the demonstration's transformer together with its tiny LLaVA and CLIP."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from framewake.demo import models
from framewake.demo.optimiser import Muon, blend, clip_norm
from framewake.demo.pool import Shard, read_shard
from framewake.demo.state import load_state, save_state
from framewake.demo.tokenizers import CLIP_LENGTH
from framewake.demo.wide import WideAttention
from framewake.demo.world import motion_of
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.media.image import CLIP_MEAN, CLIP_STD
from framewake.models.clip_text import ClipText
from framewake.models.dit import DiT, TextStates
from framewake.models.llava import Llava
from framewake.nn.rope import rope_table
from framewake.text.crop import TextLayout
from framewake.text.encode import derive_layout, encode_clip, encode_in_template
from framewake.text.template import VIDEO_I2V
from framewake.text.tokenize import Tokenizer
from framewake.weights.store import Resident

log = logging.getLogger(__name__)

SAVE_SECONDS = 180.0
MOTION_WEIGHT = 15.0
SHIFT = 7.0  # of the training timesteps; most of what a prompt decides happens at high noise
NO_PROMPT = 0.03  # share of clips whose prompt is left out, for classic guidance


class Batch(NamedTuple):
    """One step's data; all prompts have the same number of tokens.

    ``moments`` are the latent frames that are trained on, 0 first: a few of a clip's teach nearly as much as all
    of them and cost less.
    Shapes: latents (B, C, F, h, w), pictures (B, 3, S, S), ids on the host.
    """

    latents: np.ndarray
    pictures: np.ndarray
    llava_ids: np.ndarray
    llava_mask: np.ndarray
    clip_ids: np.ndarray
    clip_mask: np.ndarray
    moments: tuple[int, ...] = ()


class Texts:
    """The two tokenizers, and prompts as ids, remembered."""

    def __init__(self, folder: Path) -> None:
        self.llava = Tokenizer.from_folder(folder / "tokenizer")
        self.clip = Tokenizer.from_folder(folder / "tokenizer_2")
        image, pad = self.llava.token_id("<image>"), self.llava.named_id("pad_token")
        self.llava_config = models.llava(self.llava.vocab_size, image, pad)
        self.clip_config = models.clip_text(self.clip.vocab_size)
        patches = self.llava_config.vision.patches
        self.layout: TextLayout = derive_layout(self.llava, VIDEO_I2V, image_token_id=image, image_tokens=patches)
        self._known: dict[str, tuple] = {}

    def ids(self, prompt: str):
        """(LLaVA ids, mask, CLIP ids, mask) of a prompt, each of one row."""
        if prompt not in self._known:
            text = encode_in_template(self.llava, VIDEO_I2V, prompt, layout=self.layout)
            pooled = encode_clip(self.clip, prompt, CLIP_LENGTH)
            self._known[prompt] = (text.ids, text.mask, pooled.ids, pooled.mask)
        return self._known[prompt]


class Model:
    """Everything that is trained here: DiT, LLaVA, CLIP, in one flat dict of weights with a prefix each."""

    def __init__(self, engine: Engine, texts: Texts) -> None:
        engine = WideAttention(engine)
        self.engine, self.texts = engine, texts
        self.dit = DiT(engine, models.DIT)
        self.llava = Llava(engine, texts.llava_config)
        self.clip = ClipText(engine, texts.clip_config)

    def start(self, seed: int) -> dict[str, np.ndarray]:
        """First weights."""
        shapes: dict[str, tuple[int, ...]] = {}
        for prefix, model in (("dit", self.dit), ("llava", self.llava), ("clip", self.clip)):
            shapes |= {f"{prefix}.{name}": shape for name, shape in model.shapes().items()}
        return models.start_transformer(shapes, seed)

    def text(self, weights: Weights, batch: Batch) -> TextStates:
        """States of a batch whose prompts have the same number of tokens."""
        engine, layout = self.engine, self.texts.layout
        store = Resident(part(weights, "llava."))
        hidden = self.llava(store, batch.llava_ids, batch.llava_mask, engine.asarray(batch.pictures))
        first, last = layout.text_ranges(batch.llava_ids[0], int(batch.llava_mask[0].sum()))
        pieces = [layout.picture(hidden, models.DIT.image_interleave)]
        pieces += [hidden[:, layout.merged(r.start) : layout.merged(r.stop)] for r in (first, last) if len(r)]
        states = engine.concat(pieces, 1)
        pooled, _ = self.clip(Resident(part(weights, "clip.")), batch.clip_ids, batch.clip_mask)
        return TextStates(states, (int(states.shape[1]),) * len(batch.llava_ids), pooled)

    def loss(self, weights: Weights, batch: Batch, noise: Tensor, sigma: np.ndarray, guidance: np.ndarray) -> Tensor:
        """Flow-matching loss of latent frames 1.. with the first frame replaced (specification, 10.3)."""
        engine = self.engine
        half = {n: engine.cast(w, "bfloat16") for n, w in weights.items()} if engine.kind == "torch" else weights
        kind = engine.dtype(next(iter(half.values())))
        text = self.text(weights, batch)
        text = text._replace(states=engine.cast(text.states, kind), pooled=engine.cast(text.pooled, kind))
        clean = engine.asarray(batch.latents)
        share = engine.asarray(sigma.reshape(-1, 1, 1, 1, 1))
        noisy = clean * (1.0 - share) + noise * share
        noisy = engine.concat([clean[:, :, :1], noisy[:, :, 1:]], 2)
        rope = rope_of(batch.moments, (int(clean.shape[3]) // 2, int(clean.shape[4]) // 2))
        velocity = self.dit(
            Resident(part(half, "dit.")),
            engine.cast(noisy, kind),
            timestep=engine.asarray(sigma * np.float32(1000)),
            guidance=engine.asarray(guidance * np.float32(1000)),
            text=text,
            rope=(engine.asarray(rope[0]), engine.asarray(rope[1])),
        )
        error = engine.cast(velocity, "float32")[:, :, 1:] - (noise - clean)[:, :, 1:]
        weight = engine.asarray(motion_weight(batch.latents))
        return engine.mean(error * error * weight, (0, 1, 2, 3, 4))


def rope_of(moments: tuple[int, ...], grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The rotary tables of some latent frames of a clip. Shapes: two (frames * grid, head width) float32."""
    frames, cells = max(moments) + 1, grid[0] * grid[1]
    tables = rope_table((frames, *grid), models.DIT.rope_dims, models.DIT.rope_theta, 4 * frames - 3)
    cos, sin = (t.reshape(frames, cells, -1)[list(moments)].reshape(len(moments) * cells, -1) for t in tables)
    return cos, sin


def motion_weight(latents: np.ndarray) -> np.ndarray:
    """More weight where a frame differs from the first one, mean 1 in each clip: most of every picture never changes.

    Picture and prompt decide the clip, so the weight shifts effort, not the answer.
    Shapes: (B, C, F, h, w) -> (B, 1, F - 1, h, w) float32.
    """
    change = np.mean((latents - latents[:, :, :1]) ** 2, axis=1, keepdims=True)[:, :, 1:]
    weight = 1 + MOTION_WEIGHT * np.minimum(change, 2)
    return (weight / weight.mean((1, 2, 3, 4), keepdims=True)).astype(np.float32)


class Clips:
    """The pool as batches: the newest shards are picked up while training."""

    def __init__(self, folder: Path, texts: Texts, scale: float, *, spins: int = 1, pairs: int = 1) -> None:
        self.folder, self.texts, self.scale, self.spins, self.pairs = folder, texts, scale, spins, pairs
        self.shards: dict[str, list[Shard]] = defaultdict(list)
        self.seen: set[Path] = set()
        # size -> number of prompt tokens -> (shard, clip, prompt)
        self.by_length: dict[str, dict[int, list[tuple[int, int, int]]]] = defaultdict(lambda: defaultdict(list))

    def refresh(self) -> int:
        """Read shards that have appeared; the number of clips at hand."""
        for path in sorted(self.folder.glob("*x*/*.npz")):
            if path in self.seen:
                continue
            self.seen.add(path)
            size, shard = path.parent.name, read_shard(path)
            self.shards[size].append(shard)
            for clip, prompts in enumerate(shard.prompts):
                is_pair = any(" while " in prompt for prompt in prompts)  # nearly every pair has such a prompt
                for number, prompt in enumerate(prompts):
                    length = int(self.texts.ids(prompt)[1].sum())
                    entry = (len(self.shards[size]) - 1, clip, number)
                    times = (self.spins if motion_of(prompt) == "spin" else 1) * (self.pairs if is_pair else 1)
                    self.by_length[size][length] += [entry] * times
        return sum(len(shard.prompts) for shards in self.shards.values() for shard in shards)

    def draw(self, rng: np.random.Generator, size: str, count: int) -> Batch:
        """A batch of one size whose prompts have the same length."""
        lengths = [n for n, entries in self.by_length[size].items() if len(entries) >= 4]
        odds = np.array([len(self.by_length[size][n]) for n in lengths], float)
        entries = self.by_length[size][int(rng.choice(lengths, p=odds / odds.sum()))]
        chosen = [entries[int(i)] for i in rng.integers(0, len(entries), count)]
        is_silent = rng.random() < NO_PROMPT
        rows, latents, pictures = [], [], []
        for shard_number, clip, prompt in chosen:
            shard = self.shards[size][shard_number]
            rows.append(self.texts.ids("" if is_silent else shard.prompts[clip][prompt]))
            latents.append(shard.latents[clip])
            pictures.append(shard.pictures[clip])
        moments = sample_moments(rng, latents[0].shape[1])
        llava_ids, llava_mask, clip_ids, clip_mask = (np.concatenate(column) for column in zip(*rows, strict=True))
        unit = np.stack(pictures).astype(np.float32) / 255
        unit = (unit - np.asarray(CLIP_MEAN, np.float32)) / np.asarray(CLIP_STD, np.float32)
        return Batch(
            np.stack(latents).astype(np.float32)[:, :, list(moments)] * np.float32(self.scale),
            np.ascontiguousarray(unit.transpose(0, 3, 1, 2)),
            llava_ids,
            llava_mask,
            clip_ids,
            clip_mask,
            moments,
        )


def sample_moments(rng: np.random.Generator, frames: int) -> tuple[int, ...]:
    """Frame 0 and, mostly, four others; sometimes all, or a shorter clip's."""
    choice = rng.random()
    if choice < 0.85:
        return (0, *sorted(int(i) for i in 1 + rng.choice(frames - 1, 4, replace=False)))
    return tuple(range(frames if choice < 0.97 else int(rng.choice((3, 5)))))


class Plan(NamedTuple):
    """One stage: how long, at which rates, and which sizes at which batch (size -> (odds, batch)).

    ``spins`` and ``pairs`` are how often a clip that spins, and one of two shapes, stand in the pool: both are learned
    late and only where they are many.
    """

    seconds: float
    lr_start: float
    lr_end: float
    sizes: dict[str, tuple[float, int]]
    spins: int = 1
    pairs: int = 1


def train(engine: Engine, folder: Path, stage: str, plan: Plan) -> None:
    """Run one stage, from where the folder's state stands; safe to stop and start again."""
    texts = Texts(folder)
    model = Model(engine, texts)
    state = load_state(folder / "dit.safetensors")
    weights = {n: engine.asarray(a) for n, a in (state.weights if state else model.start(1)).items()}
    average = {n: engine.asarray(a) for n, a in state.average.items()} if state else weights
    progress = dict(state.progress) if state else {}
    spent = progress.get(stage, 0.0)
    scale = float((folder / "scale.txt").read_text())
    clips = Clips(folder / "pool", texts, scale, spins=plan.spins, pairs=plan.pairs)
    optimiser = Muon(engine, weights, plain=("dit.final_layer", "dit.img_in", "llava.language_model.model.embed",
                                             "clip.text_model.embeddings"))  # fmt: skip
    step = engine.grad(model.loss)
    rng = np.random.default_rng(int(spent * 1000) + 5)
    start = saved = time.monotonic()
    for number in _until(lambda: spent + time.monotonic() - start < plan.seconds):
        if number % 50 == 0:
            known = clips.refresh()
        done = spent + time.monotonic() - start
        lr = plan.lr_start * (plan.lr_end / plan.lr_start) ** (done / plan.seconds) * min(1.0, (number + 1) / 50)
        batch, noise, sigma, guidance = _sample(rng, clips, plan)
        value, grads = step(weights, batch, engine.asarray(noise), sigma, guidance)
        grads, norm = clip_norm(engine, grads, 1.0)
        weights = optimiser.step(weights, grads, lr, lr)
        average = blend(average, weights, min(0.998, 1 - 1 / (number + 1))) if number or not state else average
        _report(engine, number, value, (stage, done, norm, lr, known))
        if time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            progress[stage] = spent + saved - start
            save_state(folder / "dit.safetensors", engine, weights=weights, average=average, progress=progress)
    progress[stage] = plan.seconds
    save_state(folder / "dit.safetensors", engine, weights=weights, average=average, progress=progress)


def part(weights: Weights, prefix: str) -> Weights:
    """The weights of one model, without its prefix."""
    return {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}


def _until(goes_on) -> Iterator[int]:
    number = 0
    while goes_on():
        yield number
        number += 1


def _sample(rng: np.random.Generator, clips: Clips, plan: Plan):
    sizes = [size for size in plan.sizes if clips.by_length[size]]
    odds = np.array([plan.sizes[size][0] for size in sizes])
    size = sizes[int(rng.choice(len(sizes), p=odds / odds.sum()))]
    batch = clips.draw(rng, size, plan.sizes[size][1])
    count = len(batch.latents)
    noise = rng.standard_normal(batch.latents.shape).astype(np.float32)
    u = 1 / (1 + np.exp(-rng.standard_normal(count)))
    sigma = (SHIFT * u / (1 + (SHIFT - 1) * u)).astype(np.float32)
    guidance = rng.uniform(1, 10, count).astype(np.float32)
    return batch, noise, sigma, guidance


_recent: list[float] = []


def _report(engine: Engine, number: int, value: Tensor, facts: tuple) -> None:
    _recent.append(float(engine.numpy(value)))
    if number % 50 == 49:
        stage, done, norm, lr, known = facts
        log.info(
            "%s %d %.0fs loss %.4f norm %.2f lr %.1e clips %d",
            stage,
            number + 1,
            done,
            np.mean(_recent),
            norm,
            lr,
            known,
        )
        _recent.clear()
