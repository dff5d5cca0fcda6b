"""The demonstration LoRA: its clips, its training, and where it ships."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from demonstration.lora_clips import write_clips
from framewake.demo import LORAS
from framewake.engine.contract import Engine
from framewake.errors import InputError
from framewake.train.events import Update
from framewake.train.run import Places, Trainer
from framewake.train.state import state_path
from framewake.weights.checkpoint.load import open_checkpoint

log = logging.getLogger(__name__)

LORA = LORAS / "trails.safetensors"
CLIPS, STEPS, SIDE_PX = 96, 600, 128
SETTINGS = {
    "rank": 16,
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


def make_lora(engine: Engine, folder: Path, *, share: float = 1.0) -> None:
    """Draw the clips, and train on them with the folder's checkpoint; ``share`` is that of clips and steps.

    Raises: InputError when there is no checkpoint yet, or when the folder's run was finished with another one.
    """
    clips, target, count = folder / "lora-clips", folder / LORA.name, math.ceil(CLIPS * share)
    if not (folder / "checkpoint").exists():
        raise InputError(f"{folder / 'checkpoint'} is not there: run the step export first.")
    if not (clips / f"{count - 1:04d}.txt").exists():
        write_clips(clips, count, SIDE_PX)
    is_begun = state_path(target).exists()
    settings = {} if is_begun else SETTINGS | {"steps": math.ceil(STEPS * share)}
    trainer = Trainer(open_checkpoint(folder / "checkpoint"), Places(clips, target), settings, resumes=is_begun)
    losses: list[float] = []
    for event in trainer.run(engine):
        if not isinstance(event, Update):
            continue
        losses.append(event.loss)
        if event.step % 20 == 0:
            log.info("lora %d of %d, loss %.4f, %.0f s left", event.step, event.count, sum(losses[-20:]) / 20,
                     event.seconds_left)  # fmt: skip
    log.info("%s: %.2f MB", target, target.stat().st_size / 1e6)
