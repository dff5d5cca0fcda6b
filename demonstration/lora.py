"""The demonstration LoRA: its clips, its training, and where it ships."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from demonstration.lora_clips import write_clips
from framewake.demo import LORAS
from framewake.engine.contract import Engine
from framewake.errors import InputError
from framewake.pipeline.checkpoint import find_checkpoint
from framewake.train.events import Update
from framewake.train.run import Places, Trainer
from framewake.train.state import state_path
from framewake.weights.checkpoint.load import open_checkpoint

log = logging.getLogger(__name__)

LORA = LORAS / "trails.safetensors"
CLIPS, SIDE_PX = 96, 128
SETTINGS = {
    "rank": 16,
    "steps": 600,
    "learning_rate": 1e-3,
    "warmup": 20,
    "decays": True,
    "batch": 2,
    "resolution": "720p",
    "caption_drop": 0.0,
    "picture_drop": 0.0,
    "flow_shift": 5.0,
    "save_every": 50,
}


def make_lora(engine: Engine, folder: Path, *, seconds: float | None = None) -> None:
    """Draw the clips, train on them, and put the LoRA into the package.

    ``seconds`` stops the training early; another call goes on with it.
    Raises: InputError when the folder's run was finished with another checkpoint or other settings.
    """
    clips, target = folder / "lora-clips", folder / "trails.safetensors"
    if not (clips / f"{CLIPS - 1:04d}.txt").exists():
        write_clips(clips, CLIPS, SIDE_PX)
    is_begun = state_path(target).exists()
    trainer = Trainer(
        open_checkpoint(find_checkpoint("demo")), Places(clips, target), {} if is_begun else SETTINGS, resumes=is_begun
    )
    events, spent, losses = trainer.run(engine), 0.0, []
    for event in events:
        if not isinstance(event, Update):
            continue
        spent += event.seconds
        losses.append(event.loss)
        if event.step % 20 == 0:
            log.info("lora %d of %d, loss %.4f, %.0f s left", event.step, event.count, sum(losses[-20:]) / 20,
                     event.seconds_left)  # fmt: skip
        if seconds is not None and spent > seconds:
            events.close()
    if not target.exists():
        raise InputError(f"{target} was not written: the training ended before its first update.")
    LORA.parent.mkdir(exist_ok=True)
    partial = LORA.with_suffix(".partial")
    shutil.copyfile(target, partial)
    os.replace(partial, LORA)
    log.info("%s: %.2f MB", LORA, LORA.stat().st_size / 1e6)
