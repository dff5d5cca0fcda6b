"""What a person sees of a run: the bar, a preview with each step, a sentence under the node, and the stop button."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import numpy as np
from comfy.cli_args import args
from comfy_execution.utils import get_executing_context
from PIL import Image

STEPS, ALL = 85, 100  # of the bar: the rest is for decoding
ENLARGED = 8  # a preview has a pixel for each position of the latents


class Watch:
    """The display of the node that runs now."""

    def __init__(self) -> None:
        self.bar = comfy.utils.ProgressBar(ALL)
        context = get_executing_context()
        self.node = None if context is None else context.node_id
        self.value = 0

    def check(self) -> None:
        """Raises ComfyUI's own exception when the run was stopped."""
        comfy.model_management.throw_exception_if_processing_interrupted()

    def step(self, index: int, count: int, *, seconds_left: float | None) -> None:
        """Some of the steps are done."""
        left = "" if seconds_left is None else f", about {seconds_left:.0f} s left"
        self.say(f"step {index} of {count}{left}")
        self.value = STEPS * index // max(count, 1)
        self.bar.update_absolute(self.value, ALL)

    def preview(self, image: Image.Image) -> None:
        """The newest step as a picture."""
        self.bar.update_absolute(self.value, ALL, ("JPEG", image.convert("RGB"), args.preview_size))

    def decoded(self, share: float) -> None:
        """A share of the decoding is done, from 0 to 1."""
        self.bar.update_absolute(STEPS + int((ALL - STEPS) * share), ALL)

    def say(self, text: str) -> None:
        """A sentence under the node."""
        from server import PromptServer  # here: it imports all of ComfyUI

        if self.node is not None:
            PromptServer.instance.send_progress_text(text, self.node)


def enlarged(preview: np.ndarray) -> Image.Image:
    """A preview of framewake as large as a page can show. Shapes: uint8 (H, W, 3)."""
    image = Image.fromarray(preview)
    return image.resize((image.width * ENLARGED, image.height * ENLARGED), Image.Resampling.BICUBIC)
