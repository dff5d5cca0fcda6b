"""``framewake quality``: how far a clip is from a reference."""

from __future__ import annotations

import json
import sys

from framewake.media.quality import compare
from framewake.media.video import read_video
from framewake.packages import install_line


def print_quality(clip: str, reference: str, *, as_json: bool = False) -> None:
    """Print the differences of two clips.

    Raises: InputError when one cannot be read, or they differ in size.
    """
    found = compare(read_video(clip)[0], read_video(reference)[0])
    if as_json:
        sys.stdout.write(json.dumps(found._asdict()) + "\n")
        return
    flip = (
        f"not measured. Run: {install_line('flip_evaluator')}"
        if found.flip is None
        else f"{found.flip:.4f}  (0 is equal)"
    )
    lines = [
        f"PSNR  {found.psnr:.2f} dB  (worst frame {found.lowest_psnr:.2f} dB; 100 is equal)",
        f"SSIM  {found.ssim:.4f}  (1 is equal)",
        f"FLIP  {flip}",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
