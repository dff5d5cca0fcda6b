"""The same clip with diffusers' own pipeline, as its users would run it on a CPU."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from framewake.demo import PICTURES


def main() -> None:
    """Make clips; the last line says how long it took."""
    _, steps, frames, folder, kind, started = sys.argv[1:]
    import diffusers
    import numpy as np
    import torch
    from PIL import Image

    from framewake.media.video import write_video  # the same encoder of the file for both
    from framewake.pipeline.checkpoint import find_checkpoint
    from framewake.text.encode import derive_layout
    from framewake.text.template import VIDEO_I2V
    from framewake.text.tokenize import Tokenizer
    from framewake.weights.checkpoint.load import open_checkpoint

    checkpoint = open_checkpoint(find_checkpoint("demo"))
    pipeline = diffusers.HunyuanVideoImageToVideoPipeline.from_pretrained(checkpoint.folder, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    side = checkpoint.settings.resolutions["720p"]
    template = template_for(derive_layout, Tokenizer, VIDEO_I2V, checkpoint)
    picture = Image.open(PICTURES / "red-circle.png").convert("RGB").resize((side, side))
    told = {}

    def after_step(*_arguments):
        told.setdefault("first_step", time.time() - float(started))
        return {}

    for name in ("cold", "warm") if kind == "warm" else ("cold",):
        begin = time.time()
        with torch.no_grad():
            video = pipeline(
                image=picture,
                prompt="the red circle moves right",
                prompt_template=template,
                height=side,
                width=side,
                num_frames=int(frames),
                num_inference_steps=int(steps),
                guidance_scale=6.0,
                generator=torch.Generator().manual_seed(1),
                max_sequence_length=checkpoint.settings.text_tokens,
                output_type="np",
                callback_on_step_end=after_step,
            ).frames[0]
        units = (np.asarray(video) * 255).round().astype(np.uint8)
        write_video(Path(folder) / f"{name}.mp4", units, fps=12, metadata=None, crf=18)
        told[name] = time.time() - begin
    sys.stdout.write(json.dumps(told) + "\n")


def template_for(derive_layout, tokenizer, template, checkpoint) -> dict:
    """Diffusers has the published checkpoint's positions written down; these are the demonstration's."""
    llava = checkpoint.configs["llava"]
    layout = derive_layout(
        tokenizer.from_folder(checkpoint.folder / "tokenizer"),
        template,
        image_token_id=llava.image_token_id,
        image_tokens=llava.vision.patches,
    )
    return {
        "template": template.before + "{}" + template.after,
        "crop_start": layout.crop_start,
        "image_emb_start": layout.image_at,
        "image_emb_end": layout.image_at + layout.image_tokens,
        "image_emb_len": layout.image_tokens,
        "double_return_token_id": layout.double_return_id,
    }


if __name__ == "__main__":
    main()
