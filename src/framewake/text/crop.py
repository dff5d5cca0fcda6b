"""Which hidden states of the LLaVA sequence become the diffusion transformer's text.

Two coordinate systems meet here: positions of ids (the picture is one id) and positions of hidden
states (the picture is ``image_tokens`` positions, and everything after it moves).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from framewake.engine.contract import Engine, Tensor

# The original thins out the picture's positions only for steps up to this one.
LARGEST_INTERLEAVE = 5


class TextLength(NamedTuple):
    """Tokens of a text with its picture: the large text encoder reads some, the diffusion transformer gets fewer."""

    read: int
    kept: int


class TextParts(NamedTuple):
    """States of picture and prompt. Shapes: states (B, T, D); valid ones are the first ``lengths[i]`` of row i."""

    states: Tensor
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class TextLayout:
    """Where prompt and picture stand among the ids; ``text.encode`` derives it from tokenizer and template.

    ``crop_start`` ids come before the prompt; ``image_at`` is the picture's index among them (None in a
    text-only layout); ``image_tokens`` positions replace it; ``double_return_id`` ends the assistant's
    header, and the ``dropped`` ids in front of it are cut out; ``max_length`` ids go into the model.

    Source: specification, sections 3.1 and 3.4.
    """

    crop_start: int
    image_at: int | None
    image_tokens: int
    double_return_id: int
    dropped: int
    max_length: int

    @property
    def prompt_limit(self) -> int:
        """How many tokens of a prompt reach the diffusion transformer at most."""
        return self.max_length - self.crop_start - self.dropped

    def limit(self, interleave: int) -> TextLength:
        """The tokens of the longest prompt."""
        return TextLength(self.merged(self.max_length), len(self.picture_range(interleave)) + self.prompt_limit)

    def length(self, ids: np.ndarray, valid: int, interleave: int) -> TextLength:
        """The tokens of one row. Shapes: ids (max_length,), of which ``valid`` are no padding."""
        kept = sum(len(part) for part in (self.picture_range(interleave), *self.text_ranges(ids, valid)))
        return TextLength(self.merged(valid), kept)

    def picture_range(self, interleave: int) -> range:
        """Merged positions of the picture that are kept: every ``interleave``-th, all where it is above 5."""
        step = interleave if 0 < interleave <= LARGEST_INTERLEAVE else 1
        start = self.image_at or 0
        return range(start, start + self.image_tokens, step)

    def text_ranges(self, ids: np.ndarray, valid: int) -> tuple[range, range]:
        """Id positions that are kept of one row: the prompt, and everything from the last blank line on.

        The assistant's header is found by the last blank line.  When a row has no more blank lines than
        the fixed text before the prompt, its header was cut off, and the last ``dropped`` ids go instead,
        whatever they are.  A blank line inside such a cut prompt is taken for the header's, as the
        original does.

        Shapes: ids (max_length,), of which ``valid`` are no padding.
        """
        if self.image_at is None:
            return range(self.crop_start, valid), range(0)
        blank_lines = np.flatnonzero(ids == self.double_return_id)
        is_cut = len(blank_lines) == np.count_nonzero(blank_lines < self.crop_start)
        end = len(ids) if is_cut else int(blank_lines[-1])
        return range(self.crop_start, end - self.dropped), range(end, valid)

    def kept(self, engine: Engine, hidden: Tensor, ids: np.ndarray, mask: np.ndarray, *, interleave: int) -> TextParts:
        """Picture states (every ``interleave``-th), then prompt states; padding is zero.

        Shapes: hidden (B, V, D) in merged positions, ids and mask (B, max_length) on the host.
        """
        rows = []
        for i in range(len(ids)):
            row = hidden[i : i + 1]
            first, last = self.text_ranges(ids[i], int(mask[i].sum()))
            pieces = [] if self.image_at is None else [self.picture(row, interleave)]
            pieces += [row[:, self.merged(part.start) : self.merged(part.stop)] for part in (first, last) if len(part)]
            rows.append(pieces[0] if len(pieces) == 1 else engine.concat(pieces, 1))
        lengths = tuple(int(row.shape[1]) for row in rows)
        longest = max(lengths)
        padded = [
            row if length == longest else engine.pad(row, ((0, longest - length), (0, 0)))
            for row, length in zip(rows, lengths, strict=True)
        ]
        return TextParts(padded[0] if len(padded) == 1 else engine.concat(padded, 0), lengths)

    def picture(self, row: Tensor, interleave: int) -> Tensor:
        """The picture's positions, thinned out. Shapes: (1, V, D) -> (1, image tokens / interleave, D)."""
        kept = self.picture_range(interleave)
        return row[:, kept.start : kept.stop : kept.step]

    def merged(self, position: int) -> int:
        """Where an id after the picture stands among the hidden states."""
        return position if self.image_at is None else position + self.image_tokens - 1
