"""Runs every case of a golden folder on one engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator

import numpy as np

from framewake.engine.contract import Engine
from framewake.errors import CheckpointError, FramewakeError, InputError, nearest
from framewake.golden import encoders, loop, modules, tables
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
    if case.kind not in KINDS:
        raise CheckpointError(f"case {case.id!r} is of the unknown kind {case.kind!r}.{nearest(case.kind, KINDS)}")
    arrays = case.arrays()
    try:
        yield from rows(case, arrays, KINDS[case.kind](case, engine, arrays))
    except FramewakeError:
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, RuntimeError) as error:
        # What malformed descriptions lead to, in numpy or in an engine, far from the field that is wrong.
        raise CheckpointError(f"case {case.id!r} cannot be run: {type(error).__name__}: {error}.") from error
