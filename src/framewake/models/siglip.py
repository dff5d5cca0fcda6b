"""SigLIP's vision tower: a picture in, the states of its patches out."""

from __future__ import annotations

from framewake.config import ClipVisionConfig
from framewake.engine.contract import Engine, Tensor
from framewake.models.clip_layer import ClipLayer, layer_shapes

PREFIX = "vision_model"


class Siglip:
    """The tower without its pooling head: no class token, no norm in front, one behind.

    Source: specification of 1.5, section 5.
    """

    def __init__(self, engine: Engine, config: ClipVisionConfig) -> None:
        self.engine = engine
        self.config = config
        self.layer = ClipLayer(engine, heads=config.heads, activation=config.activation, eps=config.norm_eps)

    def __call__(self, weights, pixels: Tensor) -> Tensor:
        """Shapes: pixels (B, 3, S, S) normalised -> (B, patches, D). Precision: that of the weights."""
        engine, config = self.engine, self.config
        w = weights.part(f"{PREFIX}.embeddings")
        kernel = w["patch_embedding.weight"]
        pixels = engine.cast(pixels, engine.dtype(kernel))
        grid = engine.conv2d(pixels, kernel, w["patch_embedding.bias"], (config.patch_size, config.patch_size))
        x = engine.permute(engine.reshape(grid, (grid.shape[0], config.hidden_size, config.patches)), (0, 2, 1))
        x = x + w["position_embedding.weight"]
        for block in weights.blocks(f"{PREFIX}.encoder.layers", config.layers):
            x = self.layer(block, x, None)
        norm = weights.part(f"{PREFIX}.post_layernorm")
        return engine.layer_norm(x, norm["weight"], norm["bias"], config.norm_eps)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor that is read, with its shape."""
        config = self.config
        width = config.hidden_size
        shapes: dict[str, tuple[int, ...]] = {
            f"{PREFIX}.embeddings.patch_embedding.weight": (width, 3, config.patch_size, config.patch_size),
            f"{PREFIX}.embeddings.patch_embedding.bias": (width,),
            f"{PREFIX}.embeddings.position_embedding.weight": (config.patches, width),
            f"{PREFIX}.post_layernorm.weight": (width,),
            f"{PREFIX}.post_layernorm.bias": (width,),
        }
        for i in range(config.layers):
            shapes |= layer_shapes(f"{PREFIX}.encoder.layers.{i}.", width=width, mlp=config.mlp_size)
        return shapes

    def streams(self) -> tuple[str, ...]:
        """The list of blocks that need not stay on the device."""
        return (f"{PREFIX}.encoder.layers",)
