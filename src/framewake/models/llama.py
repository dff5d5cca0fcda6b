"""The Llama decoder: embeddings in, one hidden state out."""

from __future__ import annotations

import numpy as np

from framewake.config import LlamaConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.errors import InputError

PREFIX = "language_model.model"


def rope_half_table(tokens: int, head_dim: int, theta: float) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the half-split rotary embedding for positions 0, 1, ...

    Shapes: two float32 arrays (tokens, head_dim).
    Precision: angles are float32 products, as in the reference; float64 would differ at far positions.
    """
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = np.float32(1) / np.float32(theta) ** exponents
    angles = np.arange(tokens, dtype=np.float32)[:, None] * frequencies
    angles = np.concatenate([angles, angles], axis=1)
    return np.cos(angles), np.sin(angles)


class LlamaLayer:
    """Grouped-query attention with rotary positions, then a gated MLP, each behind an RMS norm.

    Shapes: x (B, N, D); cos and sin (N, 1, E); mask bool (1, 1, N, N).
    """

    def __init__(self, engine: Engine, config: LlamaConfig) -> None:
        self.engine = engine
        self.config = config

    def __call__(self, w: Weights, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        engine, eps = self.engine, self.config.norm_eps
        h = engine.rms_norm(x, w["input_layernorm.weight"], eps)
        x = x + self.attend(w, h, cos, sin, mask)
        h = engine.rms_norm(x, w["post_attention_layernorm.weight"], eps)
        gate = engine.silu(engine.linear(h, w["mlp.gate_proj.weight"]))
        return x + engine.linear(gate * engine.linear(h, w["mlp.up_proj.weight"]), w["mlp.down_proj.weight"])

    def attend(self, w: Weights, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor) -> Tensor:
        """Causal self-attention. Shapes: x (B, N, D) -> (B, N, D)."""
        engine, config = self.engine, self.config
        batch, tokens = x.shape[0], x.shape[1]
        heads, kv_heads, width = config.heads, config.kv_heads, config.head_dim
        q, k, v = (
            engine.reshape(
                engine.linear(x, w[f"self_attn.{name}.weight"], w.get(f"self_attn.{name}.bias")),
                (batch, tokens, count, width),
            )
            for name, count in (("q_proj", heads), ("k_proj", kv_heads), ("v_proj", kv_heads))
        )
        q, k = self.rotate(q, cos, sin), self.rotate(k, cos, sin)
        out = engine.attention(q, self.repeat(k), self.repeat(v), scale=width**-0.5, mask=mask)
        out = engine.reshape(out, (batch, tokens, heads * width))
        return engine.linear(out, w["self_attn.o_proj.weight"])

    def rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Turn channel i with channel i + E/2 (not neighbours, unlike the diffusion transformer)."""
        half = self.config.head_dim // 2
        turned = self.engine.concat([-x[..., half:], x[..., :half]], 3)
        return x * cos + turned * sin

    def repeat(self, x: Tensor) -> Tensor:
        """Give consecutive query heads the same key head. Shapes: (B, N, kv_heads, E) -> (B, N, A, E)."""
        heads, kv_heads, width = self.config.heads, self.config.kv_heads, self.config.head_dim
        if heads == kv_heads:
            return x
        batch, tokens = x.shape[0], x.shape[1]
        wide = self.engine.broadcast_to(
            self.engine.reshape(x, (batch, tokens, kv_heads, 1, width)),
            (batch, tokens, kv_heads, heads // kv_heads, width),
        )
        return self.engine.reshape(wide, (batch, tokens, heads, width))


class Llama:
    """The decoder without a language-model head.

    Source: specification, sections 3.2 and 3.3.
    """

    def __init__(self, engine: Engine, config: LlamaConfig, *, prefix: str = PREFIX) -> None:
        self.engine = engine
        self.config = config
        self.prefix = prefix
        self.layer = LlamaLayer(engine, config)

    def embed(self, weights, ids: np.ndarray) -> Tensor:
        """Token embeddings. Shapes: ids (B, L) on the host -> (B, L, D)."""
        highest = int(ids.max(initial=0))
        if highest >= self.config.vocab_size:
            raise InputError(
                f"token id {highest} is outside the language model's vocabulary of {self.config.vocab_size}; "
                "tokenizer and checkpoint do not belong together."
            )
        table = weights.part(f"{self.prefix}.embed_tokens")["weight"]
        return self.engine.embedding(table, self.engine.asarray(ids))

    def __call__(self, weights, x: Tensor, *, skip_layers: int) -> Tensor:
        """The hidden state in front of the last ``skip_layers`` layers; those layers are never read.

        Positions are 0, 1, ...: padding, if any, stands on the right, where no valid token can see it.
        The final norm belongs to ``skip_layers=0`` only.

        Shapes: x (B, N, D) -> (B, N, D).
        """
        engine, config = self.engine, self.config
        tokens = x.shape[1]
        kind = engine.dtype(x)
        cos, sin = (
            engine.asarray(table[:, None, :], kind)
            for table in rope_half_table(tokens, config.head_dim, config.rope_theta)
        )
        causal = engine.asarray(np.tril(np.ones((1, 1, tokens, tokens), dtype=bool)))
        for w in weights.blocks(f"{self.prefix}.layers", self.layers_run(skip_layers)):
            x = self.layer(w, x, cos, sin, causal)
        if skip_layers == 0:
            x = engine.rms_norm(x, weights.part(f"{self.prefix}.norm")["weight"], config.norm_eps)
        return x

    def layers_run(self, skip_layers: int) -> int:
        """How many layers come before the hidden state that is asked for."""
        if not 0 <= skip_layers <= self.config.layers:
            raise InputError(f"skip_layers is {skip_layers}; the language model has {self.config.layers} layers.")
        return self.config.layers - skip_layers

    def shapes(self, skip_layers: int = 2) -> dict[str, tuple[int, ...]]:
        """Every tensor that is read, with its shape."""
        config, prefix = self.config, self.prefix
        width, inner = config.hidden_size, config.heads * config.head_dim
        shapes: dict[str, tuple[int, ...]] = {f"{prefix}.embed_tokens.weight": (config.vocab_size, width)}
        for i in range(self.layers_run(skip_layers)):
            name = f"{prefix}.layers.{i}"
            shapes |= {
                f"{name}.input_layernorm.weight": (width,),
                f"{name}.post_attention_layernorm.weight": (width,),
                f"{name}.self_attn.q_proj.weight": (inner, width),
                f"{name}.self_attn.k_proj.weight": (config.kv_heads * config.head_dim, width),
                f"{name}.self_attn.v_proj.weight": (config.kv_heads * config.head_dim, width),
                f"{name}.self_attn.o_proj.weight": (width, inner),
                f"{name}.mlp.gate_proj.weight": (config.mlp_size, width),
                f"{name}.mlp.up_proj.weight": (config.mlp_size, width),
                f"{name}.mlp.down_proj.weight": (width, config.mlp_size),
            }
            if config.has_bias:
                entry = [f"{name}.self_attn.{letter}_proj" for letter in "qkv"]
                shapes |= {f"{layer}.bias": shapes[f"{layer}.weight"][:1] for layer in entry}
        if skip_layers == 0:
            shapes[f"{prefix}.norm.weight"] = (width,)
        return shapes

    def unused_shapes(self, skip_layers: int = 2) -> dict[str, tuple[int, ...]]:
        """Published tensors of the language model that no computation here reads."""
        head = {f"{self.prefix.removesuffix('model')}lm_head.weight": (self.config.vocab_size, self.config.hidden_size)}
        used = self.shapes(skip_layers)
        return {name: shape for name, shape in (self.shapes(0) | head).items() if name not in used}
