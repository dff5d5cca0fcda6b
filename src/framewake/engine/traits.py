"""What there is to know of an engine beside its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

Products = Literal["float32", "float16", "bfloat16"]


@dataclasses.dataclass(frozen=True)
class Traits:
    """What decides how a run is done on an engine; nothing outside of ``engine/`` looks at its name for that.

    Units: bytes, but ``slab_numbers`` and ``convolution_tensors``, which are tensors of a tile's size.
    """

    is_host: bool  # it computes with the processors of this machine, in its memory
    precision: Products  # what suits it best
    products: tuple[Products, ...]  # types that it multiplies matrices in
    fused_attention: tuple[Products, ...]  # types in which no scores of attention are ever kept
    draws_as_torch: bool  # it has the random numbers of torch's generator
    holds_arrays: bool  # it holds on to an array for as long as it computes with it
    compiles_blocks: bool  # compiled blocks are worth a minute of compiling to it
    product_share: float  # of the rate of a bare matrix product that whole blocks reach
    start_bytes: int  # of libraries, that appear with the first work
    margin_bytes: int = 0  # of device memory that a run leaves to the libraries
    has_gradients: bool = True  # all its operations do
    text_bucket: int | None = None  # a compiled program serves text up to a multiple of it
    slab_numbers: int | None = None  # of a slab that the decoder works at; None: whole tiles take less time
    chunk_tokens: int | None = None  # at a time, where a block's widest layer is larger than the caches
    # What its library takes for convolutions: reordered weights and scratch space at the least, what is always
    # there, and copies of so many tensors as large as the tile, up to a size.
    convolution_floor: int = 0
    convolution_start: int = 0
    convolution_tensors: float = 0.0
    convolution_most: int = 0

    def to_plain(self) -> dict[str, Any]:
        """As values for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_plain(cls, values: Mapping[str, Any]) -> Traits:
        """From what ``to_plain`` made.

        Raises: TypeError for anything else.
        """
        plain: dict[str, Any] = {n: tuple(value) if isinstance(value, list) else value for n, value in values.items()}
        return cls(**plain)
