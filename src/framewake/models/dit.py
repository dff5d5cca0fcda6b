"""The diffusion transformer: noisy latents, a timestep and a text become a velocity.

Image and text tokens first have their own weights and meet in attention only (double blocks), then
run as one sequence, image first (single blocks).  First-frame replacement is "these tokens have
another timestep": the blocks get one condition vector per token group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from framewake.config import DiTConfig
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.errors import InputError
from framewake.models.arrangement import Division
from framewake.models.dit_blocks import DoubleBlock, SingleBlock, TokenCounts
from framewake.models.dit_shares import Share, share_of
from framewake.models.dit_stack import BlockStack, Surroundings
from framewake.models.manner import PLAIN, Manner
from framewake.models.refiner import TokenRefiner, with_biases
from framewake.models.source import WeightSource
from framewake.nn.embedding import patch_embedding, patches_to_grid, scalar_embedding
from framewake.nn.mlp import mlp
from framewake.nn.modulation import modulation_vectors, normed_and_modulated

Observe = Callable[[str, Tensor], None]

MOST_FUNCTIONS = 16  # pairs of blocks for sizes and manners that are kept
TEXT = "txt_in"  # what makes the text's tokens
REFINER = f"{TEXT}.individual_token_refiner.blocks"
SCALAR_LAYERS = ("mlp.0", "mlp.2")  # of the embedders of timestep and guidance


class TextPart(NamedTuple):
    """Further tokens beside the text; the first lengths[i] of sample i are valid. Shapes: states (B, T, Ds)."""

    states: Tensor
    lengths: tuple[int, ...]


class TextStates(NamedTuple):
    """What the text encoders hand to the transformer.

    ``lengths`` are host integers: the first lengths[i] states of sample i are valid, the rest is padding. ``further``
    are those of other encoders, by the transformer's name for what takes them.
    Shapes: states (B, T, Dt), pooled (B, Dp), None where the transformer takes none.
    """

    states: Tensor
    lengths: tuple[int, ...]
    pooled: Tensor | None = None
    further: dict[str, TextPart] = {}  # noqa: RUF012  # nobody changes it


class Begun(NamedTuple):
    """What the blocks begin with: image tokens, what is around them, and their grid. Shapes: image (B, N, D)."""

    image: Tensor
    around: Surroundings
    grid: tuple[int, int, int]


def _unseen(_name: str, _tensor: Tensor) -> None:
    pass


class DiT:
    """HunyuanVideo's transformer, stateless: the weights are an argument of every call.

    The two block functions are made once for each size (of latents and text), manner and share of several devices,
    and reused for every block's weights.
    """

    def __init__(self, engine: Engine, config: DiTConfig) -> None:
        self.engine = engine
        self.config = config
        self.refiner = TokenRefiner(engine, config)
        self._functions: dict[tuple[TokenCounts, Manner, Division], tuple[Callable, Callable]] = {}

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Published name and shape of every tensor the model needs (specification, section 4.2)."""
        config = self.config
        width, mlp_size, head_dim = config.hidden_size, config.mlp_size, config.head_dim
        patch_volume = config.patch_size[0] * config.patch_size[1] * config.patch_size[2]
        layers: dict[str, tuple[int, ...]] = {"img_in.proj": (width, config.in_channels, *config.patch_size)}
        for name in self.scalars():
            layers |= {f"{name}.mlp.0": (width, 256), f"{name}.mlp.2": (width, width)}
        if config.pooled_width > 0:
            layers |= {"vector_in.in_layer": (width, config.pooled_width), "vector_in.out_layer": (width, width)}
        layers["final_layer.linear"] = (config.out_channels * patch_volume, width)
        layers["final_layer.adaLN_modulation.1"] = (2 * width, width)
        norms: dict[str, tuple[int, ...]] = {}
        for number in range(config.double_blocks):
            for kind in ("img", "txt"):
                start = f"double_blocks.{number}.{kind}_"
                layers |= {start + "mod.linear": (6 * width, width), start + "attn_qkv": (3 * width, width)}
                layers |= {start + "attn_proj": (width, width)}
                layers |= {start + "mlp.fc1": (mlp_size, width), start + "mlp.fc2": (width, mlp_size)}
                norms |= {start + f"attn_{x}_norm.weight": (head_dim,) for x in "qk"}
        for number in range(config.single_blocks):
            start = f"single_blocks.{number}."
            layers[start + "linear1"] = (3 * width + mlp_size, width)
            layers[start + "linear2"] = (width, width + mlp_size)
            layers[start + "modulation.linear"] = (3 * width, width)
            norms |= {start + f"{x}_norm.weight": (head_dim,) for x in "qk"}
        refiner = {f"txt_in.{name}": shape for name, shape in self.refiner.shapes().items()}
        return with_biases(layers) | norms | refiner

    def scalars(self) -> tuple[str, ...]:
        """The embedders of numbers: the timestep's, and those of what else it is told."""
        return ("time_in", "guidance_in") if self.config.has_guidance else ("time_in",)

    def streams(self) -> tuple[str, ...]:
        """The lists of blocks that need not stay on the device, in the order of their use."""
        return ("double_blocks", "single_blocks")

    def __call__(  # noqa: PLR0913  # the model's own inputs, by name
        self,
        weights: WeightSource,
        latents: Tensor,
        *,
        timestep: Tensor,
        text: TextStates,
        rope: tuple[Tensor, Tensor],
        guidance: Tensor | None = None,
        until: Tensor | None = None,
        run_blocks: Callable[[BlockStack, Tensor], Tensor] | None = None,
        observe: Observe | None = None,
        manner: Manner = PLAIN,
    ) -> Tensor:
        """The velocity (noise minus data) at a timestep.

        ``guidance`` is the embedded scale times 1000, rounded as ``sampling.flow.rounded_guidance`` does; ``until`` the
        timestep that the step leads to, for a transformer that was distilled to be told it.
        ``run_blocks(stack, image)`` replaces the plain ``stack(image)``: image (B, N, D) are the embedded image
        tokens, and ``stack`` is everything up to the final layer, so that a cache may skip it.
        ``observe(name, tensor)`` sees inner activations. ``manner`` is how to work.
        Shapes: latents (B, C, F, H, W), timestep, guidance and until (B,) float32, rope two (N, E) -> (B, C, F, H, W).
        Units: timestep in [0, 1000].
        Precision: that of the weights; the result too.
        Raises: InputError when sizes do not fit together or guidance is missing.
        Source: specification, section 4.4.
        """
        see = observe or _unseen
        told: dict[str, Any] = {"timestep": timestep, "text": text, "rope": rope, "guidance": guidance, "until": until}
        begun = self.head(weights, latents, **told, see=see, manner=manner)
        blocks = self.block_functions(begun.around, manner)
        stack = BlockStack(self.engine, self.config, weights, blocks, begun.around, see)
        x = stack(begun.image) if run_blocks is None else run_blocks(stack, begun.image)
        return self.tail(weights.part("final_layer"), x, begun, see=see)

    def head(  # noqa: PLR0913  # the model's own inputs, by name
        self,
        weights: WeightSource,
        latents: Tensor,
        *,
        timestep: Tensor,
        text: TextStates,
        rope: tuple[Tensor, Tensor],
        guidance: Tensor | None = None,
        until: Tensor | None = None,
        see: Observe = _unseen,
        manner: Manner = PLAIN,
    ) -> Begun:
        """Everything in front of the blocks; arguments and errors are those of a call."""
        engine, config = self.engine, self.config
        grid = self._grid(latents, text, (guidance, until), rope)
        share = share_of(engine, manner.arrangement, grid[0] * grid[1] * grid[2], config.heads)
        latents, timestep, guidance, until = (share.sample(x) for x in (latents, timestep, guidance, until))
        text = of_share(share, text)
        w = weights.part("img_in")
        kind = engine.dtype(w["proj.weight"])
        conditions = self._conditions(weights, timestep, text, (guidance, until), see)
        cut = share.division.run
        image = patch_embedding(engine, w["proj.weight"], w["proj.bias"], engine.cast(latents, kind), run=cut)
        see("img_in", image)
        tokens, lengths = self.text_tokens(weights, text, timestep, see)
        counts = share.counts(self._counts(grid, tokens.shape[1], lengths))
        around = Surroundings(tokens, conditions, (share.rows(rope[0]), share.rows(rope[1])), counts, share)
        if manner.is_compiled and engine.traits.text_bucket is not None:
            around = bucketed(engine, around, engine.traits.text_bucket)
        return Begun(image, around, grid)

    def text_makers(self) -> tuple[str, ...]:
        """The parts that make the text's tokens."""
        return (TEXT,)

    def refined(self, weights: WeightSource, text: TextStates, timestep: Tensor) -> Tensor:
        """The text tokens that the blocks begin with. Shapes: -> (B, T, D)."""
        return self.text_tokens(weights, text, timestep, _unseen)[0]

    def text_tokens(
        self, weights: WeightSource, text: TextStates, timestep: Tensor, see: Observe
    ) -> tuple[Tensor, tuple[int, ...] | None]:
        """The same with their lengths, if some padding is left."""
        text, lengths = trimmed(text)
        blocks = list(weights.blocks(REFINER, self.config.refiner_blocks))
        tokens = self.refiner(weights.part("txt_in"), blocks, text.states, lengths, timestep)
        see("txt_in", tokens)
        return tokens, lengths

    def tail(self, w: Weights, x: Tensor, begun: Begun, *, see: Observe = _unseen) -> Tensor:
        """Image tokens behind the last block become the velocity, through the final layer.

        Shapes: (B, N, D) -> (B, C, F, H, W).
        """
        x = begun.around.share.gathered(self._final(w, x, begun.around.conditions[-1]))
        see("final_tokens", x)
        velocity = patches_to_grid(self.engine, x, begun.grid, self.config.patch_size)
        see("output", velocity)
        return velocity

    def _grid(self, latents: Tensor, text: TextStates, scalars, rope) -> tuple[int, int, int]:
        """Token grid of the latents, after checking that everything fits together."""
        config = self.config
        batch, channels, *sizes = latents.shape
        if channels != config.in_channels:
            raise InputError(f"the latents have {channels} channels, this transformer takes {config.in_channels}.")
        if any(size % step for size, step in zip(sizes, config.patch_size, strict=True)):
            raise InputError(f"latent size {tuple(sizes)} is not a multiple of the patch {config.patch_size}.")
        if config.has_guidance and scalars[0] is None:
            raise InputError("this transformer was trained with embedded guidance: hand in a scale (6.0 is usual).")
        frames, height, width = (size // step for size, step in zip(sizes, config.patch_size, strict=True))
        if tuple(rope[0].shape) != (frames * height * width, config.head_dim):
            expected = (frames * height * width, config.head_dim)
            raise InputError(f"the rotary table has shape {tuple(rope[0].shape)}, these latents need {expected}.")
        if text.states.shape[0] != batch:
            raise InputError(f"{text.states.shape[0]} texts for {batch} latents: hand in one text per sample.")
        return frames, height, width

    def _counts(self, grid: tuple[int, int, int], text: int, text_lengths) -> TokenCounts:
        frames, height, width = grid
        first, rest = height * width, (frames - 1) * height * width
        # With a single frame there is no second image group, but the text still follows the real timestep:
        # an empty group carries it.
        image = (first, rest) if self.config.replaces_first_frame else (first + rest,)
        lengths = None if text_lengths is None else tuple(first + rest + n for n in text_lengths)
        return TokenCounts(image, text, lengths)

    def _conditions(
        self, weights: WeightSource, timestep, text: TextStates, scalars, see: Observe
    ) -> tuple[Tensor, ...]:
        """One vector per image token group; the last is that of the real timestep.

        The first frame's vector is made from timestep 0 and gets no guidance (specification, 4.4).
        """
        engine, w = self.engine, weights.part("vector_in")
        batch = text.states.shape[0]
        pooled = engine.cast(text.pooled, engine.dtype(w["in_layer.weight"]))
        vector = mlp(engine, w, ("in_layer", "out_layer"), pooled, "silu")
        see("vector_embedding", vector)
        is_replaced = self.config.replaces_first_frame
        times = engine.concat([timestep, engine.zeros((batch,))], 0) if is_replaced else timestep
        times = scalar_embedding(engine, weights.part("time_in"), SCALAR_LAYERS, times)
        see("time_embedding", times[:batch])
        condition = times[:batch] + vector
        if self.config.has_guidance:
            scale = scalar_embedding(engine, weights.part("guidance_in"), SCALAR_LAYERS, scalars[0])
            see("guidance_embedding", scale)
            condition = condition + scale
        see("vec", condition)
        if not is_replaced:
            return (condition,)
        see("time_embedding_zero", times[batch:])
        first = times[batch:] + vector
        see("token_replace_vec", first)
        return (first, condition)

    def attending(self, around: Surroundings) -> Any:
        """The engine that attends to the tokens of one device."""
        return self.engine

    def block_functions(self, around: Surroundings, manner: Manner) -> tuple[Callable, Callable]:
        """The functions of a double and a single block; their arguments are those of the blocks' own classes."""
        counts, share = around.counts, around.share
        key = (counts, manner, share.division)
        made = self._functions.pop(key, None)  # and back as the last one that was used
        if made is None:
            engine = share.attending(self.attending(around))
            double_block = DoubleBlock(engine, self.config, counts, manner)
            single_block = SingleBlock(engine, self.config, counts, manner)

            # Plain functions: MindSpore hands a callable object back uncompiled, without a word.
            def double(w, image, text, conditions, rope, lengths):
                return double_block(w, image, text, conditions, rope, lengths=lengths)

            def single(w, x, conditions, rope, lengths):
                return single_block(w, x, conditions, rope, lengths=lengths)

            made = (double, single)
            if manner.is_compiled:
                made = (self.engine.compile(double), self.engine.compile(single))
            if len(self._functions) == MOST_FUNCTIONS:
                self._functions.pop(next(iter(self._functions)))  # a service meets sizes without end
        self._functions[key] = made
        return made

    def _final(self, w: Weights, x: Tensor, condition: Tensor) -> Tensor:
        """Modulated norm and the last linear layer. Shapes: (B, N, D) -> (B, N, C*f*h*w)."""
        engine = self.engine
        shift, scale = modulation_vectors(engine, w, "adaLN_modulation.1", [condition], 2)[0]
        x = normed_and_modulated(engine, x, (x.shape[1],), (shift,), (scale,))
        # Published checkpoints keep this one layer in float32 beside bfloat16.
        kind = engine.dtype(x)
        return engine.linear(x, engine.cast(w["linear.weight"], kind), engine.cast(w["linear.bias"], kind))


def trimmed(text: TextStates) -> tuple[TextStates, tuple[int, ...] | None]:
    """The text without rows that no sample needs, and the lengths if some padding is left.

    Raises: InputError for lengths that do not fit the states.
    """
    batch, tokens, _ = text.states.shape
    if len(text.lengths) != batch or min(text.lengths) < 1 or max(text.lengths) > tokens:
        raise InputError(f"text lengths {text.lengths} do not fit {batch} samples of 1 to {tokens} tokens.")
    longest = max(text.lengths)
    text = text._replace(states=text.states[:, :longest] if longest < tokens else text.states)
    return text, None if min(text.lengths) == longest else text.lengths


def bucketed(engine: Engine, around: Surroundings, size: int) -> Surroundings:
    """Text padded to a multiple of a size, with its lengths as an argument: texts of many lengths share a program.

    Attention never sees the padding, and nothing else mixes tokens.
    """
    counts, spare = around.counts, -around.counts.text % size
    lengths = counts.lengths or (around.share.division.tokens + counts.text,) * around.text.shape[0]
    text = engine.pad(around.text, ((0, spare), (0, 0))) if spare else around.text
    counts = counts._replace(text=counts.text + spare, lengths=None)
    return around._replace(text=text, counts=counts, lengths=engine.key_lengths(lengths))


def of_share(share: Share, text: TextStates) -> TextStates:
    """Of texts, those of one device's samples."""
    further = {name: TextPart(*map(share.sample, part)) for name, part in text.further.items()}
    return TextStates(share.sample(text.states), share.sample(text.lengths), share.sample(text.pooled), further)


def joined_texts(engine: Engine, texts: Sequence[TextStates]) -> TextStates:
    """Several texts as one batch, the shorter ones padded with zeros; what only some have is of no length in others."""
    states, lengths = _stacked(engine, [TextPart(*text[:2]) for text in texts])
    pooled = None if texts[0].pooled is None else engine.concat([text.pooled for text in texts], 0)
    further = {}
    for name, part in {name: part for text in texts for name, part in text.further.items()}.items():
        further[name] = _stacked(engine, [text.further.get(name) or _nothing(engine, part, text) for text in texts])
    return TextStates(states, lengths, pooled, further)


def _nothing(engine: Engine, like: TextPart, text: TextStates) -> TextPart:
    """No tokens beside those of a text."""
    batch = text.states.shape[0]
    return TextPart(engine.zeros((batch, 1, like.states.shape[2]), engine.dtype(like.states)), (0,) * batch)


def _stacked(engine: Engine, parts: Sequence[TextPart]) -> TextPart:
    lengths = tuple(length for part in parts for length in part.lengths)
    return TextPart(padded_rows(engine, [part.states for part in parts]), lengths)


def padded_rows(engine: Engine, rows: Sequence[Tensor]) -> Tensor:
    """Sequences of any lengths as one batch, zeros behind the shorter ones. Shapes: (b, t, D) each -> (B, T, D)."""
    longest = max(row.shape[1] for row in rows)
    even = [row if row.shape[1] == longest else engine.pad(row, ((0, longest - row.shape[1]), (0, 0))) for row in rows]
    return even[0] if len(even) == 1 else engine.concat(even, 0)
