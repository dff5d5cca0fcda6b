"""What a trained file says of how it was made: kohya's ``ss_*`` and the ``modelspec.*`` of Stability AI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import NamedTuple

from framewake.pipeline.family import LoraTraining
from framewake.train.optimiser import BETA1, BETA2, EPS, LAST_SHARE, MOST_NORM
from framewake.train.settings import Training


class Used(NamedTuple):
    """What a run really used, where settings leave it open.

    Shapes: ``sizes`` has (frames, height_px, width_px) of each example, and ``batches`` is how many batches they make.
    ``batch`` is the largest of them, ``precision`` that of the frozen weights; devices count as batches of an update.
    ``guidance`` is None where the transformer is told none; ``trained`` says what the family is called.
    """

    base: str
    trained: LoraTraining
    precision: str
    guidance: float | None
    sizes: Sequence[tuple[int, int, int]]
    batches: int
    batch: int
    devices: int = 1


def metadata_of(settings: Training, step: int, used: Used) -> dict[str, str]:
    """The metadata of a file after ``step`` updates, all of them texts.

    No time and no name of a file is in it, so that the same run gives the same bytes.
    Source: specification of LoRA training, section 10.
    """
    alpha = settings.rank if settings.alpha is None else settings.alpha
    _, height, width = max(used.sizes, key=lambda size: size[1] * size[2])
    groups = {size: used.sizes.count(size) for size in sorted(set(used.sizes))}
    facts = {
        "base_model_version": used.trained.version,
        "sd_model_name": used.base,
        "network_module": used.trained.network,
        "network_dim": settings.rank,
        "network_alpha": f"{alpha:g}",
        "network_args": json.dumps({"include_patterns": list(settings.targets)} if settings.targets else {}),
        "steps": step,
        "max_train_steps": settings.steps,
        "epoch": step * settings.accumulation * used.devices // used.batches,
        "num_train_items": len(used.sizes),
        "num_batches_per_epoch": used.batches,
        "batch_size_per_device": used.batch,
        "gradient_accumulation_steps": settings.accumulation * used.devices,
        "learning_rate": settings.learning_rate,
        "lr_scheduler": f"cosine to {LAST_SHARE:g}" if settings.decays else "constant",
        "lr_warmup_steps": settings.warmup,
        "optimizer": f"AdamW(betas=({BETA1}, {BETA2}),eps={EPS},weight_decay={settings.weight_decay:g})",
        "max_grad_norm": MOST_NORM,
        "seed": settings.seed,
        "mixed_precision": {"bfloat16": "bf16"}.get(used.precision, "no"),
        # Trainers call the sigmoid of a normal number, shifted afterwards, so.
        "timestep_sampling": "shift" if settings.timesteps == "lognormal" else "uniform",
        "discrete_flow_shift": settings.flow_shift,
        "caption_dropout_rate": settings.caption_drop,
        "datasets": json.dumps(
            [{"resolution": [size[2], size[1]], "frames": size[0], "clips": count} for size, count in groups.items()]
        ),
    }
    if used.guidance is not None:
        facts["guidance_scale"] = used.guidance
    card = {
        "sai_model_spec": "1.0.0",
        "architecture": used.trained.architecture,
        "implementation": "framewake",
        "title": f"{used.base}: LoRA of rank {settings.rank}",
        "resolution": f"{width}x{height}",
    }
    return {f"ss_{name}": str(value) for name, value in facts.items()} | {
        f"modelspec.{name}": text for name, text in card.items()
    }
