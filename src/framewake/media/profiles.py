"""Colour profiles made from primaries and a curve, for files that name their colours but have no profile."""

from __future__ import annotations

import struct
from typing import NamedTuple

import numpy as np

# x and y of red, green, blue and white.
Primaries = tuple[float, float, float, float, float, float, float, float]
D65 = (0.3127, 0.3290)
SRGB: Primaries = (0.64, 0.33, 0.30, 0.60, 0.15, 0.06, *D65)
ADOBE_RGB: Primaries = (0.64, 0.33, 0.21, 0.71, 0.15, 0.06, *D65)
DISPLAY_P3: Primaries = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, *D65)
DCI_P3: Primaries = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.314, 0.351)
BT2020: Primaries = (0.708, 0.292, 0.170, 0.797, 0.131, 0.046, *D65)
ADOBE_GAMMA = 563 / 256
SRGB_CURVE = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
# Numbers of primaries in video and in PNG's cICP (ITU-T H.273) that are not sRGB's.
NUMBERED: dict[int, tuple[str, Primaries]] = {
    9: ("BT.2020", BT2020),
    11: ("DCI P3", DCI_P3),
    12: ("Display P3", DISPLAY_P3),
}

# Of the profiles' own white, and the cone response of Bradford that carries colours to it.
_D50 = np.array([0.9642, 1.0, 0.8249])
_CONES = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])


class Colours(NamedTuple):
    """What the numbers of a picture mean: a name for people, and an ICC profile, or primaries and an HDR curve."""

    name: str
    icc: bytes = b""
    primaries: int = 0
    curve: int = 0


def matrix_to_xyz(primaries: Primaries) -> np.ndarray:
    """Linear RGB to XYZ, white as it is. Shapes: -> (3, 3) float64."""
    columns = np.array([[x / y, 1, (1 - x - y) / y] for x, y in zip(primaries[::2], primaries[1::2], strict=True)]).T
    return columns[:, :3] * np.linalg.solve(columns[:, :3], columns[:, 3])


def matrix_profile(name: str, primaries: Primaries, *, gamma: float | None = None) -> Colours:
    """A profile of three primaries and one curve: a power, or sRGB's where ``gamma`` is None.

    Raises: ValueError, LinAlgError for primaries that span no colours.
    Source: ICC.1:2010, sections 7 to 10.
    """
    xyz = matrix_to_xyz(primaries)
    white = _CONES @ xyz.sum(axis=1)
    xyz = np.linalg.inv(_CONES) @ np.diag((_CONES @ _D50) / white) @ _CONES @ xyz
    if not np.isfinite(xyz).all() or np.abs(xyz).max() > 10:
        raise ValueError("its primaries span no colours")
    kind, numbers = (3, SRGB_CURVE) if gamma is None else (0, (gamma,))
    curve = b"para" + struct.pack(">IHH", 0, kind, 0) + b"".join(map(_fixed, numbers))
    text = name.encode("ascii", "replace").decode("ascii")
    described = b"mluc" + struct.pack(">III4sII", 0, 1, 12, b"enUS", 2 * len(text), 28) + text.encode("utf-16-be")
    tags = {b"desc": described, b"wtpt": _point(_D50)}
    tags |= {colour + b"XYZ": _point(column) for colour, column in zip((b"r", b"g", b"b"), xyz.T, strict=True)}
    tags |= {colour + b"TRC": curve for colour in (b"r", b"g", b"b")}
    table, content = struct.pack(">I", len(tags)), b""
    for key, value in tags.items():
        table += key + struct.pack(">II", 132 + 12 * len(tags) + len(content), len(value))
        content += value.ljust(-(-len(value) // 4) * 4, b"\0")
    size = 128 + len(table) + len(content)
    head = struct.pack(">III", size, 0, 0x04200000) + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(map(_fixed, _D50))
    return Colours(name, head.ljust(128, b"\0") + table + content)


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(float(value) * 65536))


def _point(xyz: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + b"".join(map(_fixed, xyz))
