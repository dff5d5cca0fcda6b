"""Make the README's picture: one row of frames for each prompt, all from the same input picture."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from framewake.demo import PICTURES

ROOT = Path(__file__).parents[2]
SOURCE = PICTURES / "red-circle.png"
TARGET = ROOT / "docs" / "images" / "demo.png"
PROMPTS = ("the red circle moves right", "the red circle rises", "the red circle grows", "the red circle fades out")
SHOWN = (0, 8, 16, 24, 32)  # frames of the clip
GAP_PX, TEXT_PX = 6, 24


def main() -> None:
    """Animate the example with each prompt and paste some frames of each clip."""
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for index, prompt in enumerate(PROMPTS):
            frames = Path(folder) / str(index)
            command = [str(Path(sys.executable).with_name("framewake")), "animate", str(SOURCE), prompt]
            command += ["--checkpoint", "demo", "--seed", "1", "-q", "-o", str(frames)]
            subprocess.run(command, check=True)
            files = sorted(frames.glob("*.png"))
            rows.append([np.asarray(Image.open(files[frame]).convert("RGB")) for frame in SHOWN])
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    pasted(rows).save(TARGET, optimize=True)


def pasted(rows: list[list[np.ndarray]]) -> Image.Image:
    """Rows of frames (H, W, 3) under their prompts."""
    height, width = rows[0][0].shape[:2]
    step_x, step_y = width + GAP_PX, height + TEXT_PX + GAP_PX
    sheet = Image.new("RGB", (step_x * len(SHOWN) - GAP_PX, step_y * len(rows) - GAP_PX), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(14)
    for y, (prompt, frames) in enumerate(zip(PROMPTS, rows, strict=True)):
        draw.text((2, y * step_y + 4), prompt, fill="black", font=font)
        for x, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (x * step_x, y * step_y + TEXT_PX))
    return sheet


if __name__ == "__main__":
    main()
