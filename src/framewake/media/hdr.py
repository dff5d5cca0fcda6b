"""Pictures and frames in HDR as ordinary ones: light from the curves of BT.2100, highlights rolled off."""

from __future__ import annotations

import functools

import numpy as np

from framewake.media.profiles import BT2020, NUMBERED, SRGB, matrix_to_xyz

PQ, HLG = 16, 18  # as H.273 numbers the curves
NAMES = {PQ: "PQ", HLG: "HLG"}
WHITE_NITS = 203.0  # white paper in HDR, by BT.2408
HLG_NITS, HLG_GAMMA = 1000.0, 1.2  # of the screen that HLG is made for
KNEE = 0.75  # light above it is rolled off, so that what is brighter than paper stays below white
_LEVELS = 65536


def ordinary(values: np.ndarray, curve: int, primaries: int) -> np.ndarray:
    """HDR as sRGB: midtones keep their light relative to white paper, hues stay, highlights end below white.

    Shapes: values uint16 (..., 3), R'G'B' over the whole range -> uint8 (..., 3).
    Source: ITU-R BT.2100 (curves), BT.2408 (white).
    """
    light = _lights(curve)[values]
    if curve == HLG:  # its screen brightens by the whole pixel's light
        luma = light @ _luma(primaries)
        light *= np.maximum(luma, 1e-6)[..., None] ** np.float32(HLG_GAMMA - 1) * np.float32(HLG_NITS / WHITE_NITS)
    light = light @ _to_srgb(primaries).T
    highest = np.maximum(light.max(axis=-1, keepdims=True), np.float32(1e-6))
    rolled = KNEE + (1 - KNEE) * (1 - np.exp(-(highest - KNEE) / (1 - KNEE)))
    light *= np.where(highest > KNEE, rolled, highest).astype(np.float32) / highest
    return _codes()[(np.clip(light, 0, 1) * np.float32(_LEVELS - 1) + np.float32(0.5)).astype(np.uint16)]


def note(curve: int) -> str:
    """What a person is told of it."""
    return f"it is in HDR ({NAMES[curve]}) and was brought to the range of ordinary pictures."


@functools.lru_cache(maxsize=2)
def _lights(curve: int) -> np.ndarray:
    """Light for every level: PQ's relative to white paper, HLG's of the scene. Shapes: float32 (65536,)."""
    code = np.arange(_LEVELS) / (_LEVELS - 1)
    if curve == PQ:
        power = code ** (32 / 2523)
        light = (np.maximum(power - 3424 / 4096, 0) / (2413 / 128 - 2392 / 128 * power)) ** (16384 / 2610)
        return (light * 10_000 / WHITE_NITS).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


@functools.cache
def _codes() -> np.ndarray:
    """sRGB's level for every light. Shapes: uint8 (65536,)."""
    light = np.arange(_LEVELS) / (_LEVELS - 1)
    code = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(code * 255).astype(np.uint8)


def _xyz(primaries: int) -> np.ndarray:
    return matrix_to_xyz(SRGB if primaries == 1 else NUMBERED.get(primaries, ("", BT2020))[1])


@functools.lru_cache(maxsize=4)
def _to_srgb(primaries: int) -> np.ndarray:
    return (np.linalg.inv(matrix_to_xyz(SRGB)) @ _xyz(primaries)).astype(np.float32)


@functools.lru_cache(maxsize=4)
def _luma(primaries: int) -> np.ndarray:
    return _xyz(primaries)[1].astype(np.float32)
