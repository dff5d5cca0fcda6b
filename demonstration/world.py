"""The world of the demonstration checkpoint: coloured shapes that do one thing.

A scene is one or two filled shapes on a plain or two-colour background; one of them acts.  First frame
and prompt decide the whole clip, so that following the prompt can be measured.  All lengths are shares
of the shorter side of the frame, so that a scene can be drawn at any size; ``progress`` is 0 at the
first frame and 1 at the 33rd.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from framewake.weights.checkpoint.settings import Domain

FULL_FRAMES = 33  # the clip in which a motion runs from start to end
FRAMES_PER_SECOND = 12

CalledBy = Literal["kind", "colour"]
SHAPES = ("circle", "square", "triangle", "star")

# The middle of each named colour; a scene's colour lies between it and one of the vivid or dark forms of that name.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (215, 38, 38),
    "orange": (245, 135, 30),
    "yellow": (242, 214, 48),
    "green": (42, 160, 70),
    "blue": (42, 88, 215),
    "purple": (135, 58, 185),
    "white": (243, 243, 243),
    "black": (24, 24, 24),
}
_FORMS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((255, 0, 0), (220, 20, 60), (190, 0, 0)),
    "orange": ((255, 165, 0), (255, 110, 0)),
    "yellow": ((255, 255, 0), (255, 210, 0)),
    "green": ((0, 255, 0), (0, 140, 30), (0, 110, 0), (34, 139, 34)),
    "blue": ((0, 0, 255), (0, 40, 255), (0, 0, 180)),
    "purple": ((128, 0, 128), (128, 0, 160), (165, 40, 245)),
    "white": ((255, 255, 255),),
    "black": ((0, 0, 0),),
}
_MOST_BLEND = 1.25  # of the way to a form, cut at all of it: people draw with the pure colours

_PAPER = 0.12  # the share of backgrounds that are what people draw on when they choose nothing
_PAPERS = ((255, 255, 255), (0, 0, 0), (245, 245, 245), (128, 128, 128))

DIRECTIONS: dict[str, tuple[float, float]] = {  # (x, y), y grows downwards
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
    "up-left": (-0.75, -0.75),
    "up-right": (0.75, -0.75),
    "down-left": (-0.75, 0.75),
    "down-right": (0.75, 0.75),
}
MOTIONS = (*DIRECTIONS, "grow", "shrink", "spin", "bounce", "fade", "still")

TRAVEL = 0.4  # way of a full clip
GROWTH, SHRINKAGE = 1.8, 0.45  # size at the end
BOUNCE_HEIGHT, BOUNCES = 0.25, 2
SPIN_RADIANS = math.pi  # clockwise

_MOVES = (
    "moves", "slides", "goes", "drifts", "travels", "glides", "flies", "floats", "is moving", "is sliding", "moving",
)  # fmt: skip
_SIDES: dict[str, tuple[str, ...]] = {
    "left": ("left", "to the left"),
    "right": ("right", "to the right"),
    "up": ("up", "upwards", "to the top"),
    "down": ("down", "downwards", "to the bottom"),
}
_DIAGONALS = (
    "{way} and {side}", "{way} and to the {side}", "{way} {side}", "{way}-{side}", "diagonally {way}-{side}",
    "diagonally {way} and {side}", "diagonally {way} and to the {side}", "to the {end} {side}", "to the {edge} {side}",
    "towards the {edge} {side}", "towards the {end} {side}", "diagonally to the {end} {side}",
)  # fmt: skip
_ENDS = {"up": ("upper", "top"), "down": ("lower", "bottom")}


def _ways(direction: str) -> tuple[str, ...]:
    """How one says where something goes."""
    if direction in _SIDES:
        return _SIDES[direction]
    way, side = direction.split("-")
    end, edge = _ENDS[way]
    return tuple(text.format(way=way, side=side, end=end, edge=edge) for text in _DIAGONALS)


ACTIONS: dict[str, tuple[str, ...]] = {
    direction: tuple(f"{verb} {way}" for verb in _MOVES for way in _ways(direction)) for direction in DIRECTIONS
}
ACTIONS["up"] += ("rises", "is rising")
ACTIONS["down"] += ("sinks", "falls", "is falling")
ACTIONS |= {
    "grow": (
        "grows", "gets bigger", "becomes larger", "expands", "grows larger", "is growing", "growing", "gets larger",
        "becomes bigger", "enlarges", "increases in size",
    ),
    "shrink": (
        "shrinks", "gets smaller", "becomes smaller", "contracts", "grows smaller", "is shrinking", "shrinking",
        "gets tiny", "decreases in size",
    ),
    "spin": (
        "spins", "rotates", "turns around", "spins in place", "is spinning", "turns clockwise", "spinning", "rotating",
        "is rotating", "turns", "is turning", "rotates in place", "spins around", "rotates clockwise",
        "spins clockwise",
    ),
    "bounce": (
        "bounces", "bounces up and down", "hops", "jumps up and down", "is bouncing", "hops in place", "bouncing",
        "jumps", "is jumping", "jumping up and down", "bounces in place",
    ),
    "fade": (
        "fades out", "fades away", "disappears", "slowly fades out", "vanishes", "becomes invisible", "fades",
        "is fading out", "fading out", "is disappearing", "slowly disappears", "becomes transparent",
    ),
    "still": (
        "stays still", "does not move", "stands still", "remains still", "stays in place", "is motionless", "is still",
        "stays where it is", "does nothing", "remains in place", "is not moving", "rests", "is standing still",
    ),
}  # fmt: skip


def _rare(actions: tuple[str, ...]) -> tuple[str, ...]:
    """Of the ways to say a motion, those that stand alone: one word, or one that no other has."""
    counts = Counter(word for action in actions for word in set(action.split()))
    return tuple(a for a in actions if " " not in a or min(counts[word] for word in a.split()) == 1) or actions


RARE_ACTIONS = {motion: _rare(actions) for motion, actions in ACTIONS.items()}


@dataclass(frozen=True)
class Shape:
    """One shape at the start of a clip. Units: ``x y size`` in shares of the shorter side, ``angle`` in radians."""

    kind: str
    colour_name: str
    colour: tuple[int, int, int]
    x: float
    y: float
    size: float  # diameter of the circle around it
    angle: float


@dataclass(frozen=True)
class Scene:
    """Everything a clip shows. ``width`` and ``height`` are shares of the shorter side (one of them is 1)."""

    shapes: tuple[Shape, ...]  # the first one acts
    motion: str
    background: tuple[tuple[int, int, int], tuple[int, int, int]]
    gradient_angle: float
    width: float
    height: float
    prompt: str


@dataclass(frozen=True)
class Pose:
    """A shape at one moment. ``opacity`` is 0 to 1."""

    x: float
    y: float
    size: float
    angle: float
    opacity: float


def pose(scene: Scene, index: int, progress: float) -> Pose:
    """Where shape ``index`` of a scene is at a moment of the clip; only shape 0 acts."""
    shape = scene.shapes[index]
    x, y, size, angle, opacity = shape.x, shape.y, shape.size, shape.angle, 1.0
    if index == 0:
        motion = scene.motion
        if motion in DIRECTIONS:
            x = _slide(x, DIRECTIONS[motion][0] * TRAVEL * progress, size, scene.width)
            y = _slide(y, DIRECTIONS[motion][1] * TRAVEL * progress, size, scene.height)
        elif motion == "grow":
            size *= 1 + (GROWTH - 1) * progress
        elif motion == "shrink":
            size *= 1 + (SHRINKAGE - 1) * progress
        elif motion == "spin":
            angle += SPIN_RADIANS * progress
        elif motion == "bounce":
            y -= BOUNCE_HEIGHT * abs(math.sin(math.pi * BOUNCES * progress))
        elif motion == "fade":
            opacity = 1 - progress
    return Pose(x, y, size, angle, opacity)


def _slide(start: float, way: float, size: float, limit: float) -> float:
    """A position after some way, stopped where the shape would leave the frame."""
    low, high = min(start, size / 2), max(start, limit - size / 2)
    return min(max(start + way, low), high)


def sample_scene(
    rng: np.random.Generator, aspect: float = 1.0, *, motion: str | None = None, pairs: float = 0.4
) -> Scene:
    """A random scene; ``aspect`` is width / height, ``motion`` fixes what happens, ``pairs`` have two shapes."""
    width, height = (aspect, 1.0) if aspect >= 1 else (1.0, 1 / aspect)
    motion = motion or str(rng.choice(MOTIONS))
    while True:
        count = 2 if rng.random() < pairs else 1
        background, gradient_angle = _sample_background(rng)
        shapes: list[Shape] = []
        names = list(rng.permutation(list(COLOURS)))
        for position in range(count):
            shape = _sample_shape(rng, names[position], width, height, motion if position == 0 else "still")
            if shape is not None:
                shapes.append(shape)
        scene = Scene(tuple(shapes), motion, background, gradient_angle, width, height, "")
        if len(shapes) == count and _is_clear(scene):
            prompt = write_prompt(rng, scene)
            return Scene(scene.shapes, motion, background, gradient_angle, width, height, prompt)


def acting(scene: Scene, index: int, motion: str) -> Scene | None:
    """The same picture with one of its shapes doing something else, without a prompt; None where there is no room."""
    shape = scene.shapes[index]
    others = tuple(other for number, other in enumerate(scene.shapes) if number != index)
    changed = Scene((shape, *others), motion, scene.background, scene.gradient_angle, scene.width, scene.height, "")
    final = pose(changed, 0, 1.0)
    half, lift = final.size / 2, BOUNCE_HEIGHT if motion == "bounce" else 0.0
    wanted = DIRECTIONS.get(motion, (0.0, 0.0))
    is_whole = math.dist((final.x - shape.x, final.y - shape.y), (wanted[0] * TRAVEL, wanted[1] * TRAVEL)) < 1e-6
    is_inside = half <= final.x <= scene.width - half and half + lift <= final.y <= scene.height - half
    is_seen = motion != "spin" or shape.kind != "circle"
    return changed if is_whole and is_inside and is_seen and _is_clear(changed) else None


def write_prompt(
    rng: np.random.Generator,
    scene: Scene,
    *,
    called_by: CalledBy | None = None,
    actions: Mapping[str, Sequence[str]] = ACTIONS,
) -> str:
    """One of many ways to say what happens in a scene.

    ``called_by`` is what the acting shape is called by, mostly both; by the kind alone only where that tells which.
    ``actions`` are the ways to say each motion.
    """
    actor, others = scene.shapes[0], scene.shapes[1:]
    name = f"{actor.colour_name} {actor.kind}"
    choice = rng.random()
    is_told_by_kind = all(other.kind != actor.kind for other in others)
    if is_told_by_kind and (called_by == "kind" or (called_by is None and choice < 0.08)):
        name = actor.kind
    elif called_by == "colour" or (called_by is None and choice < 0.14):
        name = f"{actor.colour_name} shape"
    article = str(rng.choice(("the ", "the ", "the ", "a ", "")))
    text = f"{article}{name} {rng.choice(actions[scene.motion])}"
    if others and rng.random() < 0.3:
        other = others[0]
        text += f" while the {other.colour_name} {other.kind} {rng.choice(actions['still'])}"
    elif rng.random() < 0.1:
        text += str(
            rng.choice((" on a plain background", " in the picture", " across the frame", " smoothly", " slowly"))
        )
    if rng.random() < 0.3:
        text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < 0.3 else "")


def motion_of(prompt: str) -> str:
    """The motion that one of the world's prompts asks for.

    Raises: ValueError for a prompt without any.
    """
    text = prompt.lower().split(" while ")[0]
    said = [(len(action), motion) for motion, actions in ACTIONS.items() for action in actions if action in text]
    if not said:
        raise ValueError(f"{prompt!r} names no motion of the demonstration's world: one of {', '.join(MOTIONS)}.")
    return max(said)[1]  # "moves up and left" holds "moves up"


def corpus() -> list[str]:
    """Texts with every word of the world, for the tokenizers."""
    texts = [f"the {c} {k}" for c in COLOURS for k in (*SHAPES, "shape")]
    texts += [f"The {c} {k}" for c in COLOURS for k in (*SHAPES, "shape")]
    texts += [f"a {k} {action}." for k in (*SHAPES, "shape") for actions in ACTIONS.values() for action in actions]
    texts += [f"A {c} {k} while the {c} {k} on a plain background in the picture across the frame smoothly slowly"
              for c in COLOURS for k in SHAPES]  # fmt: skip
    texts += [f"{c} {k}" for c in COLOURS for k in SHAPES] + [f"{c.title()} {k}" for c in COLOURS for k in SHAPES]
    return texts


def _sample_background(rng: np.random.Generator):
    first = tuple(int(v) for v in rng.integers(0, 256, 3))
    choice = rng.random()
    second = tuple(int(v) for v in rng.integers(0, 256, 3)) if choice < 0.5 else first
    if choice > 1 - _PAPER:
        first = second = _PAPERS[int((1 - choice) / _PAPER * len(_PAPERS))]
    return (first, second), float(rng.choice((0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75)) * math.pi)


def _sample_shape(rng: np.random.Generator, name: str, width: float, height: float, motion: str) -> Shape | None:
    kinds = SHAPES[1:] if motion == "spin" else SHAPES  # a circle that spins looks like one that does not
    kind = str(rng.choice(kinds))
    place = rng.random() * len(_FORMS[name])
    form, blend = _FORMS[name][int(place)], min(1.0, place % 1 * _MOST_BLEND)
    red, green, blue = (round(a + (b - a) * blend) for a, b in zip(COLOURS[name], form, strict=True))
    size = float(rng.uniform(1 / 6, 1 / 3))
    final = size * GROWTH if motion == "grow" else size
    margin = final / 2 + 0.01
    left = right = top = bottom = margin
    if motion in DIRECTIONS and rng.random() < 0.9:
        dx, dy = (step * TRAVEL for step in DIRECTIONS[motion])
        left, right = left + max(-dx, 0), right + max(dx, 0)
        top, bottom = top + max(-dy, 0), bottom + max(dy, 0)
    elif motion == "bounce":
        top += BOUNCE_HEIGHT
    if left + right >= width or top + bottom >= height:
        return None
    x, y = float(rng.uniform(left, width - right)), float(rng.uniform(top, height - bottom))
    angle = 0.0 if rng.random() < 0.5 else float(rng.uniform(-0.4, 0.4))
    return Shape(kind, name, (red, green, blue), x, y, size, angle)


def _is_clear(scene: Scene) -> bool:
    """Colours differ enough from what is behind them, and shapes never touch."""
    for shape in scene.shapes:
        for ground in scene.background:
            if math.dist(shape.colour, ground) < 110:
                return False
    if len(scene.shapes) == 2 and math.dist(scene.shapes[0].colour, scene.shapes[1].colour) < 110:
        return False
    if len(scene.shapes) == 2:
        for progress in np.linspace(0, 1, 9):
            a, b = pose(scene, 0, float(progress)), pose(scene, 1, float(progress))
            if math.hypot(a.x - b.x, a.y - b.y) < (a.size + b.size) / 2 + 0.02:
                return False
    return True


_FILLERS = {"and", "the", "to", "in", "does", "is", "up", "down", "it", "where", "not", "top", "bottom", "place"}
_SAID = dict.fromkeys(word for said in ACTIONS.values() for action in said for word in re.findall("[a-z]+", action))
DOMAIN = Domain(
    description="one or two plain shapes, and a prompt such as 'the red circle moves right'",
    words=((*SHAPES, "shape"), tuple(word for word in _SAID if word not in _FILLERS)),
    most_edges=0.16,  # pictures are smooth but for outlines: two large shapes give about half of it
)
