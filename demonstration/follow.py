"""Does a clip show what its prompt says? Measured on the frames, against the scene they began with."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from demonstration.render import background, coverage, render_frame
from demonstration.world import (
    BOUNCE_HEIGHT,
    DIRECTIONS,
    FULL_FRAMES,
    GROWTH,
    SHRINKAGE,
    SPIN_RADIANS,
    Pose,
    Scene,
    pose,
)

LEAST_PSNR, MOST_COLOUR_ERROR = 28.0, 12.0  # dB of the first frame; levels of 255
BLEND_LEVELS = 28.0  # of 255, over three channels: what blends of two pairs of colours may be told apart by
SEEN_AREA = 0.25  # share of a shape's first area by which its place can be told while it fades
# A shape's outline looks the same after this part of a turn.
_SYMMETRY = {"square": 4, "triangle": 3, "star": 5}


@dataclass(frozen=True)
class Track:
    """One shape through a clip. Units: positions and sizes in shares of the shorter side; one entry per frame."""

    x: np.ndarray
    y: np.ndarray
    area: np.ndarray
    opacity: np.ndarray
    angle: np.ndarray  # unwrapped, radians
    colour: np.ndarray  # (F, 3) mean inside
    whole: np.ndarray  # share of the area in the largest piece


@dataclass(frozen=True)
class Verdict:
    """What was found.

    Units: ``first_frame_psnr`` in dB; ``colour_error`` in levels of 255: mean over frames, of the colour channel and of
    the shape where it is largest; ``mean_colour_error`` over the channels too, of the shape where it is largest.
    """

    follows: bool
    reason: str
    first_frame_psnr: float
    colour_error: float
    mean_colour_error: float
    is_whole: bool

    @property
    def is_near_the_picture(self) -> bool:
        """Whether the clip begins with its picture."""
        return self.first_frame_psnr >= LEAST_PSNR

    @property
    def keeps_colours(self) -> bool:
        """Whether every channel of every shape's colour is what it should be."""
        return self.colour_error < MOST_COLOUR_ERROR

    @property
    def is_good(self) -> bool:
        """Whether nothing at all is wrong."""
        return self.follows and self.is_whole and self.is_near_the_picture and self.keeps_colours


def judge(scene: Scene, frames: np.ndarray) -> Verdict:
    """Compare a clip with what its scene's prompt asks for. Shapes: frames (F, H, W, 3) uint8, F at least 5."""
    _, height_px, width_px, _ = frames.shape
    truth = render_frame(scene, height_px, width_px, 0.0).astype(np.float32)
    error = float(np.mean((frames[0].astype(np.float32) - truth) ** 2))
    psnr = 10 * math.log10(255**2 / max(error, 1e-9))
    tracks = [track(scene, index, frames) for index in range(len(scene.shapes))]
    reason = follow_reason(scene, tracks[0])
    for other in tracks[1:]:
        reason = reason or _still_reason(other, "the other shape")
    seen = [_visible(scene, t, i) for i, t in enumerate(tracks)]
    errors = [
        np.abs(t.colour[v] - np.asarray(s.colour)).mean(axis=0) if v.any() else np.full(3, 255.0)
        for t, v, s in zip(tracks, seen, scene.shapes, strict=True)
    ]
    colour_error, mean_colour_error = (max(float(pick(e)) for e in errors) for pick in (np.max, np.mean))
    is_whole = all(float(t.whole[v].min(initial=1.0)) >= 0.85 for t, v in zip(tracks, seen, strict=True))
    return Verdict(not reason, reason, psnr, colour_error, mean_colour_error, is_whole)


def follow_reason(scene: Scene, found: Track) -> str:
    """Nothing when the acting shape does what the scene says, else what is wrong."""
    last = len(found.x) - 1
    expected = [pose(scene, 0, i / (FULL_FRAMES - 1)) for i in range(last + 1)]
    if scene.motion in DIRECTIONS:
        return _slide_reason(expected, found)
    if scene.motion == "still":
        return _still_reason(found, "the shape")
    share = last / (FULL_FRAMES - 1)
    if scene.motion in ("fade", "bounce"):
        return _fade_reason(1 - share, found) if scene.motion == "fade" else _bounce_reason(expected, found)
    way = float(np.hypot(found.x[last] - found.x[0], found.y[last] - found.y[0]))
    if not way < 0.08:
        return f"moved {way:.2f} instead of staying"
    if scene.motion == "spin":
        turned, wanted = float(found.angle[last] - found.angle[0]), SPIN_RADIANS * share
        return "" if 0.6 * wanted < turned < 1.4 * wanted else f"turned {turned:.2f} of {wanted:.2f}"
    growth = float(np.sqrt(found.area[last] / max(found.area[0], 1e-6)))
    wanted = 1 + ((GROWTH if scene.motion == "grow" else SHRINKAGE) - 1) * share
    is_enough = (growth - 1) / (wanted - 1) >= 0.55
    return "" if is_enough else f"size changed by {growth:.2f}, expected {wanted:.2f}"


def _slide_reason(expected: list[Pose], found: Track) -> str:
    wanted = np.array([expected[-1].x - expected[0].x, expected[-1].y - expected[0].y])
    went = np.array([found.x[-1] - found.x[0], found.y[-1] - found.y[0]])
    way = float(np.linalg.norm(wanted))
    along = float(went @ wanted) / max(way, 1e-6)
    across = abs(float(went[0] * wanted[1] - went[1] * wanted[0])) / max(way, 1e-6)
    if not 0.6 * way < along < 1.5 * way:
        return f"went {along:.2f} of {way:.2f} in the right direction"
    return "" if across < 0.3 * way else f"strayed {across:.2f} sideways"


def _fade_reason(wanted: float, found: Track) -> str:
    """A shape that moved away leaves its place empty too: while it is seen it must stay there.

    The last pixels that pass for seen tell no place: an opacity uneven by a few per cent puts them at an edge.
    """
    seen = found.area >= SEEN_AREA * found.area[0]
    way = float(np.hypot(found.x[seen] - found.x[0], found.y[seen] - found.y[0]).max(initial=0.0))
    if found.opacity[0] < 0.8:
        return "was faint from the start"
    if found.opacity[-1] > wanted + 0.3:
        return f"opacity {found.opacity[-1]:.2f} at the end, expected {wanted:.2f}"
    return "" if way < 0.1 else f"moved {way:.2f} instead of fading"


def _bounce_reason(expected: list[Pose], found: Track) -> str:
    heights = found.y[0] - found.y
    if np.isnan(heights).any():
        return "disappeared"
    wanted = expected[0].y - np.array([p.y for p in expected])
    match = float(np.corrcoef(heights, wanted)[0, 1]) if heights.std() > 1e-3 else 0.0
    sideways = float(np.abs(found.x - found.x[0]).max())
    if heights.max() < 0.55 * BOUNCE_HEIGHT or match < 0.75:
        return f"bounced {heights.max():.2f} high, likeness {match:.2f}"
    return "" if sideways < 0.1 else f"strayed {sideways:.2f} sideways"


def track(scene: Scene, index: int, frames: np.ndarray) -> Track:
    """Follow one shape through a clip by its colour against the known background."""
    _, height_px, width_px, _ = frames.shape
    unit_px = min(height_px, width_px)
    ground = background(scene, height_px, width_px)
    colour = np.asarray(scene.shapes[index].colour, np.float32)
    others = [np.asarray(s.colour, np.float32) for i, s in enumerate(scene.shapes) if i != index]
    towards = colour - ground
    length = (towards**2).sum(-1)
    # Opacity is read in the middle only, so that a shape that shrinks does not seem to fade.
    start = pose(scene, index, 0.0)
    heart = replace(start, size=start.size * 0.25)
    middle_rows, middle_columns, share = coverage("circle", heart, unit_px, (height_px, width_px))
    inside = np.zeros((height_px, width_px), bool)
    inside[middle_rows, middle_columns] = share > 0.5
    y, x = (np.mgrid[0:height_px, 0:width_px] + 0.5) / unit_px
    columns: dict[str, list] = {name: [] for name in ("x", "y", "area", "opacity", "angle", "colour", "whole")}
    for frame in frames.astype(np.float32):
        alpha = ((frame - ground) * towards).sum(-1) / length
        mask = alpha > 0.5
        off = _off_blend(frame, ground, colour)
        for other in others:
            mask &= ((frame - colour) ** 2).sum(-1) < ((frame - other) ** 2).sum(-1)
            mask &= off < _off_blend(frame, ground, other) + BLEND_LEVELS**2
        total = int(mask.sum())
        mask = _largest_piece(mask)
        count = int(mask.sum())
        columns["x"].append(x[mask].mean() if count else np.nan)
        columns["y"].append(y[mask].mean() if count else np.nan)
        columns["area"].append(count / unit_px**2)
        columns["opacity"].append(float(np.clip(alpha[inside].mean(), 0, 1)))
        columns["angle"].append(_orientation(scene.shapes[index].kind, x, y, mask))
        core = shrunk(mask)
        columns["colour"].append(frame[core].mean(0) if core.any() else np.full(3, np.nan))
        columns["whole"].append(count / total if total else 1.0)
    symmetry = _SYMMETRY.get(scene.shapes[index].kind, 1)
    angle = np.unwrap(np.asarray(columns.pop("angle")) * symmetry) / symmetry
    return Track(angle=angle, **{name: np.asarray(values) for name, values in columns.items()})


def _off_blend(frame: np.ndarray, ground: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """How far each pixel is from any blend of ground and colour, squared: another shape's soft outline is one of its
    own colour, and may look like this one's."""
    towards = colour - ground
    share = np.clip(((frame - ground) * towards).sum(-1) / (towards**2).sum(-1), 0, 1)
    return ((frame - ground - share[..., None] * towards) ** 2).sum(-1)


def _visible(scene: Scene, found: Track, index: int) -> np.ndarray:
    """Frames in which colour and wholeness can be judged: not those in which the shape should be half gone."""
    seen = ~np.isnan(found.colour[:, 0])
    if index == 0 and scene.motion == "fade":
        seen &= np.arange(len(seen)) < 0.25 * FULL_FRAMES
        seen[3:] = False
    return seen


def _still_reason(found: Track, name: str) -> str:
    way = float(np.nanmax(np.hypot(found.x - found.x[0], found.y - found.y[0]))) if len(found.x) else 0.0
    growth = float(np.sqrt(found.area[-1] / max(found.area[0], 1e-6)))
    if np.isnan(found.x).any():
        return f"{name} disappeared"
    if way > 0.06:
        return f"{name} moved {way:.2f}"
    turned = abs(float(found.angle[-1] - found.angle[0]))
    if turned > 0.4:
        return f"{name} turned {turned:.2f}"
    return "" if 0.8 < growth < 1.25 else f"{name} changed its size by {growth:.2f}"


def _orientation(kind: str, x: np.ndarray, y: np.ndarray, mask: np.ndarray) -> float:
    """Angle of an outline from its moment of the shape's symmetry, radians."""
    symmetry = _SYMMETRY.get(kind)
    if symmetry is None or mask.sum() < 4:
        return 0.0
    px, py = x[mask] - x[mask].mean(), y[mask] - y[mask].mean()
    moment = ((px + 1j * py) ** symmetry).sum()
    return float(np.angle(moment)) / symmetry


def shrunk(mask: np.ndarray) -> np.ndarray:
    """Masks without their outermost pixels. Shapes: (..., H, W) bool, and so is what comes back."""
    inner = np.zeros_like(mask)
    inner[..., 1:-1, 1:-1] = mask[..., 1:-1, 1:-1] & mask[..., :-2, 1:-1] & mask[..., 2:, 1:-1]
    inner[..., 1:-1, 1:-1] &= mask[..., 1:-1, :-2] & mask[..., 1:-1, 2:]
    return inner


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest connected piece of a mask (the whole mask when it is empty)."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    best = np.zeros_like(mask)
    if not len(rows):
        return best
    box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    inside = mask[box]
    left, largest = inside.copy(), np.zeros_like(inside)
    while left.sum() > largest.sum():
        piece = np.zeros_like(inside)
        piece[np.unravel_index(int(left.argmax()), inside.shape)] = True
        size = 0
        while size != int(piece.sum()):
            size = int(piece.sum())
            piece[1:] |= piece[:-1]
            piece[:-1] |= piece[1:]
            piece[:, 1:] |= piece[:, :-1]
            piece[:, :-1] |= piece[:, 1:]
            piece &= inside
        largest = piece if piece.sum() > largest.sum() else largest
        left &= ~piece
    best[box] = largest
    return best
