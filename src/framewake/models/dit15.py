"""HunyuanVideo-1.5's transformer: the same double blocks, told less of the timestep and more of the prompt.

Three encoders hand in tokens: a picture's (SigLIP), those of quoted text (byT5), and the language model's, which alone
are refined. Each kind gets a vector of its own, and they stand in this order, without padding between them.
"""

from __future__ import annotations

from typing import Any

from framewake.config15 import DiT15Config
from framewake.engine.contract import Engine, Tensor, Weights
from framewake.errors import InputError
from framewake.models.clip_layer import activate
from framewake.models.dit import SCALAR_LAYERS, DiT, Observe, TextStates, padded_rows
from framewake.models.dit_blocks import TokenCounts
from framewake.models.dit_stack import Surroundings
from framewake.models.refiner import with_biases
from framewake.models.source import WeightSource
from framewake.models.tile_attention import TileAttending
from framewake.nn.embedding import scalar_embedding
from framewake.nn.linear import linear

GLYPH, VISION = "byt5_in", "vision_in"
KINDS = (VISION, GLYPH, "txt_in")  # in their order; the rows of their vectors are the other way round
TEXT_ROOM = 729 + 256 + 1000  # tokens of each kind in the original, which pads them all
PROJECTION_EPS = 1e-5  # the rest of the transformer has 1e-6


class DiT15(DiT):
    """Stateless: the weights are an argument of every call.

    Queries, keys and values are one layer, as ComfyUI stores them; Tencent's files have three, joined while reading.
    Source: specification of 1.5, sections 6 and 7.
    """

    config: DiT15Config

    def __init__(self, engine: Engine, config: DiT15Config) -> None:
        super().__init__(engine, config)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor the model needs."""
        width, vision = self.config.hidden_size, self.config.vision_width
        seen, first, second = self.config.glyph_widths
        layers: dict[str, tuple[int, ...]] = {
            f"{GLYPH}.layernorm": (seen,),
            f"{GLYPH}.fc1": (first, seen),
            f"{GLYPH}.fc2": (second, first),
            f"{GLYPH}.fc3": (width, second),
            f"{VISION}.proj.0": (vision,),
            f"{VISION}.proj.1": (vision, vision),
            f"{VISION}.proj.3": (width, vision),
            f"{VISION}.proj.4": (width,),
        }
        return super().shapes() | with_biases(layers) | {"cond_type_embedding.weight": (len(KINDS), width)}

    def scalars(self) -> tuple[str, ...]:
        """The embedders of the timestep and of the one that a step leads to."""
        return ("time_in", "time_r_in") if self.config.has_next_timestep else ("time_in",)

    def text_makers(self) -> tuple[str, ...]:
        """The parts that make the text's tokens, those of pictures and quoted text among them."""
        return KINDS

    def text_tokens(
        self, weights: WeightSource, text: TextStates, timestep: Tensor, see: Observe
    ) -> tuple[Tensor, tuple[int, ...] | None]:
        """Tokens of picture, quoted text and prompt, and their lengths if some padding is left."""
        engine = self.engine
        refined, _ = super().text_tokens(weights, text, timestep, see)
        projected = {"txt_in": (refined, text.lengths)}
        for name, (states, lengths) in text.further.items():
            projected[name] = (self.projected(weights.part(name), name, states), lengths)
            see(name, projected[name][0])
        vectors = weights.part("cond_type_embedding")["weight"]
        parts = []
        for row, name in enumerate(reversed(KINDS)):
            if name in projected:
                tokens, lengths = projected[name]
                parts.insert(0, (tokens + vectors[row], lengths))
        rows = []
        for i in range(refined.shape[0]):
            valid = [tokens[i : i + 1, : lengths[i]] for tokens, lengths in parts if lengths[i] > 0]
            rows.append(valid[0] if len(valid) == 1 else engine.concat(valid, 1))
        counts = tuple(int(row.shape[1]) for row in rows)
        if self.config.tiles is not None:
            return self._in_blocks(
                rows, vectors[2:] * (0.0 if VISION in projected else 1.0), self.config.tiles.tokens
            ), counts
        tokens = padded_rows(engine, rows)
        see("txt_joined", tokens)
        return tokens, None if min(counts) == max(counts) else counts

    def _in_blocks(self, rows: list[Tensor], filling: Tensor, block: int) -> Tensor:
        """Texts filled up to whole blocks, for a block that is seen is seen with its padding.

        Without a picture, the original's padding begins with the vector of the picture's tokens, else it is zero.
        Shapes: (1, t, D) each, filling (1, D) -> (B, T, D).
        """
        engine, filled = self.engine, []
        for row in rows:
            missing = min(-row.shape[1] % block, max(TEXT_ROOM - row.shape[1], 0))
            more = engine.broadcast_to(filling[None], (1, missing, filling.shape[1]))
            filled.append(engine.concat([row, more], 1) if missing else row)
        return padded_rows(engine, filled)

    def attending(self, around: Surroundings) -> Any:
        """An engine whose attention is sparse, where the checkpoint's is.

        Raises: InputError where devices do not have all queries of a head: what these see depends on all of them.
        """
        rule, grid = self.config.tiles, around.counts.grid
        if rule is None or grid is None:
            return self.engine
        if around.share.division.arrangement.groups > 1:
            raise InputError(
                f"sparse attention is shared by head, at most {self.config.heads} devices: choose fewer of them."
            )
        return TileAttending(self.engine, rule.at(grid[0]), grid)

    def _counts(self, grid: tuple[int, int, int], text: int, text_lengths) -> TokenCounts:
        counts = super()._counts(grid, text, text_lengths)
        return counts if self.config.tiles is None else counts._replace(grid=grid)

    def projected(self, w: Weights, name: str, states: Tensor) -> Tensor:
        """States of another encoder in the transformer's width, without their kind's vector.

        Shapes: (B, T, Ds) -> (B, T, D). ``w`` is the part ``name``.
        """
        engine = self.engine
        norm, *layers = ("layernorm", "fc1", "fc2", "fc3") if name == GLYPH else ("proj.0", "proj.1", "proj.3")
        x = engine.cast(states, engine.dtype(w[norm + ".weight"]))
        x = engine.layer_norm(x, w[norm + ".weight"], w[norm + ".bias"], PROJECTION_EPS)
        for place, layer in enumerate(layers):
            x = linear(engine, w, layer, x if place == 0 else activate(engine, "gelu", x))
        if name == GLYPH:
            return x
        return engine.layer_norm(x, w["proj.4.weight"], w["proj.4.bias"], PROJECTION_EPS)

    def _conditions(
        self, weights: WeightSource, timestep, text: TextStates, scalars, see: Observe
    ) -> tuple[Tensor, ...]:
        """One vector for all tokens.

        Raises: InputError where a step's end is missing, or told to a transformer that does not know it.
        """
        until = scalars[1]
        if (until is None) == self.config.has_next_timestep:
            raise InputError("only a step-distilled transformer is told where a step ends, and it has to be.")
        condition = scalar_embedding(self.engine, weights.part("time_in"), SCALAR_LAYERS, timestep)
        see("time_embedding", condition)
        if until is not None:
            following = scalar_embedding(self.engine, weights.part("time_r_in"), SCALAR_LAYERS, until)
            see("time_r_embedding", following)
            condition = condition + following
        see("vec", condition)
        return (condition,)
