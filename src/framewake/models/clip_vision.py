"""CLIP's vision tower: a picture in, patch features of one hidden state out."""

from __future__ import annotations

from framewake.config import ClipVisionConfig
from framewake.engine.contract import Engine, Tensor
from framewake.models.clip_layer import ClipLayer, layer_shapes

PREFIX = "vision_tower.vision_model"


class ClipVision:
    """The vision tower up to one hidden state; later layers are never read or run.

    Source: specification, sections 3.1 and 3.2.
    """

    def __init__(self, engine: Engine, config: ClipVisionConfig, *, prefix: str = PREFIX) -> None:
        self.engine = engine
        self.config = config
        self.prefix = prefix
        self.layer = ClipLayer(engine, heads=config.heads, activation=config.activation, eps=config.norm_eps)

    def __call__(self, weights, pixels: Tensor, *, feature_layer: int) -> Tensor:
        """Hidden state ``feature_layer`` (0 is the embedding, -1 the last layer's output), class token first.

        Shapes: pixels (B, 3, S, S) normalised -> (B, 1 + patches, D).
        Precision: pixels are cast to the type of the weights.
        """
        engine = self.engine
        x = self.embed(weights.part(f"{self.prefix}.embeddings"), pixels)
        # The published name is misspelt: pre_layrnorm.
        norm = weights.part(f"{self.prefix}.pre_layrnorm")
        x = engine.layer_norm(x, norm["weight"], norm["bias"], self.config.norm_eps)
        for w in weights.blocks(f"{self.prefix}.encoder.layers", self.layers_run(feature_layer)):
            x = self.layer(w, x, None)
        return x

    def layers_run(self, feature_layer: int) -> int:
        """How many layers come before a hidden state of the list (embedding, layer 1, ... last layer)."""
        return feature_layer if feature_layer >= 0 else self.config.layers + 1 + feature_layer

    def embed(self, w, pixels: Tensor) -> Tensor:
        """Patches and the class token with their positions, before the first norm. Shapes: -> (B, 1 + patches, D)."""
        engine, config = self.engine, self.config
        kernel = w["patch_embedding.weight"]
        pixels = engine.cast(pixels, engine.dtype(kernel))
        grid = engine.conv2d(pixels, kernel, None, (config.patch_size, config.patch_size))
        batch, width = grid.shape[0], config.hidden_size
        patches = engine.permute(engine.reshape(grid, (batch, width, config.patches)), (0, 2, 1))
        first = engine.broadcast_to(engine.reshape(w["class_embedding"], (1, 1, width)), (batch, 1, width))
        return engine.concat([first, patches], 1) + w["position_embedding.weight"]

    def shapes(self, feature_layer: int = -1) -> dict[str, tuple[int, ...]]:
        """Every tensor read for a hidden state, with its shape."""
        config, prefix = self.config, self.prefix
        width = config.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            f"{prefix}.embeddings.class_embedding": (width,),
            f"{prefix}.embeddings.patch_embedding.weight": (width, 3, config.patch_size, config.patch_size),
            f"{prefix}.embeddings.position_embedding.weight": (config.patches + 1, width),
            f"{prefix}.pre_layrnorm.weight": (width,),
            f"{prefix}.pre_layrnorm.bias": (width,),
        }
        for i in range(self.layers_run(feature_layer)):
            shapes |= layer_shapes(f"{prefix}.encoder.layers.{i}.", width=width, mlp=config.mlp_size)
        return shapes

    def unused_shapes(self, feature_layer: int) -> dict[str, tuple[int, ...]]:
        """Published tensors of the tower that no computation here reads."""
        every = self.shapes(-1) | {
            f"{self.prefix}.post_layernorm.weight": (self.config.hidden_size,),
            f"{self.prefix}.post_layernorm.bias": (self.config.hidden_size,),
        }
        used = self.shapes(feature_layer)
        return {name: shape for name, shape in every.items() if name not in used}
