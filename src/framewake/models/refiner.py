"""The token refiner: text states become the text tokens of the transformer."""

from __future__ import annotations

from collections.abc import Sequence

from framewake.config import DiTConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.nn.attention import split_heads
from framewake.nn.embedding import scalar_embedding
from framewake.nn.linear import linear
from framewake.nn.mlp import mlp
from framewake.nn.modulation import modulation_vectors

TIME_LAYERS = ("t_embedder.mlp.0", "t_embedder.mlp.2")


class TokenRefiner:
    """Two gated transformer blocks over the text states, steered by the timestep and their mean.

    Source: specification, section 4.5.
    """

    def __init__(self, engine: Engine, config: DiTConfig) -> None:
        self.engine = engine
        self.config = config

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor, names relative to the refiner."""
        width, mlp_size, inputs = self.config.hidden_size, self.config.mlp_size, self.config.text_width
        layers: dict[str, tuple[int, ...]] = {
            "input_embedder": (width, inputs),
            "t_embedder.mlp.0": (width, 256),
            "t_embedder.mlp.2": (width, width),
            "c_embedder.linear_1": (width, inputs),
            "c_embedder.linear_2": (width, width),
        }
        for number in range(self.config.refiner_blocks):
            start = f"individual_token_refiner.blocks.{number}."
            layers[start + "norm1"] = layers[start + "norm2"] = (width,)
            layers[start + "self_attn_qkv"] = (3 * width, width)
            layers[start + "self_attn_proj"] = (width, width)
            layers[start + "mlp.fc1"] = (mlp_size, width)
            layers[start + "mlp.fc2"] = (width, mlp_size)
            layers[start + "adaLN_modulation.1"] = (2 * width, width)
        return with_biases(layers)

    def __call__(self, w: Weights, blocks: Sequence[Weights], states: Tensor, lengths, timestep: Tensor) -> Tensor:
        """Text tokens; rows beyond a sample's length are finite and mean nothing.

        ``lengths`` is None when every row of every sample is valid.
        Shapes: states (B, T, Dt), timestep (B,) -> (B, T, D).
        Precision: the mean of the states in float32.
        """
        engine = self.engine
        kind = engine.dtype(w["input_embedder.weight"])
        mean = engine.cast(mean_of_valid(engine, states, lengths), kind)
        names = ("c_embedder.linear_1", "c_embedder.linear_2")
        condition = scalar_embedding(engine, w, TIME_LAYERS, timestep) + mlp(engine, w, names, mean, "silu")
        x = linear(engine, w, "input_embedder", engine.cast(states, kind))
        for block in blocks:
            x = self.block(block, x, lengths, condition)
        return x

    def block(self, w: Weights, x: Tensor, lengths, condition: Tensor) -> Tensor:
        """One block: attention and MLP, each added through a gate."""
        engine = self.engine
        batch, tokens, width = x.shape
        heads = self.config.heads
        gates = modulation_vectors(engine, w, "adaLN_modulation.1", [condition], 2)[0]
        normed = engine.layer_norm(x, w["norm1.weight"], w["norm1.bias"])
        q, k, v = split_heads(engine, linear(engine, w, "self_attn_qkv", normed), heads)
        out = engine.attention(q, k, v, scale=(width // heads) ** -0.5, lengths=lengths)
        out = linear(engine, w, "self_attn_proj", engine.reshape(out, (batch, tokens, width)))
        x = x + out * gates[0][:, None, :]
        normed = engine.layer_norm(x, w["norm2.weight"], w["norm2.bias"])
        return x + mlp(engine, w, ("mlp.fc1", "mlp.fc2"), normed, "silu") * gates[1][:, None, :]


def mean_of_valid(engine: Engine, states: Tensor, lengths) -> Tensor:
    """Mean over the first lengths[i] rows of sample i, in float32.

    Shapes: (B, T, D) -> (B, D).
    """
    states = engine.cast(states, "float32")
    if lengths is None:
        return engine.mean(states, (1,))
    rows = [engine.mean(states[i, :count], (0,)) for i, count in enumerate(lengths)]
    return engine.stack(rows, 0)


def with_biases(layers: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Layer name -> weight shape, as tensor name -> shape with a bias as long as the first axis."""
    tensors = {}
    for name, shape in layers.items():
        tensors[name + ".weight"] = shape
        tensors[name + ".bias"] = shape[:1]
    return tensors
