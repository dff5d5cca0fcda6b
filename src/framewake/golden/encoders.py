"""Golden cases of the text encoders."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import CheckpointError
from framewake.golden.cases import Case, tensor
from framewake.golden.compare import Pair, valid_rows
from framewake.golden.modules import Seen
from framewake.media.image import clip_pixels
from framewake.models.clip_text import ClipText
from framewake.models.llava import Llava, merged_layout
from framewake.text.crop import TextLayout
from framewake.weights.checkpoint.configs import clip_text_config, llava_config

Arrays = dict[str, np.ndarray]
HEADER_IDS = 4  # of the assistant's turn, in front of the last blank line: part of the template


def llava_encode(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """A picture and a prompt's ids into text states."""
    content = case.need("config", "llava")
    config = llava_config(content | {"text_config": content["text"], "vision_config": content["vision"]})
    skip = case.need("config", "hidden_state_skip_layer")
    llava = Llava(engine, config)
    unused = llava.unused_shapes(skip)
    weights = case.weights("llava", engine, llava.shapes(skip), optional=unused)
    ids, mask = _ids(case)
    layout = _layout(case, ids.shape[1])
    pixels = tensor(engine, clip_pixels(case.picture(), config.vision.image_size)[None])
    seen = Seen(engine)
    hidden = llava(weights, ids, mask, pixels, skip_layers=skip, observe=seen)

    if layout.image_at is None:
        raise CheckpointError(f"case {case.id!r} has no picture in its template; a {case.kind} case needs one.")
    merged, positions = merged_layout(mask, layout.image_at, layout.image_tokens)
    exact = {"merged_mask": merged, "position_ids": positions}
    for name, want in arrays.items():
        interleave = re.fullmatch(r"prompt_(embeds|mask)_(\d+)", name)
        if interleave:
            parts = layout.kept(engine, hidden, ids, mask, interleave=int(interleave.group(2)))
            if interleave.group(1) == "mask":
                got = np.arange(want.shape[1]) < np.asarray(parts.lengths)[:, None]
                yield Pair(name, got.astype(np.int64), want, "exact")
            else:
                yield Pair(name, valid_rows(engine.numpy(parts.states), parts.lengths), valid_rows(want, parts.lengths))
        elif name == f"hidden_m{skip + 1}":
            valid = int(merged.sum(axis=1).max())
            yield Pair(name, engine.numpy(hidden)[:, :valid], want[:, :valid])
        elif name == "inputs_embeds_rows":
            yield Pair(name, _rows(case, seen.arrays["inputs_embeds"], merged.shape[1]), want)
        elif name in exact:
            yield Pair(name, exact[name], want, "exact")
        elif name in seen.arrays:
            yield Pair(name, seen.arrays[name], want)


def clip_text(case: Case, engine: Engine, arrays: Arrays) -> Iterator[Pair]:
    """A prompt's ids into the pooled vector."""
    encoder = ClipText(engine, clip_text_config(case.need("config", "clip_text")))
    weights = case.weights("clip_text", engine, encoder.shapes(), optional=("text_model.embeddings.position_ids",))
    ids, mask = _ids(case)
    pooled, last = encoder(weights, ids, mask)
    lengths = tuple(int(row.sum()) for row in mask)
    last = valid_rows(engine.numpy(last), lengths)
    made = {"pooled": engine.numpy(pooled), "mask": mask}
    for name, want in arrays.items():
        if name == "last_hidden_state":
            yield Pair(name, last, valid_rows(want, lengths))
        elif name in made:
            yield Pair(name, made[name], want)


def _ids(case: Case) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask, both (B, L); one row may be written without its batch axis."""
    ids = np.atleast_2d(np.asarray(case.need("inputs", "input_ids"), dtype=np.int64))
    valid = np.atleast_1d(case.need("inputs", "valid_ids"))
    return ids, (np.arange(ids.shape[1]) < valid[:, None]).astype(np.int64)


def _layout(case: Case, length: int) -> TextLayout:
    config = case.config
    if case.need("config", "image_emb_end") - config["image_emb_start"] != config["image_emb_len"]:
        raise CheckpointError(f"case {case.id!r}: image_emb_start, image_emb_end and image_emb_len disagree.")
    return TextLayout(
        crop_start=config["crop_start"],
        image_at=config["image_emb_start"],
        image_tokens=config["image_emb_len"],
        double_return_id=config["double_return_token_id"],
        dropped=HEADER_IDS,
        max_length=length,
    )


def _rows(case: Case, embeddings: np.ndarray, length: int) -> np.ndarray:
    """Embeddings at the positions that the case's description lists; those of padding are zero."""
    listed = re.search(r"positions ([\d, ]+)", case.meanings["inputs_embeds_rows"])
    if listed is None:
        raise CheckpointError(f"case {case.id!r}: inputs_embeds_rows does not say which positions it holds.")
    positions = [int(number) for number in listed.group(1).split(",") if number.strip()]
    whole = np.zeros((embeddings.shape[0], length, embeddings.shape[2]), dtype=np.float32)
    whole[:, : embeddings.shape[1]] = embeddings
    return whole[:, positions]
