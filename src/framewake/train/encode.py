"""Clips and captions encoded once: training reads them from disk, and the encoders leave the device."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Sequence
from typing import Any, NamedTuple

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import ResourceError
from framewake.media.clips import Clip, first_seen, fitted, place_of, read_clip
from framewake.media.framing import FRAMES
from framewake.media.image import normalise
from framewake.models.dit import TextPart, TextStates
from framewake.models.tiling import tiled_encode
from framewake.pipeline.condition import image_latent
from framewake.pipeline.events import Note
from framewake.pipeline.forecast import Placement, cost, gib
from framewake.pipeline.forecast.place import fitting
from framewake.pipeline.forecast.setup import is_composed
from framewake.pipeline.hunyuan import family_of
from framewake.pipeline.precision import Precision
from framewake.pipeline.run import Pipeline
from framewake.train.cache import Cache, fingerprint, key_of
from framewake.train.data import Example, some
from framewake.train.events import Encoded
from framewake.train.settings import Training
from framewake.weights.checkpoint.load import Checkpoint


class Prepared(NamedTuple):
    """One example as training reads it: keys of the cache, and how many of its size are computed together.

    ``texts`` has a key for (is the caption there, is the picture there).
    Shapes: latent (C, F, H, W).
    """

    clip: str
    texts: dict[tuple[bool, bool], str]
    latent: tuple[int, ...]
    batch: int


class Keys(NamedTuple):
    """The keys of one example, before anything is encoded."""

    example: Example
    clip: str
    texts: dict[tuple[bool, bool], str]


class ExampleEncoder:
    """Looks up what is there, checks what is not, and encodes it."""

    def __init__(self, checkpoint: Checkpoint, settings: Training, precision: Precision, engine_name: str) -> None:
        self.checkpoint = checkpoint
        self.settings = settings
        self.precision = precision
        self.has_picture = checkpoint.dit.needs_picture
        self.framed = FRAMES[checkpoint.dit.framing]
        encoders = [encoder.name for encoder in family_of(checkpoint).present(checkpoint)]
        # Engines agree to rounding only, and a run that goes on must read the very numbers it began with.
        self._common = {"engine": engine_name, "precision": precision}
        self._clip = self._common | {
            "vae": fingerprint(checkpoint, "vae"),
            "tiling": repr(checkpoint.settings.tiling),
        }
        self._text = self._common | {
            "encoders": fingerprint(checkpoint, *encoders),
            "tokenizers": [_names(folder) for folder in checkpoint.tokenizers.values()],
            "processor": checkpoint.image_processor,
            "tokens": checkpoint.settings.text_tokens,
        }

    def keys(self, example: Example, *, is_held: bool = False) -> Keys:
        """Where an example's arrays are or will be; of one that is held out for validation, nothing is dropped."""
        texts = {}
        drops_caption = self.settings.caption_drop > 0 and not is_held
        drops_picture = self.settings.picture_drop > 0 and self.has_picture and not is_held
        for has_caption in (True, False) if drops_caption else (True,):
            for has_picture in (True, False) if drops_picture else (True,):
                first: list[Any] = [example.digest, place_of(example.start, example.rate)]
                first += example.size if self.framed.sees_crop else []
                seen = first if has_picture and self.has_picture else "black"
                facts = {"caption": example.caption if has_caption else "", "picture": seen}
                texts[has_caption, has_picture] = key_of("text", self._text | facts)
        cut = {"start": example.start, "rate": example.rate, "frames": example.frames, "size": example.size}
        return Keys(example, key_of("clip", self._clip | cut | {"content": example.digest}), texts)

    def encode(
        self, engine: Engine, cache: Cache, missing: Sequence[Keys], *, memory: int | None = None
    ) -> Generator[Encoded | Note, None, None]:
        """Encode clips with the autoencoder, then captions with the text encoders, one of them at a time.

        The conditioning latent is the first frame encoded alone, and the vision tower sees that frame, both as at
        inference; the original trains with a sample of the posterior, and shows LLaVA the cropped frame.
        Source: specification, sections 10.1 and 10.3.
        """
        pipeline = Pipeline(self.checkpoint, engine, memory=memory)
        pipeline.parts.placements = self._placements(pipeline)
        if clips := self.unseen(cache, missing):
            pipeline.parts.placements["vae"] = self.autoencoder(pipeline, clips)
        done, count = 0, 2 * len(missing)
        notes: dict[str, list[str]] = {}
        for keys in missing:
            if not cache.has(keys.clip):
                clip = _cut(keys.example)
                cache.write(keys.clip, self._latents(pipeline, clip, keys.example.size))
                for text in clip.notes:
                    notes.setdefault(text, []).append(clip.path.name)
            done += 1
            yield Encoded("clips", done, count)
        for text, names in notes.items():
            yield Note(f"{some(names)}: {text}")
        pipeline.parts.release("vae")
        told = set()
        for keys in missing:
            caption = keys.example.caption
            tokens = pipeline.reader.tokens(caption)
            if caption not in told:
                told.add(caption)
                for text in tokens.notes():
                    yield Note(f"{keys.example.path.name}: {text}")
            self._write_texts(pipeline, cache, keys)
            done += 1
            yield Encoded("captions", done, count)

    def unseen(self, cache: Cache, missing: Sequence[Keys]) -> list[Keys]:
        """Those whose clips are to be encoded, and not captions alone."""
        return [keys for keys in missing if not cache.has(keys.clip)]

    def autoencoder(self, pipeline: Pipeline, clips: Sequence[Keys]) -> Placement:
        """How clips are encoded: whole tiles, or a few frames of each at a time where those do not fit.

        Raises: ResourceError where these do not either.
        """
        engine, config, kind = pipeline.engine, self.checkpoint.vae, self.precision.vae
        sizes = {(keys.example.frames, *keys.example.size) for keys in clips}

        def work(is_in_slabs: bool) -> int:
            tiling, is_host = self.checkpoint.settings.tiling, engine.traits.is_host
            found = [
                cost.encode_bytes(config, tiling, size, kind, is_in_slabs=is_in_slabs, is_host=is_host)
                + (cost.host_bytes(size) if is_host else 0)
                for size in sizes
            ]
            return cost.decode_bytes(max(found), engine.traits)

        model = pipeline.parts.models["vae"]
        held = cost.weights(model.shapes(), model.streams(), kind)
        room, ways = pipeline.parts.room(), [(None, work(False)), (cost.ENCODED_NUMBERS, work(True))]
        place = fitting(held, ways, room, has_streams=True)
        if place.peak > room:
            need = f"encoding {max(size[0] for size in sizes)} frames needs {gib(place.peak)} on {engine.name}"
            text = f"{need} at the least and may take {gib(room)}: take fewer --frames or target_frames."
            raise ResourceError(text, bytes_needed=place.peak, bytes_free=room)
        return place._replace(chunk_tokens=None, slab_numbers=place.chunk_tokens)

    def prepared(self, cache: Cache, keys: Keys) -> Prepared:
        """An example whose arrays are there."""
        return Prepared(keys.clip, keys.texts, cache.shape(keys.clip, "latents"), keys.example.batch)

    def is_there(self, cache: Cache, keys: Keys) -> bool:
        """Whether everything of an example was encoded before."""
        return cache.has(keys.clip) and all(cache.has(key) for key in keys.texts.values())

    def _placements(self, pipeline: Pipeline) -> dict[str, Placement]:
        """Text encoders that do not fit are streamed."""
        engine, kind, length = pipeline.engine, self.precision.text, pipeline.reader.limit()
        composed = is_composed(engine, kind)
        scene = cost.Scene(1, 0, length.kept, self.precision.transformer, composed, read=length.read)
        found: dict[str, Placement] = {}
        for encoder in pipeline.family.present(self.checkpoint):
            model = pipeline.parts.models[encoder.name]
            held = cost.weights(model.shapes(), model.streams(), kind)
            work = encoder.work_bytes(self.checkpoint.configs[encoder.name], scene, kind, composed)
            room = pipeline.parts.room() - sum(place.weights for place in found.values())
            found[encoder.name] = fitting(held, [(None, work)], room, has_streams=bool(model.streams()))
        return found

    def _latents(self, pipeline: Pipeline, clip: Clip, size: tuple[int, int]) -> dict[str, np.ndarray]:
        parts, config = pipeline.parts, self.checkpoint.vae
        pixels = fitted(clip, *size, crop=self.framed.crop)
        vae = parts.get("vae", self.precision.vae)
        # Normalisation sees whole clips in training: tiles in space only.
        tiling = dataclasses.replace(self.checkpoint.settings.tiling, is_temporal=False)
        weights, numbers = vae.weights.part(""), parts.placements["vae"].slab_numbers
        by_slabs = None if numbers is None else lambda x: vae.model.moments_slabs(weights, x, numbers)
        mean, _ = tiled_encode(vae.model, weights, normalise(pixels)[None], tiling, compute=by_slabs)
        image = parts.engine.numpy(image_latent(parts, pixels[0], self.precision))
        scaled = (mean * np.asarray(config.scaling_factor, mean.dtype)).astype(mean.dtype)
        return {"latents": scaled[0], "image": image[0]}

    def _write_texts(self, pipeline: Pipeline, cache: Cache, keys: Keys) -> None:
        processor, engine = self.checkpoint.image_processor, pipeline.engine
        side, colours = processor.size_px, (processor.mean, processor.std)
        for (has_caption, has_picture), key in keys.texts.items():
            if cache.has(key):
                continue
            semantic = None
            if self.has_picture:
                first = _cut(keys.example._replace(frames=1))
                seen, beside = first_seen(first, *keys.example.size, self.framed, side, *colours)
                semantic = seen if has_picture else beside
            tokens = pipeline.reader.tokens(keys.example.caption if has_caption else "")
            text = pipeline.reader.states(pipeline.parts, [tokens], semantic, self.precision.text)
            cache.write(key, _kept(engine, text))


def _kept(engine: Engine, text: TextStates) -> dict[str, np.ndarray]:
    """What is kept of one text, by name; further tokens under the name of what takes them."""
    parts = {"states": TextPart(text.states, text.lengths), **text.further}
    kept = {name: np.array(engine.numpy(part.states)[0, : part.lengths[0]]) for name, part in parts.items()}
    return kept if text.pooled is None else kept | {"pooled": np.array(engine.numpy(text.pooled)[0])}


def _cut(example: Example) -> Clip:
    return read_clip(example.path, example.frames, start=example.start, rate=example.rate)


def _names(folder: Any) -> list[Any]:
    return [[file.name, file.stat().st_size, file.stat().st_mtime_ns] for file in sorted(folder.iterdir())]
