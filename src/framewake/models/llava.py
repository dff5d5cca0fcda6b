"""LLaVA: a picture and a text become one sequence of hidden states."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from framewake.config import LlavaConfig
from framewake.engine.contract import Engine, Tensor
from framewake.errors import InputError
from framewake.models.clip_layer import activate, check_activation
from framewake.models.clip_vision import ClipVision
from framewake.models.llama import Llama

PROJECTOR = "multi_modal_projector"


class Llava:
    """Vision tower, projector, merge and language model.

    The single image id of a row is replaced in place by the picture's features, which is what the
    published text states were made with; newer libraries want the ids expanded beforehand.

    Source: specification, section 3.2.
    """

    def __init__(self, engine: Engine, config: LlavaConfig) -> None:
        self.engine = engine
        self.config = config
        self.language = Llama(engine, config.text)
        self.vision = ClipVision(engine, config.vision)
        check_activation(config.projector_activation)

    @property
    def image_tokens(self) -> int:
        """How many positions a picture takes in the merged sequence."""
        return self.config.vision.patches + (0 if self.config.drops_class_token else 1)

    def __call__(
        self,
        weights,
        ids: np.ndarray,
        mask: np.ndarray,
        pixels: Tensor | None,
        *,
        skip_layers: int = 2,
        observe: Callable[[str, Tensor], None] | None = None,
    ) -> Tensor:
        """Hidden states of text and picture, in front of the last ``skip_layers`` layers.

        Shapes: ids and mask (B, L) on the host, padded on the right; pixels (B, 3, S, S) or (1, 3, S, S)
        for all rows, or None for a text without a picture -> (B, V, D), V the longest valid merged length.
        Rows beyond a sample's own length mean nothing.
        Raises: InputError when ids, mask and picture do not belong together.
        """
        ids, lengths = self.trim(ids, mask)
        image_at = self.image_index(ids, has_image=pixels is not None)
        x = self.embed(weights, ids, lengths)
        if pixels is not None:
            features = self.image_features(weights, pixels)
            if observe is not None:
                observe("image_features", features)
            x = self.merge(x, features, image_at)
        if observe is not None:
            observe("inputs_embeds", x)
        return self.language(weights, x, skip_layers=skip_layers)

    def trim(self, ids: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cut the padding that all rows share. Shapes: (B, L), (B, L) -> (B, V), (B,)."""
        ids, mask = np.asarray(ids), np.asarray(mask)
        lengths = mask.sum(axis=1)
        if not np.array_equal(mask != 0, np.arange(mask.shape[1]) < lengths[:, None]):
            raise InputError("the attention mask has padding before or between tokens; pad on the right.")
        return ids[:, : int(lengths.max())], lengths

    def image_index(self, ids: np.ndarray, *, has_image: bool) -> int:
        """Where the image id stands, the same place in every row; -1 without a picture."""
        rows, columns = np.nonzero(ids == self.config.image_token_id)
        if not has_image:
            if len(rows):
                raise InputError("the text contains the image id but no picture was given; use a template without it.")
            return -1
        if len(rows) != len(ids) or len(set(rows)) != len(ids) or len(set(columns)) != 1:
            raise InputError(
                f"expected the image id {self.config.image_token_id} once per row and at one place in all rows; "
                f"found it {len(rows)} times in {len(ids)} rows."
            )
        return int(columns[0])

    def embed(self, weights, ids: np.ndarray, lengths: np.ndarray) -> Tensor:
        """Token embeddings, zero at pads. Shapes: (B, V) -> (B, V, D)."""
        x = self.language.embed(weights, ids)
        if lengths.min() == ids.shape[1]:
            return x
        is_valid = (np.arange(ids.shape[1]) < lengths[:, None])[:, :, None]
        return x * self.engine.asarray(is_valid.astype(np.float32), self.engine.dtype(x))

    def image_features(self, weights, pixels: Tensor) -> Tensor:
        """The picture in the language model's width. Shapes: (B, 3, S, S) -> (B, image tokens, D)."""
        engine, config = self.engine, self.config
        x = self.vision(weights, pixels, feature_layer=config.vision_feature_layer)
        if config.drops_class_token:
            x = x[:, 1:]
        w = weights.part(PROJECTOR)
        x = engine.linear(x, w["linear_1.weight"], w["linear_1.bias"])
        x = activate(engine, config.projector_activation, x)
        return engine.linear(x, w["linear_2.weight"], w["linear_2.bias"])

    def merge(self, x: Tensor, features: Tensor, image_at: int) -> Tensor:
        """Put the picture's features where its id stood. Shapes: (B, V, D) -> (B, V - 1 + image tokens, D)."""
        features = self.engine.broadcast_to(features, (x.shape[0], features.shape[1], features.shape[2]))
        return self.engine.concat([x[:, :image_at], features, x[:, image_at + 1 :]], 1)

    def shapes(self, skip_layers: int = 2) -> dict[str, tuple[int, ...]]:
        """Every tensor that is read, with its shape."""
        width, inner = self.config.text.hidden_size, self.config.vision.hidden_size
        return {
            **self.vision.shapes(self.config.vision_feature_layer),
            f"{PROJECTOR}.linear_1.weight": (width, inner),
            f"{PROJECTOR}.linear_1.bias": (width,),
            f"{PROJECTOR}.linear_2.weight": (width, width),
            f"{PROJECTOR}.linear_2.bias": (width,),
            **self.language.shapes(skip_layers),
        }

    def streams(self) -> tuple[str, ...]:
        """The lists of blocks that need not stay on the device, in the order of their use."""
        return (f"{self.vision.prefix}.encoder.layers", f"{self.language.prefix}.layers")

    def unused_shapes(self, skip_layers: int = 2) -> dict[str, tuple[int, ...]]:
        """Published tensors that no computation here reads; a checkpoint may leave them out."""
        return {
            **self.vision.unused_shapes(self.config.vision_feature_layer),
            **self.language.unused_shapes(skip_layers),
        }


def merged_layout(mask: np.ndarray, image_at: int, image_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Mask and positions of the merged sequence at its full, padded length.

    Only the valid part is ever computed; this states the rule for comparisons: ones on the picture,
    positions count valid entries from zero, and are 1 where padded.

    Shapes: mask (B, L) -> two int64 arrays (B, L - 1 + image tokens).
    """
    picture = np.ones((len(mask), image_tokens), dtype=np.int64)
    merged = np.concatenate([mask[:, :image_at], picture, mask[:, image_at + 1 :]], axis=1).astype(np.int64)
    positions = np.cumsum(merged, axis=1) - 1
    return merged, np.where(merged == 0, 1, positions)
