"""The transformer layer shared by CLIP's vision tower and CLIP's text encoder."""

from __future__ import annotations

from framewake.engine.contract import Engine, Tensor, Weights
from framewake.errors import CheckpointError, nearest

ACTIVATIONS = ("gelu", "quick_gelu", "gelu_new", "gelu_pytorch_tanh", "silu")


def check_activation(name: str) -> str:
    """The name itself when ``activate`` knows it.

    Raises: CheckpointError for an activation that is not in ``ACTIVATIONS``.
    """
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"activation {name!r} in the model's config is unknown; expected one of {', '.join(ACTIVATIONS)}."
            f"{nearest(name, ACTIVATIONS)}"
        )
    return name


def activate(engine: Engine, name: str, x: Tensor) -> Tensor:
    """The activation that a Hugging Face config calls ``name``."""
    if name == "quick_gelu":
        return x * engine.sigmoid(x * 1.702)
    if name == "gelu":
        return engine.gelu(x)
    if name == "silu":
        return engine.silu(x)
    return engine.gelu(x, "tanh")


class ClipLayer:
    """Attention, then MLP, each behind a layer norm and added to its input.

    Shapes: x (B, N, D); mask bool (1, 1, N, N), True where a query may look, or None.
    """

    def __init__(self, engine: Engine, *, heads: int, activation: str, eps: float) -> None:
        self.engine = engine
        self.heads = heads
        self.activation = check_activation(activation)
        self.eps = eps

    def __call__(self, w: Weights, x: Tensor, mask: Tensor | None) -> Tensor:
        engine = self.engine
        h = engine.layer_norm(x, w["layer_norm1.weight"], w["layer_norm1.bias"], self.eps)
        x = x + self.attend(w, h, mask)
        h = engine.layer_norm(x, w["layer_norm2.weight"], w["layer_norm2.bias"], self.eps)
        h = activate(engine, self.activation, engine.linear(h, w["mlp.fc1.weight"], w["mlp.fc1.bias"]))
        return x + engine.linear(h, w["mlp.fc2.weight"], w["mlp.fc2.bias"])

    def attend(self, w: Weights, x: Tensor, mask: Tensor | None) -> Tensor:
        """Self-attention. Shapes: x (B, N, D) -> (B, N, D)."""
        engine = self.engine
        batch, tokens, width = x.shape
        split = (batch, tokens, self.heads, width // self.heads)
        q, k, v = [
            engine.reshape(engine.linear(x, w[f"self_attn.{name}.weight"], w[f"self_attn.{name}.bias"]), split)
            for name in ("q_proj", "k_proj", "v_proj")
        ]
        out = engine.attention(q, k, v, scale=(width // self.heads) ** -0.5, mask=mask)
        out = engine.reshape(out, (batch, tokens, width))
        return engine.linear(out, w["self_attn.out_proj.weight"], w["self_attn.out_proj.bias"])


def layer_shapes(prefix: str, *, width: int, mlp: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of one layer's tensors under ``prefix`` (which ends with a dot)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
        shapes[f"{prefix}self_attn.{name}.weight"] = (width, width)
        shapes[f"{prefix}self_attn.{name}.bias"] = (width,)
    for name in ("layer_norm1", "layer_norm2"):
        shapes[f"{prefix}{name}.weight"] = (width,)
        shapes[f"{prefix}{name}.bias"] = (width,)
    shapes[f"{prefix}mlp.fc1.weight"] = (mlp, width)
    shapes[f"{prefix}mlp.fc1.bias"] = (mlp,)
    shapes[f"{prefix}mlp.fc2.weight"] = (width, mlp)
    shapes[f"{prefix}mlp.fc2.bias"] = (width,)
    return shapes
