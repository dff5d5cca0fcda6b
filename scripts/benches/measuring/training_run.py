"""One update of a LoRA at full size through the whole program, and the time that no program can beat."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from framewake.config import DiTConfig
from framewake.models.dit import DiT
from framewake.pipeline.forecast.cost import Scene, step_operations, weights
from framewake.train.forecast import ATTENTION, BACKWARD
from measuring import record
from measuring.watched import watch

LIMIT = 6.5e9
SECONDS = 450.0
SHARE = 0.5  # of the floor's speed, at the least
RANK = 16


def write_clip(folder: Path, size: tuple[int, int], frames: int, caption: str) -> Path:
    """A folder with one clip of sliding shades. Units: size is height and width in pixels."""
    clip = folder / "training" / "clip"
    clip.mkdir(parents=True, exist_ok=True)
    for number in range(frames):
        shade = np.roll(np.linspace(0, 255, size[0] * size[1] * 3).reshape(*size, 3), 8 * number, 1)
        Image.fromarray(shade.astype(np.uint8)).save(clip / f"{number:04d}.png")
    clip.with_name("clip.txt").write_text(caption + "\n")
    return clip.parent


def train(folder: Path, data: Path, memory: str, frames: int, say: Any) -> dict[str, Any]:
    """The program's own update: what it took, and what it said beforehand."""
    target = folder / "trained.safetensors"
    for old in (target, target.with_name("trained.training.safetensors")):
        old.unlink(missing_ok=True)
    command = [str(Path(sys.executable).with_name("framewake")), "lora", "train", str(data), str(target)]
    command += ["--checkpoint", str(folder), "--engine", "torch:cpu", "--precision", "bfloat16", "--resolution", "360p"]
    command += ["--frames", str(frames), "--rank", str(RANK), "--steps", "1", "--memory", memory, "--json"]
    run = watch([*command, "--drop-caption", "0", "--drop-picture", "0"], say=say)
    if run.code:
        raise SystemExit(f"framewake lora train ended with {run.code}")
    (update,) = [event for event in run.events if event["event"] == "update"]
    (started,) = [event for event in run.events if event["event"] == "started"]
    return {
        "seconds": update["seconds"],
        "loss": update["loss"],
        "forecast": started["forecast"],
        "own_peak": run.own_peak,
        "own_peaks": run.peaks,
        "resident_peak": run.resident_peak,
    }


def floors(config: DiTConfig, scene: Scene, *, product_rate: float, disk_rate: float) -> dict[str, float]:
    """Seconds for an update's operations at the best rate, and for streaming every block twice."""
    attention = 4.0 * (config.double_blocks + config.single_blocks) * scene.joined**2 * config.hidden_size
    operations = BACKWARD * (step_operations(config, scene) - attention) + ATTENTION * attention
    held = weights(DiT(None, config).shapes(), ("double_blocks", "single_blocks"), scene.dtype)  # type: ignore[arg-type]
    return {"operations": operations / product_rate, "disk": 2 * (held.whole - held.kept) / disk_rate}


def judged(found: dict[str, Any], floor: float) -> dict[str, Any]:
    """Whether the bar is met."""
    share = floor / found["seconds"]
    is_met = found["own_peak"] <= LIMIT and found["seconds"] <= SECONDS and share >= SHARE
    return found | {"share": share, "is_met": is_met}


def row(found: dict[str, Any]) -> str:
    """A row of the benchmark's table."""
    cells = [
        record.setting()["machine"],
        "x".join(map(str, found["size"])),
        str(found["tokens"]),
        f"{found['train']['seconds']:.0f}",
        f"{found['floors']['operations']:.0f}",
        f"{found['floors']['disk']:.0f}",
        f"{found['train']['share']:.2f}",
        f"{found['train']['own_peak'] / 1e9:.2f}",
        found["machine_was"],
    ]
    return record.line(cells)
