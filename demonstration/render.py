"""Scenes of the demonstration world as pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from demonstration.world import FULL_FRAMES, Pose, Scene, pose


def render(scene: Scene, height_px: int, width_px: int, *, frames: int = FULL_FRAMES) -> np.ndarray:
    """A scene as uint8 frames (F, H, W, 3); frame i is at progress i / (33 - 1)."""
    return np.stack([render_frame(scene, height_px, width_px, i / (FULL_FRAMES - 1)) for i in range(frames)])


def render_frame(scene: Scene, height_px: int, width_px: int, progress: float) -> np.ndarray:
    """One moment of a scene, uint8 (H, W, 3), edges smoothed over one pixel."""
    poses = [pose(scene, index, progress) for index in range(len(scene.shapes))]
    return render_poses(scene, poses, height_px, width_px)


def render_poses(scene: Scene, poses: Sequence[Pose], height_px: int, width_px: int) -> np.ndarray:
    """A scene's shapes where they are said to be, uint8 (H, W, 3)."""
    unit_px = min(height_px, width_px)
    picture = background(scene, height_px, width_px)
    for shape, moment in zip(scene.shapes, poses, strict=True):
        if moment.opacity <= 0:
            continue
        rows, columns, share = coverage(shape.kind, moment, unit_px, (height_px, width_px))
        colour = np.asarray(shape.colour, np.float32)
        patch = picture[rows, columns]
        picture[rows, columns] = patch + (colour - patch) * (share * moment.opacity)[..., None]
    return np.rint(picture).astype(np.uint8)


def background(scene: Scene, height_px: int, width_px: int) -> np.ndarray:
    """The scene without its shapes, float32 (H, W, 3) in 0..255."""
    first, second = (np.asarray(c, np.float32) for c in scene.background)
    y, x = np.mgrid[0:height_px, 0:width_px].astype(np.float32)
    x, y = (x + 0.5) / width_px - 0.5, (y + 0.5) / height_px - 0.5
    dx, dy = math.cos(scene.gradient_angle), math.sin(scene.gradient_angle)
    share = (x * dx + y * dy) / (abs(dx) + abs(dy)) + 0.5
    return first + (second - first) * share[..., None].astype(np.float32)


def coverage(kind: str, moment: Pose, unit_px: int, size_px: tuple[int, int]):
    """Which pixels a shape covers and how much: (row slice, column slice, share 0..1 float32)."""
    radius = moment.size * unit_px / 2
    cx, cy = moment.x * unit_px, moment.y * unit_px
    y0, y1 = max(0, int(cy - radius - 2)), min(size_px[0], int(cy + radius + 3))
    x0, x1 = max(0, int(cx - radius - 2)), min(size_px[1], int(cx + radius + 3))
    y, x = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    x, y = x + 0.5 - cx, y + 0.5 - cy
    c, s = math.cos(moment.angle), math.sin(moment.angle)
    distance = _distance(kind, x * c + y * s, y * c - x * s, radius)
    return slice(y0, y1), slice(x0, x1), np.clip(0.5 - distance, 0, 1).astype(np.float32)


def _distance(kind: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Signed distance in pixels to a shape's outline, negative inside, exact near straight edges."""
    if kind == "circle":
        return np.hypot(x, y) - radius
    if kind == "square":
        half = radius / math.sqrt(2)
        return np.maximum(np.abs(x), np.abs(y)) - half
    if kind == "triangle":
        corners = [(-math.pi / 2 + 2 * math.pi * i / 3) for i in range(3)]
        return _polygon([(radius * math.cos(a), radius * math.sin(a)) for a in corners], x, y)
    points = []
    for i in range(10):
        r = radius if i % 2 == 0 else radius * 0.45
        a = -math.pi / 2 + math.pi * i / 5
        points.append((r * math.cos(a), r * math.sin(a)))
    return _polygon(points, x, y)


def _polygon(points: list[tuple[float, float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Signed distance to a simple polygon: nearest edge, sign by counting crossings."""
    nearest = np.full(x.shape, np.inf, np.float32)
    is_inside = np.zeros(x.shape, bool)
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1], strict=True):
        ex, ey = bx - ax, by - ay
        px, py = x - ax, y - ay
        along = np.clip((px * ex + py * ey) / (ex * ex + ey * ey), 0, 1)
        nearest = np.minimum(nearest, (px - ex * along) ** 2 + (py - ey * along) ** 2)
        crosses = (ay > y) != (by > y)
        is_inside ^= crosses & (x < ax + (y - ay) * ex / (ey if ey else 1e-9))
    distance = np.sqrt(nearest)
    return np.where(is_inside, -distance, distance)
