"""Draw the picture that the demonstration starts from: ``python scripts/pictures/example.py``."""

from __future__ import annotations

import math

from PIL import Image

from demonstration.render import render_frame
from demonstration.world import COLOURS, Scene, Shape
from framewake.demo import PICTURES

TARGET = PICTURES / "red-circle.png"
SIDE_PX = 512

SCENE = Scene(
    shapes=(Shape("circle", "red", COLOURS["red"], x=0.28, y=0.52, size=0.28, angle=0.0),),
    motion="still",
    background=((214, 226, 240), (150, 176, 206)),
    gradient_angle=math.pi / 2,
    width=1.0,
    height=1.0,
    prompt="",
)


def main() -> None:
    """Write the picture; the same bytes every time."""
    TARGET.parent.mkdir(exist_ok=True)
    Image.fromarray(render_frame(SCENE, SIDE_PX, SIDE_PX, 0.0)).save(TARGET, optimize=True)


if __name__ == "__main__":
    main()
