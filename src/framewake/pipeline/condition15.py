"""A prompt as HunyuanVideo-1.5 takes it: states of a language model, of quoted text, and of the picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Dtype
from framewake.models.dit import TextPart, TextStates, padded_rows
from framewake.models.dit15 import GLYPH, VISION
from framewake.pipeline.condition import check_ids, cut_note
from framewake.pipeline.parts import Parts
from framewake.text.crop import TextLength
from framewake.text.encode import TokenizedText, derive_layout, encode_in_template
from framewake.text.glyph import LIMIT, glyph_ids, glyph_text
from framewake.text.template import VIDEO_15
from framewake.text.tokenize import Tokenizer
from framewake.weights.checkpoint.hunyuan15 import BYT5, QWEN, SIGLIP
from framewake.weights.checkpoint.load import Checkpoint

NO_PICTURE_ID = -1


class Tokens15(NamedTuple):
    """A prompt as ids for the language model, and the quoted text in it."""

    qwen: TokenizedText
    quoted: str

    def notes(self) -> list[str]:
        """What a person should know about a prompt that was too long; empty when all of it counts."""
        spare = len(self.quoted.encode()) + 1 - LIMIT
        long = f"quoted text is read as far as {LIMIT} bytes go: {spare} at its end are not" if spare > 0 else ""
        return [note for note in (*cut_note(self.qwen), long) if note]


class Reader15:
    """Tokenizer and layout of a checkpoint: prompts into ids, ids into tokens for the transformer."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.tokenizer = Tokenizer.from_folder(checkpoint.tokenizers[QWEN.name])
        check_ids(self.tokenizer, checkpoint.config(QWEN).vocab_size, QWEN.word)
        self.layout = derive_layout(
            self.tokenizer,
            VIDEO_15,
            image_token_id=NO_PICTURE_ID,
            image_tokens=0,
            text_length=checkpoint.settings.text_tokens,
        )
        self.patches = checkpoint.config(SIGLIP).patches if checkpoint.dit.needs_picture else 0

    def negative_prompt(self, asked: str | None) -> str:
        """The negative prompt of a request, the checkpoint's own when it names none."""
        return asked or self.checkpoint.settings.negative_prompt

    def tokens(self, prompt: str) -> Tokens15:
        """A prompt as ids; control tokens in it are plain text."""
        return Tokens15(encode_in_template(self.tokenizer, VIDEO_15, prompt, layout=self.layout), glyph_text(prompt))

    def limit(self) -> TextLength:
        """Tokens of the longest prompt, with those of the picture and of quoted text."""
        return TextLength(self.layout.max_length, self.layout.prompt_limit + LIMIT + self.patches)

    def lengths(self, prompt: str) -> TextLength:
        """Tokens of a prompt, with those of the picture and of quoted text."""
        tokens = self.tokens(prompt)
        read = int(tokens.qwen.mask.sum())
        quoted = glyph_ids(tokens.quoted).shape[1] if tokens.quoted else 0
        return TextLength(read, read - self.layout.crop_start + quoted + self.patches)

    def states(
        self, parts: Parts, prompts: Sequence[Tokens15], semantic: np.ndarray | None, dtype: Dtype
    ) -> TextStates:
        """What the transformer takes, one sample per prompt; of several the last is the positive one.

        Only that one has quoted text; the picture is the same for all.
        Shapes: semantic (B, 3, S, S) -> states (B, T, Dt).
        Source: specification of 1.5, sections 3 to 6.
        """
        engine = parts.engine
        ids, mask = (np.concatenate(rows) for rows in zip(*(tokens.qwen[:2] for tokens in prompts), strict=True))
        qwen = parts.get(QWEN.name, dtype)
        kept = self.layout.kept(engine, qwen.model(qwen.weights, ids, mask), ids, mask, interleave=1)
        further = {}
        if semantic is not None:
            siglip = parts.get(SIGLIP.name, dtype)
            seen = siglip.model(siglip.weights, engine.asarray(semantic[-1:], dtype))
            further[VISION] = TextPart(engine.concat([seen] * len(prompts), 0), (int(seen.shape[1]),) * len(prompts))
        if prompts[-1].quoted:
            byt5 = parts.get(BYT5.name, dtype)
            read = byt5.model(byt5.weights, glyph_ids(prompts[-1].quoted))
            nothing = [engine.zeros((1, 1, read.shape[2]), engine.dtype(read))] * (len(prompts) - 1)
            lengths = (*(0 for _ in nothing), int(read.shape[1]))
            further[GLYPH] = TextPart(padded_rows(engine, [*nothing, read]), lengths)
        return TextStates(kept.states, kept.lengths, None, further)

    def larger_states(self, parts: Parts, text: TextStates, semantic: np.ndarray | None, dtype: Dtype) -> TextStates:
        """States of the same positive prompt beside a larger crop of the picture.

        Shapes: semantic (1, 3, S, S) -> states (1, T, Dt).
        Source: specification of 1.5, section 13.
        """
        further = {name: TextPart(part.states[-1:], part.lengths[-1:]) for name, part in text.further.items()}
        if semantic is not None:
            siglip = parts.get(SIGLIP.name, dtype)
            seen = siglip.model(siglip.weights, parts.engine.asarray(semantic, dtype))
            further[VISION] = TextPart(seen, (int(seen.shape[1]),))
        return TextStates(text.states[-1:], text.lengths[-1:], None, further)
