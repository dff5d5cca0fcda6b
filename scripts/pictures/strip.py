"""Make the README's moving picture: four clips from one picture, side by side under their prompts."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

TARGET = Path(__file__).parents[2] / "docs" / "images" / "demo.webp"
PROMPTS = ("the red circle moves right", "the red circle rises", "the red circle grows", "the red circle fades out")
FRAME_MS, LAST_MS = 83, 1000  # 12 frames a second, and a rest before it begins again
GAP_PX, TEXT_PX = 8, 22
MOST_BYTES = 400_000


def main() -> None:
    """Animate the shipped picture with each prompt and put the clips side by side."""
    with tempfile.TemporaryDirectory() as folder:
        clips = [made(prompt, Path(folder) / str(index)) for index, prompt in enumerate(PROMPTS)]
    sheets = [sheet(frames) for frames in zip(*clips, strict=True)]
    TARGET.parent.mkdir(parents=True, exist_ok=True)
    times = [FRAME_MS] * (len(sheets) - 1) + [LAST_MS]
    sheets[0].save(TARGET, save_all=True, append_images=sheets[1:], duration=times, loop=0, quality=85, method=6)
    if TARGET.stat().st_size > MOST_BYTES:
        sys.exit(f"picture: {TARGET.name} has {TARGET.stat().st_size:,} bytes, {MOST_BYTES:,} may be")


def made(prompt: str, frames: Path) -> list[Image.Image]:
    """The frames of a clip."""
    command = [sys.executable, "-m", "framewake", "animate", "demo/red-circle", prompt]
    command += ["--checkpoint", "demo", "--seed", "1", "-q", "-o", str(frames)]
    subprocess.run(command, check=True)
    return [Image.open(file).convert("RGB") for file in sorted(frames.glob("*.png"))]


def sheet(frames: tuple[Image.Image, ...]) -> Image.Image:
    """A frame of each clip in a row, under its prompt."""
    width, height = frames[0].size
    step = width + GAP_PX
    whole = Image.new("RGB", (step * len(frames) - GAP_PX, height + TEXT_PX), "white")
    draw, font = ImageDraw.Draw(whole), ImageFont.load_default(10)
    for index, (prompt, frame) in enumerate(zip(PROMPTS, frames, strict=True)):
        draw.text((index * step + width / 2, TEXT_PX / 2), prompt, fill="black", font=font, anchor="mm")
        whole.paste(frame, (index * step, TEXT_PX))
    return whole


if __name__ == "__main__":
    main()
