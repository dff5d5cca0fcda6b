"""Prompt and picture as the transformer takes them: text states, and the latent of the first frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Dtype, Tensor
from framewake.errors import CheckpointError
from framewake.media.image import normalise
from framewake.models.dit import TextStates
from framewake.pipeline.parts import Parts
from framewake.pipeline.precision import Precision
from framewake.text.crop import TextLength
from framewake.text.encode import TokenizedText, derive_layout, encode_clip, encode_in_template
from framewake.text.template import NEGATIVE_PROMPT_T2V, VIDEO, VIDEO_I2V
from framewake.text.tokenize import Tokenizer
from framewake.weights.checkpoint.hunyuan import CLIP_TEXT, LLAVA
from framewake.weights.checkpoint.load import Checkpoint


class Tokens(NamedTuple):
    """A prompt as ids for both encoders."""

    llava: TokenizedText
    clip: TokenizedText

    def notes(self) -> list[str]:
        """What a person should know about a prompt that was too long; empty when all of it counts."""
        if self.llava.cut_tokens:
            return cut_note(self.llava)
        if self.clip.cut_tokens:
            return [
                f"the prompt is longer than the small text encoder reads ({self.clip.prompt_tokens} tokens); the large "
                f"one reads all of it. The small one leaves out: {shortened(self.clip.cut)!r}"
            ]
        return []


def cut_note(cut: TokenizedText) -> list[str]:
    """What a person should know of a prompt that did not fit."""
    if not cut.cut_tokens:
        return []
    kept = cut.prompt_tokens - cut.cut_tokens
    return [
        f"the prompt has {cut.prompt_tokens} tokens and {kept} are used (the limit); not used: {shortened(cut.cut)!r}"
    ]


def shortened(text: str, limit: int = 80) -> str:
    """A text that fits into a message."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def check_ids(tokenizer: Tokenizer, count: int, encoder: str) -> None:
    """Refuse a tokenizer with ids that an encoder does not know.

    Raises: CheckpointError.
    """
    if tokenizer.vocab_size > count:
        raise CheckpointError(
            f"{tokenizer.folder} has {tokenizer.vocab_size} tokens, and the {encoder} knows {count}: they belong to "
            "different models. Take the tokenizer's files of the checkpoint."
        )


class TextReader:
    """Tokenizers and layout of a checkpoint: prompts into ids, ids into text states."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.has_image = checkpoint.dit.needs_picture
        self.template = VIDEO_I2V if self.has_image else VIDEO
        self.tokenizer = Tokenizer.from_folder(checkpoint.tokenizers[LLAVA.name])
        self.tokenizer_2 = Tokenizer.from_folder(checkpoint.tokenizers[CLIP_TEXT.name])
        llava, clip = checkpoint.config(LLAVA), checkpoint.config(CLIP_TEXT)
        self.clip_positions = clip.max_positions
        check_ids(self.tokenizer, llava.text.vocab_size, LLAVA.word)
        check_ids(self.tokenizer_2, clip.vocab_size, CLIP_TEXT.word)
        self.layout = derive_layout(
            self.tokenizer,
            self.template,
            image_token_id=llava.image_token_id,
            image_tokens=llava.vision.patches + (0 if llava.drops_class_token else 1),
            text_length=checkpoint.settings.text_tokens,
        )

    def negative_prompt(self, asked: str | None) -> str:
        """The negative prompt of a request, the checkpoint's own when it names none (specification, 3.6)."""
        if asked:
            return asked
        return self.checkpoint.settings.negative_prompt if self.has_image else NEGATIVE_PROMPT_T2V

    def tokens(self, prompt: str) -> Tokens:
        """A prompt as ids; control tokens in it are plain text."""
        return Tokens(
            encode_in_template(self.tokenizer, self.template, prompt, layout=self.layout),
            encode_clip(self.tokenizer_2, prompt, self.clip_positions),
        )

    def limit(self) -> TextLength:
        """Text tokens of the longest prompt, with those of the picture."""
        return self.layout.limit(self.checkpoint.dit.image_interleave)

    def lengths(self, prompt: str) -> TextLength:
        """Text tokens of a prompt, with those of the picture."""
        ids, mask = self.tokens(prompt).llava[:2]
        return self.layout.length(ids[0], int(mask.sum()), self.checkpoint.dit.image_interleave)

    def states(self, parts: Parts, prompts: Sequence[Tokens], semantic: np.ndarray | None, dtype: Dtype) -> TextStates:
        """What the transformer takes, one sample per prompt.

        Shapes: semantic (B, 3, S, S) -> states (B, T, Dt), pooled (B, Dp).
        Source: specification, sections 3.1 to 3.6.
        """
        engine = parts.engine
        ids, mask = (np.concatenate(rows) for rows in zip(*(tokens.llava[:2] for tokens in prompts), strict=True))
        llava = parts.get(LLAVA.name, dtype)
        pixels = None if semantic is None else engine.asarray(semantic, dtype)
        hidden = llava.model(llava.weights, ids, mask, pixels)
        kept = self.layout.kept(engine, hidden, ids, mask, interleave=parts.checkpoint.dit.image_interleave)
        clip = parts.get(CLIP_TEXT.name, dtype)
        ids, mask = (np.concatenate(rows) for rows in zip(*(tokens.clip[:2] for tokens in prompts), strict=True))
        pooled, _ = clip.model(clip.weights, ids, mask)
        return TextStates(kept.states, kept.lengths, pooled)


def image_latent(parts: Parts, picture: np.ndarray, precision: Precision) -> Tensor:
    """The posterior mean of a picture, encoded in one piece and scaled.

    Shapes: picture uint8 (8H, 8W, 3) -> (1, C, 1, H, W). Precision: float16 in half-precision runs, else float32.
    Source: specification, section 2.5.
    """
    engine = parts.engine
    vae = parts.get("vae", precision.vae)
    pixels = engine.asarray(normalise(picture[None])[None])
    mean, _ = vae.model.encode(vae.weights.part(""), pixels)
    latent = mean * parts.checkpoint.vae.scaling_factor
    return engine.cast(latent, "float16" if precision.rounds_to_half else "float32")
