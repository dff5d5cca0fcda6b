"""Runs every case of a golden folder on one engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import CheckpointError, FramewakeError, InputError, nearest
from framewake.golden import encoders, loop, loop15, modules, modules15, tables
from framewake.golden.cases import Case, read_cases
from framewake.golden.compare import Pair, Row, rows

KINDS: dict[str, Callable[[Case, Engine, dict[str, np.ndarray]], Iterator[Pair]]] = {
    "dit_forward": modules.dit_forward,
    "vae_encode": modules.vae_encode,
    "vae_decode": modules.vae_decode,
    "vae_encode_tiled": modules.vae_encode,
    "vae_decode_tiled": modules.vae_decode,
    "lora_merge": modules.lora_merge,
    "end_to_end": loop.end_to_end,
    "end_to_end_predict": loop.end_to_end,
    "rope": tables.rope,
    "timestep_embedding": tables.timestep_embedding,
    "guidance_rounding": tables.guidance_rounding,
    "schedule": tables.schedules,
    "euler_step": tables.euler_steps,
    "buckets": tables.bucket_choices,
    "image_preprocess": tables.image_preprocess,
    "clip_image": tables.clip_image,
    "llava_encode": encoders.llava_encode,
    "clip_text": encoders.clip_text,
}
KINDS_15: dict[str, Callable[[Case, Engine, dict[str, np.ndarray]], Iterator[Pair]]] = {
    "dit15_forward": modules15.dit15_forward,
    "vae15_encode": modules15.vae15_encode,
    "vae15_decode": modules15.vae15_decode,
    "vae15_encode_tiled": modules15.vae15_encode,
    "vae15_decode_tiled": modules15.vae15_decode,
    "end_to_end15": loop15.end_to_end15,
    "sr_end_to_end15": loop15.sr_end_to_end15,
    "rope15": loop15.rope15,
    "timestep_embedding15": loop15.timestep_embedding15,
    "schedule15": loop15.schedule15,
    "buckets15": loop15.buckets15,
    "image_preprocess15": loop15.image_preprocess15,
    "qwen_encode": modules15.qwen_encode,
    "byt5_encode": modules15.byt5_encode,
    "glyph_text": loop15.glyph_texts,
    "siglip_encode": modules15.siglip_encode,
    "ssta": modules15.ssta,
    "sr_upsampler": modules15.sr_upsampler,
}
EVERY_KIND = KINDS | KINDS_15


def run(folder: str | os.PathLike[str], engine: Engine, *, only: Collection[str] = ()) -> Iterator[Row]:
    """Compare every case of a folder, or those whose ids are in ``only``, array by array, as they are computed.

    Rows that mean nothing, such as padded text, are left out of the comparison. Several processes that work together
    all call it, and share the transformer.
    Precision: weights and inputs in float32.
    Raises: CheckpointError for a folder that is damaged or holds an unknown kind; InputError for an unknown id.
    """
    cases = read_cases(folder)
    known = [case.id for case in cases]
    for name in only:
        if name not in known:
            raise InputError(f"{folder} has no case {name!r}.{nearest(name, known)}")
    for case in cases:
        if not only or case.id in only:
            yield from run_case(case, engine)


def run_case(case: Case, engine: Engine) -> Iterator[Row]:
    """The rows of one case.

    Raises: CheckpointError when the case is incomplete or of an unknown kind.
    """
    if case.kind not in EVERY_KIND:
        raise CheckpointError(f"case {case.id!r} is of the unknown kind {case.kind!r}.{nearest(case.kind, EVERY_KIND)}")
    arrays = case.arrays()
    try:
        yield from rows(case, arrays, EVERY_KIND[case.kind](case, engine, arrays))
    except FramewakeError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        # What malformed descriptions lead to, in numpy or in an engine, far from the field that is wrong.
        raise CheckpointError(f"case {case.id!r} cannot be run: {type(error).__name__}: {error}.") from error
