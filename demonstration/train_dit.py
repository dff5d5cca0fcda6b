"""Training the demonstration's transformer together with its tiny LLaVA and CLIP."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from demonstration.foresight import HEAD, FirstFrames, Foresight, fitted_head
from demonstration.optimiser import Muon, blend, clip_norm
from demonstration.pool import Shard, frozen_vae, read_shard
from demonstration.reader import begun_reader
from demonstration.state import load_state, read_scale, save_state
from demonstration.transformer import Batch, Model, Texts, draw_guidance, draw_sigma, draw_steps_before
from demonstration.world import motion_of
from framewake.engine.contract import Engine, Tensor
from framewake.media.image import CLIP_MEAN, CLIP_STD

log = logging.getLogger(__name__)

SAVE_SECONDS = 180.0
NO_PROMPT = 0.03  # share of clips whose prompt is left out, for classic guidance


class Clips:
    """The pool as batches: the newest shards are picked up while training."""

    def __init__(
        self, folder: Path, texts: Texts, scale: float, *, often: Mapping[str, int] = {}, pairs: int = 1
    ) -> None:
        self.folder, self.texts, self.scale, self.often, self.pairs = folder, texts, scale, often, pairs
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
                    times = self.often.get(motion_of(prompt), 1) * (self.pairs if is_pair else 1)
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

    ``often`` (by motion) and ``pairs`` are how many times a clip of that motion, and one of two shapes, stand in the
    pool: some are learned late and only where they are many.  ``foresight`` is how many steps on first frames alone
    follow each on clips (see ``demonstration.foresight``).
    """

    seconds: float
    lr_start: float
    lr_end: float
    sizes: dict[str, tuple[float, int]]
    often: Mapping[str, int] = {}
    pairs: int = 1
    foresight: int = 0


def train(engine: Engine, folder: Path, stage: str, plan: Plan) -> None:
    """Run one stage, from where the folder's state stands; safe to stop and start again."""
    texts = Texts(folder)
    vae, vae_weights = frozen_vae(engine, folder)
    scale = read_scale(folder)
    model = Model(engine, texts, reader=begun_reader(engine, vae, vae_weights, folder, scale))
    state = load_state(folder / "dit.safetensors")
    weights = {n: engine.asarray(a) for n, a in (state.weights if state else model.start(1)).items()}
    average = {n: engine.asarray(a) for n, a in state.average.items()} if state else weights
    progress = dict(state.progress) if state else {}
    spent = progress.get(stage, 0.0)
    clips = Clips(folder / "pool", texts, scale, often=plan.often, pairs=plan.pairs)
    frames = FirstFrames(engine, (vae, vae_weights), texts, scale)
    if plan.foresight and HEAD + "weight" not in weights:
        head = {n: engine.asarray(a) for n, a in fitted_head(model, weights, frames).items()}
        weights, average = weights | head, average | head
    plain = (HEAD, "dit.final_layer", "dit.img_in", "llava.language_model.model.embed", "clip.text_model.embeddings")
    optimiser = Muon(engine, weights, plain=plain)
    step, foresight = engine.grad(model.loss), Foresight(model, optimiser)
    rng = np.random.default_rng(int(spent * 1000) + 5)
    start = saved = time.monotonic()
    for number in _until(lambda: spent + time.monotonic() - start < plan.seconds) if spent < plan.seconds else ():
        if number % 50 == 0:
            known = clips.refresh()
        done = min(spent + time.monotonic() - start, plan.seconds)
        lr = plan.lr_start * (plan.lr_end / plan.lr_start) ** (done / plan.seconds) * min(1.0, (number + 1) / 50)
        for _ in range(plan.foresight):
            weights = foresight.step(weights, frames.draw(rng), lr)
        batch, noise, sigma, guidance = _sample(rng, clips, plan)
        start_noise, missed = engine.asarray(noise), draw_steps_before(rng, sigma)
        off = None
        if missed is not None:
            off = model.first_miss(weights, batch, start_noise, guidance) * engine.asarray(missed)
        value, grads = step(weights, batch, start_noise, sigma, guidance, off)
        grads, norm = clip_norm(engine, grads, 1.0)
        weights = weights | optimiser.step({n: w for n, w in weights.items() if not n.startswith(HEAD)}, grads, lr, lr)
        average = blend(average, weights, min(0.998, 1 - 1 / (number + 1))) if number or not state else average
        _report(engine, number, value, (stage, done, norm, lr, known, foresight.value))
        if time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            progress[stage] = spent + saved - start
            save_state(folder / "dit.safetensors", engine, weights=weights, average=average, progress=progress)
    progress[stage] = plan.seconds
    save_state(folder / "dit.safetensors", engine, weights=weights, average=average, progress=progress)


def _until(goes_on) -> Iterator[int]:
    yield 0  # a busy machine may have used up a short time before the first step
    number = 1
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
    sigma = draw_sigma(rng, count)
    return batch, noise, sigma, draw_guidance(rng, count)


_recent: list[float] = []


def _report(engine: Engine, number: int, value: Tensor, facts: tuple) -> None:
    _recent.append(float(engine.numpy(value)))
    if number % 50 == 49:
        stage, done, norm, lr, known, foresight = facts
        log.info(
            "%s %d %.0fs loss %.4f norm %.2f lr %.1e clips %d foresight %.4f",
            stage,
            number + 1,
            done,
            np.mean(_recent),
            norm,
            lr,
            known,
            foresight,
        )
        _recent.clear()
