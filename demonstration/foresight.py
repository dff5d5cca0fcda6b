"""Learning from first frames alone which of two shapes a prompt names.

It is read off the first frame and the text. The velocity teaches it on a long way round, through the tokens of later
frames: ten thousand steps went by in which both shapes moved. Here the tokens of the first frame, alone with the text,
say after the double blocks how much of their place the named shape covers, and how much any shape of each kind: where
only the kind says which is meant, it has to be seen first. A picture costs a tenth of a clip and serves for both of
its shapes.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from PIL import Image

from demonstration import models
from demonstration.optimiser import Muon, clip_norm
from demonstration.pool import LLAVA_SIDE
from demonstration.render import coverage, render_frame
from demonstration.transformer import Batch, Model, Texts, draw_guidance, draw_sigma, part, rope_of
from demonstration.windows import to_pixels
from demonstration.world import MOTIONS, SHAPES, CalledBy, Scene, acting, pose, sample_scene, write_prompt
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.media.image import clip_pixels
from framewake.models.dit import DiT
from framewake.models.vae import CausalVAE
from framewake.weights.stores.store import Resident

HEAD = "foresight."  # a linear layer that is trained beside the models and not exported
SIDE, TOKEN = 128, 16  # pixels
PAIRS = 0.85  # the share of pictures with two shapes
BARE = 0.3  # the share of prompts that name a kind alone where they can: one of twenty does by itself
WEIGHT = 100.0  # of its gradients, which share their momentum with those of clips and are a hundred times smaller
BATCH = 64
NEW_PICTURES, MOST_PICTURES = 16, 8192  # at each draw, and in all
FIT_BATCHES = 24  # that the head is first fitted to


class Glances(NamedTuple):
    """First frames, prompts, and where the named shapes, and those of each kind, are.

    ``sigma`` and ``guidance`` are drawn as for clips, although no noise is seen: text tokens are told both, and with
    one and the same the model learns to look for names where it is told just that.
    Shapes: covered (B, tokens, 1 + kinds) float32, 0 to 1; sigma and guidance (B,) float32.
    """

    batch: Batch
    covered: np.ndarray
    sigma: np.ndarray
    guidance: np.ndarray


class Foresight:
    """Steps on first frames, with the optimiser that also takes those on clips."""

    def __init__(self, model: Model, optimiser: Muon) -> None:
        self.model, self.optimiser = model, optimiser
        self.blocks = double_blocks(model)
        self.value = 0.0  # of the last step
        self._gradient = model.engine.grad(self.loss)
        self._reached: list[str] = []

    def step(self, weights: Weights, glances: Glances, lr: float) -> Weights:
        """New weights of what this loss reaches: text encoders, embedders, double blocks and head."""
        engine = self.model.engine
        value, grads = self._gradient(weights, glances)
        self.value = float(engine.numpy(value))
        # An update is as large for a gradient of zero as for any other.
        self._reached = self._reached or [n for n, g in grads.items() if engine.numpy(g).any()]
        grads, _ = clip_norm(engine, {n: grads[n] * WEIGHT for n in self._reached}, 1.0)
        return weights | self.optimiser.step({n: weights[n] for n in self._reached}, grads, lr, lr)

    def loss(self, weights: Weights, glances: Glances) -> Tensor:
        """Squared error of what the head says, before any noise is seen."""
        engine = self.model.engine
        tokens = first_tokens(self.model, self.blocks, weights, glances)
        said = engine.linear(tokens, weights[HEAD + "weight"], weights[HEAD + "bias"])
        miss = said - engine.asarray(glances.covered)
        return engine.mean(miss * miss, (0, 1, 2))


def first_tokens(model: Model, blocks: DiT, weights: Weights, glances: Glances) -> Tensor:
    """The first frames' tokens after the double blocks, normalised. Shapes: (B, tokens, hidden) float32."""
    engine, batch = model.engine, glances.batch
    half, text = model.half(weights, batch)
    first = engine.cast(engine.asarray(batch.latents), engine.dtype(text.states))
    height, width = batch.latents.shape[3:]
    rope = rope_of((0,), (height // 2, width // 2))
    seen: list[Tensor] = []

    def catch(stack, image):
        seen.append(stack(image))
        return seen[0]

    blocks(
        Resident(part(half, "dit.")),
        first,
        timestep=engine.asarray(glances.sigma * np.float32(1000)),
        guidance=engine.asarray(glances.guidance * np.float32(1000)),
        text=text,
        rope=(engine.asarray(rope[0]), engine.asarray(rope[1])),
        run_blocks=catch,
    )
    return engine.layer_norm(engine.cast(seen[0], "float32"))


def fitted_head(model: Model, weights: Weights, frames: FirstFrames) -> dict[str, np.ndarray]:
    """The head that reads the most out of the tokens as they are, by least squares.

    A random one that learns at the models' pace teaches them little for a long time.
    """
    engine, blocks, rng = model.engine, double_blocks(model), np.random.default_rng(2)
    rows: list[np.ndarray] = []
    wanted: list[np.ndarray] = []
    for _ in range(FIT_BATCHES):
        glances = frames.draw(rng)
        rows.append(np.concatenate(engine.numpy(first_tokens(model, blocks, weights, glances)).astype(float)))
        wanted.append(np.concatenate(glances.covered))
    known = np.concatenate(rows)
    known = np.concatenate([known, np.ones((len(known), 1))], axis=1)
    gram = known.T @ known + np.eye(known.shape[1])
    head = np.linalg.solve(gram, known.T @ np.concatenate(wanted)).astype(np.float32)
    return {HEAD + "weight": np.ascontiguousarray(head[:-1].T), HEAD + "bias": head[-1]}


def double_blocks(model: Model) -> DiT:
    """The transformer's first part, which text and picture pass side by side."""
    return DiT(model.engine, replace(models.DIT, single_blocks=0))


class FirstFrames:
    """Pictures of the world, encoded as they are needed and kept."""

    def __init__(
        self,
        engine: Engine,
        encoder: tuple[CausalVAE, Weights],
        texts: Texts,
        scale: float,
        *,
        bare: float = BARE,
    ) -> None:
        self.engine, self.texts, self.scale, self.bare = engine, texts, scale, bare
        self.vae, self.vae_weights = encoder
        self.scenes: list[Scene] = []
        self.latents: list[np.ndarray] = []
        self.pictures: list[np.ndarray] = []
        self.waiting: dict[int, list[tuple[int, Scene]]] = defaultdict(list)  # by number of tokens

    def draw(self, rng: np.random.Generator, count: int = BATCH) -> Glances:
        """Pictures with prompts of one length: most of these were drawn before, with other prompts."""
        while len(self.scenes) < count:
            self._add(rng)
        if len(self.scenes) < MOST_PICTURES:
            self._add(rng)
        while True:
            number = int(rng.integers(len(self.scenes)))
            shape = int(rng.integers(len(self.scenes[number].shapes)))
            scene = acting(self.scenes[number], shape, str(rng.choice(MOTIONS)))
            if scene is None:
                continue
            called_by: CalledBy | None = "kind" if rng.random() < self.bare else None
            scene = replace(scene, prompt=write_prompt(rng, scene, called_by=called_by))
            length = int(self.texts.ids(scene.prompt)[1].sum())
            self.waiting[length].append((number, scene))
            if len(self.waiting[length]) == count:
                break
        same = self.waiting.pop(length)
        rows = [self.texts.ids(scene.prompt) for _, scene in same]
        ids = (np.concatenate(column) for column in zip(*rows, strict=True))
        latents = np.stack([self.latents[number] for number, _ in same])
        pictures = np.stack([self.pictures[number] for number, _ in same])
        covered = np.stack([covered_by(scene) for _, scene in same])
        return Glances(Batch(latents, pictures, *ids), covered, draw_sigma(rng, count), draw_guidance(rng, count))

    def _add(self, rng: np.random.Generator) -> None:
        scenes = [sample_scene(rng, pairs=PAIRS) for _ in range(NEW_PICTURES)]
        frames = np.stack([render_frame(scene, SIDE, SIDE, 0.0) for scene in scenes])
        pixels = self.engine.asarray(to_pixels(frames[:, None]))
        means = self.engine.numpy(self.vae.encode(self.vae_weights, pixels)[0])
        self.scenes += scenes
        self.latents += list(means.astype(np.float32) * np.float32(self.scale))
        self.pictures += [clip_pixels(Image.fromarray(frame), LLAVA_SIDE) for frame in frames]


def covered_by(scene: Scene) -> np.ndarray:
    """How much of each token's place is covered at first by the acting shape, and by shapes of each kind.

    Shapes: (tokens, 1 + kinds) float32, 0 to 1.
    """
    covered = np.zeros((1 + len(SHAPES), SIDE, SIDE), np.float32)
    for index, shape in enumerate(scene.shapes):
        rows, columns, share = coverage(shape.kind, pose(scene, index, 0.0), SIDE, (SIDE, SIDE))
        covered[1 + SHAPES.index(shape.kind), rows, columns] += share
        if index == 0:
            covered[0, rows, columns] = share
    cells = SIDE // TOKEN
    return covered.reshape(-1, cells, TOKEN, cells, TOKEN).mean((2, 4)).reshape(-1, cells * cells).T
