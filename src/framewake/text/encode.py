"""A prompt as padded ids for each text encoder, and the part of it that did not fit."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from framewake.errors import CheckpointError
from framewake.text.crop import TextLayout
from framewake.text.template import Template
from framewake.text.tokenize import Tokenizer


class TokenizedText(NamedTuple):
    """Ids and mask of one text, padded on the right to one length; ``cut`` is what did not fit.

    Shapes: ids and mask (1, L) int64. Units: ``prompt_tokens`` and ``cut_tokens`` count tokens of the prompt.
    """

    ids: np.ndarray
    mask: np.ndarray
    prompt_tokens: int
    cut_tokens: int
    cut: str


def encode_clip(tokenizer: Tokenizer, prompt: str, max_length: int) -> TokenizedText:
    """A prompt between CLIP's start and end ids, cut and padded to ``max_length``.

    Source: specification, section 3.5.
    """
    begin, end = tokenizer.named_id("bos_token"), tokenizer.named_id("eos_token")
    if begin is None or end is None:
        raise CheckpointError("the CLIP tokenizer names no start or end token: its tokenizer_config.json lacks them.")
    pad = tokenizer.named_id("pad_token")
    tokens = tokenizer.plain(prompt.strip())
    kept = range(min(len(tokens.ids), max_length - 2))
    ids, mask = pad_right([begin, *tokens.ids[: len(kept)], end], end if pad is None else pad, max_length)
    return TokenizedText(ids, mask, len(tokens.ids), len(tokens.ids) - len(kept), tokens.lost(set(kept)))


def encode_in_template(tokenizer: Tokenizer, template: Template, prompt: str, *, layout: TextLayout) -> TokenizedText:
    """A prompt inside a template, cut and padded to the layout's length.

    The parts are turned into ids one by one.  That gives the ids of the whole text, because control
    tokens end the template's parts, or a blank line that no stripped prompt can join.

    Source: specification, sections 3.1 and 16.7.
    """
    tokens = tokenizer.plain((prompt or " ") if template.keeps_blanks else prompt.strip())
    before, after = template_ids(tokenizer, template)
    row = [*before, *tokens.ids, *after][: layout.max_length]
    pad = tokenizer.named_id("pad_token")
    ids, mask = pad_right(row, 0 if pad is None else pad, layout.max_length)
    kept = {i - len(before) for part in layout.text_ranges(ids[0], len(row)) for i in part}
    kept &= set(range(len(tokens.ids)))
    return TokenizedText(ids, mask, len(tokens.ids), len(tokens.ids) - len(kept), tokens.lost(kept))


def template_ids(tokenizer: Tokenizer, template: Template) -> tuple[list[int], list[int]]:
    """Ids before and after the prompt. The text model was trained with its begin token first, always."""
    begin = tokenizer.named_id("bos_token")
    return [*([] if begin is None else [begin]), *tokenizer.control(template.before)], tokenizer.control(template.after)


def derive_layout(
    tokenizer: Tokenizer, template: Template, *, image_token_id: int, image_tokens: int, text_length: int = 256
) -> TextLayout:
    """Where prompt and picture stand for a tokenizer and a template (103, 5 and 576 for the published ones).

    Raises: CheckpointError when the tokenizer does not fit the model.
    """
    before, after = template_ids(tokenizer, template)
    found = before.count(image_token_id)
    if found != int(template.has_image):
        raise CheckpointError(
            f"the tokenizer turns template {template.name!r} into {found} image ids {image_token_id}, expected "
            f"{int(template.has_image)}; tokenizer and model config do not belong together."
        )
    if template.has_image and before[-1] != after[-1]:
        raise CheckpointError(
            f"the tokenizer has no single id for a blank line (template {template.name!r} ends with {after[-1]}, "
            f"its user header with {before[-1]}); use the tokenizer files of the checkpoint."
        )
    return TextLayout(
        crop_start=len(before),
        image_at=before.index(image_token_id) if template.has_image else None,
        image_tokens=image_tokens if template.has_image else 0,
        double_return_id=after[-1],
        dropped=len(after) - 1 if template.has_image else 0,
        max_length=len(before) + text_length,
    )


def pad_right(row: list[int], pad: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Ids and mask of one row. Shapes: (1, length) int64 each."""
    ids = np.full((1, length), pad, dtype=np.int64)
    ids[0, : len(row)] = row
    return ids, (np.arange(length) < len(row)).astype(np.int64)[None]
