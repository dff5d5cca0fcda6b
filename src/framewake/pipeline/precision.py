"""Which number type each part of a run uses."""

from __future__ import annotations

from typing import NamedTuple

from framewake.engine.contract import Dtype, Engine
from framewake.errors import InputError, nearest


class Precision(NamedTuple):
    """Types of the three groups of models, and the name that was chosen."""

    name: str
    transformer: Dtype
    text: Dtype
    vae: Dtype

    @property
    def rounds_to_half(self) -> bool:
        """Whether noise and conditioning latent are rounded to float16, as the original's are."""
        return self.name != "float32"


PRECISIONS = {
    "bfloat16": Precision("bfloat16", "bfloat16", "float16", "float16"),
    "float16": Precision("float16", "float16", "float16", "float16"),
    "float32": Precision("float32", "float32", "float32", "float32"),
}
NO_BFLOAT16 = "MindSpore has no bfloat16 matrix product on a CPU"


def choose_precision(name: str, engine: Engine) -> Precision:
    """The precision of a name; "auto": float32 on a CPU, else bfloat16 with float16 encoders.

    On a CPU the autoencoder is float32 always, and the text encoders are what the transformer is.

    Raises: InputError for an unknown name, and for a type that the engine has no matrix product in.
    Source: specification, section 6.5.
    """
    if name == "auto":
        return PRECISIONS[engine.traits.precision]
    if name not in PRECISIONS:
        known = ("auto", *PRECISIONS)
        raise InputError(f"precision {name!r} is unknown: choose {', '.join(known)}.{nearest(name, known)}")
    if name not in engine.traits.products:
        raise InputError(f"{NO_BFLOAT16}: take --precision float32 or float16.")
    if engine.traits.is_host and name != "float32":
        # A CPU computes float16 a hundred times slower than float32 in convolutions and ten times slower than
        # bfloat16 in matrix products (measured, torch 2.13 on AMD EPYC).
        text: Dtype = "bfloat16" if name == "bfloat16" else PRECISIONS[name].text
        return PRECISIONS[name]._replace(text=text, vae="float32")
    return PRECISIONS[name]
