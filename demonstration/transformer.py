"""The demonstration's transformer with its tiny LLaVA and CLIP, as one thing to train."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from demonstration import models
from demonstration.reader import read_colours
from demonstration.tokenizers import CLIP_LENGTH
from demonstration.wide import WideAttention
from framewake.engine.contract import Dtype, Engine, Tensor, Weights
from framewake.errors import CheckpointError
from framewake.models.clip_text import ClipText
from framewake.models.dit import SCALAR_LAYERS, DiT, TextStates
from framewake.models.llava import Llava
from framewake.nn.embedding import scalar_embedding
from framewake.nn.rope import rope_table
from framewake.text.crop import TextLayout
from framewake.text.encode import derive_layout, encode_clip, encode_in_template
from framewake.text.template import VIDEO_I2V
from framewake.text.tokenize import Tokenizer
from framewake.weights.stores.store import Resident

SHIFT = 7.0  # of the training timesteps; most of what a prompt decides happens at high noise
NOISE_ALONE = 0.15  # share of noise levels that are 1
COLOUR_WEIGHT = 15.0  # of squared errors of colours in [-1, 1], beside 1 for those of latents
GUIDANCES = (1.0, 10.0)  # embedded scales that are trained at
LEAST_SIGMA = 0.3  # errors of colours grow by no more than this for being made at little noise
MOST_MISSED = 1.5  # times what one step gets wrong, for later steps to take back
LEAST_CORRECTED = 0.2  # noise level from which on it is asked for: what is to be taken back grows with 1 / sigma
TYPICAL_CHANGE, LEAST_CHANGE = 0.2, 0.015  # mean squared difference from the first frame


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
        if image is None or pad is None:
            raise CheckpointError(f"{folder / 'tokenizer'} has no <image> or no padding: make the tokenizers again.")
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
    """Everything that is trained here: DiT, LLaVA, CLIP, in one flat dict of weights with a prefix each.

    ``reader`` are the weights of ``demonstration.reader``, by which errors are measured in colours too; without it in
    latents only.
    """

    def __init__(self, engine: Engine, texts: Texts, *, reader: Weights | None = None) -> None:
        engine = WideAttention(engine)
        self.engine, self.texts, self.reader = engine, texts, reader
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

    def half(self, weights: Weights, batch: Batch) -> tuple[Weights, TextStates]:
        """Weights and a batch's text in the type that the transformer is trained in; the text is made in float32."""
        engine = self.engine
        kind: Dtype = "bfloat16" if "bfloat16" in engine.traits.products else "float32"
        text = self.text(weights, batch)
        text = text._replace(states=engine.cast(text.states, kind), pooled=engine.cast(text.pooled, kind))
        return {n: engine.cast(w, kind) for n, w in weights.items()}, text

    def loss(
        self,
        weights: Weights,
        batch: Batch,
        noise: Tensor,
        sigma: np.ndarray,
        guidance: np.ndarray,
        off: Tensor | None,
    ) -> Tensor:
        """Flow-matching loss of latent frames 1.. with the first frame replaced (specification, 10.3).

        ``off`` is added to the clean latents that the noisy ones are made of, and is to be taken back: a run's later
        steps see what its earlier ones got wrong.
        Shapes: noise and off (B, C, F, h, w), sigma and guidance (B,).
        """
        engine = self.engine
        half, text = self.half(weights, batch)
        clean = engine.asarray(batch.latents)
        share = engine.asarray(sigma.reshape(-1, 1, 1, 1, 1))
        noisy = (clean if off is None else clean + off) * (1.0 - share) + noise * share
        wanted = (noisy - clean) / share  # noise - clean, where nothing is off
        velocity = self._velocity(half, batch, text, noisy, (sigma, guidance))
        error = velocity[:, :, 1:] - wanted[:, :, 1:]
        weight = engine.asarray(clip_weight(batch.latents))
        value = engine.mean(error * error * weight, (0, 1, 2, 3, 4))
        if self.reader is None:
            return value
        # What is off in the clean latents that the velocity leads to; less than it would be where little noise is left.
        found = self._read(clean[:, :, 1:] - error * share) - self._read(clean[:, :, 1:])
        scale = engine.asarray((1 / np.maximum(sigma, LEAST_SIGMA)).reshape(-1, 1, 1, 1, 1).astype(np.float32))
        found = found * scale
        return value + engine.mean(found * found * weight, (0, 1, 2, 3, 4)) * COLOUR_WEIGHT

    def first_miss(self, weights: Weights, batch: Batch, noise: Tensor, guidance: np.ndarray) -> Tensor:
        """What the clip is off by that noise alone leads to in one step. Shapes: (B, C, F, h, w)."""
        half, text = self.half(weights, batch)
        clean = self.engine.asarray(batch.latents)
        velocity = self._velocity(half, batch, text, noise, (np.ones_like(guidance), guidance))
        return noise - velocity - clean

    def _velocity(
        self,
        half: Weights,
        batch: Batch,
        text: TextStates,
        noisy: Tensor,
        told: tuple[np.ndarray, np.ndarray],
    ) -> Tensor:
        """The transformer's velocity in float32, the first frame replaced; ``told`` are noise levels and guidances."""
        engine = self.engine
        kind = engine.dtype(text.states)
        sigma, guidance = told
        kept = engine.asarray(np.ascontiguousarray(batch.latents[:, :, :1]))
        rope = rope_of(batch.moments, (int(noisy.shape[3]) // 2, int(noisy.shape[4]) // 2))
        velocity = self.dit(
            Resident(part(half, "dit.")),
            engine.cast(engine.concat([kept, noisy[:, :, 1:]], 2), kind),
            timestep=engine.asarray(sigma * np.float32(1000)),
            guidance=engine.asarray(guidance * np.float32(1000)),
            text=text,
            rope=(engine.asarray(rope[0]), engine.asarray(rope[1])),
        )
        return engine.cast(velocity, "float32")

    def _read(self, latents: Tensor) -> Tensor:
        """Colours (B, F, N, h, w) of latents (B, C, F, h, w)."""
        assert self.reader is not None
        batch, channels, frames, height, width = latents.shape
        flat = self.engine.reshape(self.engine.permute(latents, (0, 2, 1, 3, 4)), (-1, channels, height, width))
        found = read_colours(self.engine, self.reader, flat)
        return self.engine.reshape(found, (batch, frames, -1, height, width))


def rope_of(moments: tuple[int, ...], grid: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The rotary tables of some latent frames of a clip. Shapes: two (frames * grid, head width) float32."""
    frames, cells = max(moments) + 1, grid[0] * grid[1]
    tables = rope_table((frames, *grid), models.DIT.rope_dims, models.DIT.rope_theta, 4 * frames - 3)
    cos, sin = (t.reshape(frames, cells, -1)[list(moments)].reshape(len(moments) * cells, -1) for t in tables)
    return cos, sin


def draw_sigma(rng: np.random.Generator, count: int) -> np.ndarray:
    """Noise levels to train at, noise alone among them: every run begins there. Shapes: (count,) float32, 0 to 1."""
    u = 1 / (1 + np.exp(-rng.standard_normal(count)))
    sigma = (SHIFT * u / (1 + (SHIFT - 1) * u)).astype(np.float32)
    return np.where(rng.random(count) < NOISE_ALONE, np.float32(1), sigma)


def draw_steps_before(rng: np.random.Generator, sigma: np.ndarray) -> np.ndarray | None:
    """How much of what one step from noise alone gets wrong is in the clips that later steps begin from; in half of all
    draws nothing, as in plain flow matching. Shapes: (count,) -> (count, 1, 1, 1, 1) float32, or None.
    """
    if rng.random() < 0.5:
        return None
    share = rng.uniform(0, MOST_MISSED, len(sigma)) * (sigma > LEAST_CORRECTED)
    return share.reshape(-1, 1, 1, 1, 1).astype(np.float32)


def draw_guidance(rng: np.random.Generator, count: int) -> np.ndarray:
    """Embedded scales to train at. They say nothing, since nothing was distilled; what is told one and the same scale
    in a second kind of step learns from it which kind it is, and is at a loss where a user asks for that scale.
    Shapes: (count,) float32."""
    return rng.uniform(*GUIDANCES, count).astype(np.float32)


def settled_guidance(engine: Engine, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What replaces some weights, so that every scale is told as those that were trained at are in the mean.

    Left as they are, each scale moves the clip a little, and those that were never trained at spoil it.
    """
    embedder = {n: engine.asarray(a) for n, a in part(arrays, "dit.guidance_in.").items()}
    scales = engine.asarray(np.linspace(*GUIDANCES, 4096, dtype=np.float32) * np.float32(1000))
    told = engine.numpy(scalar_embedding(engine, embedder, SCALAR_LAYERS, scales)).astype(float).mean(0)
    last = "dit.guidance_in." + SCALAR_LAYERS[1]
    return {last + ".weight": np.zeros_like(arrays[last + ".weight"]), last + ".bias": told.astype(np.float32)}


def clip_weight(latents: np.ndarray) -> np.ndarray:
    """More weight for clips in which little changes: one small motion counts about as much as one large one.

    The same everywhere in a clip: a weight that follows the truth's own motion would let a shape move that should
    not, because what falsely moves stands where the truth is still.
    Shapes: (B, C, F, h, w) -> (B, 1, 1, 1, 1) float32.
    """
    change = np.mean((latents[:, :, 1:] - latents[:, :, :1]) ** 2, axis=(1, 2, 3, 4), keepdims=True)
    return (TYPICAL_CHANGE / np.maximum(change, LEAST_CHANGE)).astype(np.float32)


def part(weights: Weights, prefix: str) -> Weights:
    """The weights of one model, without its prefix."""
    return {name[len(prefix) :]: w for name, w in weights.items() if name.startswith(prefix)}
