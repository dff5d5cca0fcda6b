"""Every flag of the original's ``sample_image2video.py``, with its type, default and fate here.

Source: specification, section 1.1.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any, NoReturn

from framewake.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16")
ENCODERS = ("clipL", "llm", "llm-i2v")
TEMPLATES = ("dit-llm-encode", "dit-llm-encode-video", "dit-llm-encode-i2v", "dit-llm-encode-video-i2v")
MODELS = ("HYVideo-T/2", "HYVideo-T/2-cfgdistill", "HYVideo-S/2")
DIT_WEIGHT = "ckpts/hunyuan-video-{}-720p/transformers/mp_rank_00_model_states.pt"


@dataclass(frozen=True)
class Flag:
    """One flag. ``is_used`` False: it is accepted, changes nothing, and is named in the one warning."""

    name: str
    kind: type
    default: Any
    is_used: bool
    choices: tuple[str, ...] | None = None
    takes_many: bool = False

    @property
    def key(self) -> str:
        return self.name.replace("-", "_")


def used(name: str, kind: type, default: Any, choices: tuple[str, ...] | None = None) -> Flag:
    """A flag that does here what it does in the original."""
    return Flag(name, kind, default, True, choices)


def unused(name: str, kind: type, default: Any, choices: tuple[str, ...] | None = None) -> Flag:
    """A flag without meaning here: read from the checkpoint, always on, dead, or training only."""
    return Flag(name, kind, default, False, choices)


FLAGS: tuple[Flag, ...] = (
    # --- network: the checkpoint's own configuration decides
    used("model", str, "HYVideo-T/2-cfgdistill", MODELS),
    unused("latent-channels", int, 16),
    used("precision", str, "bf16", PRECISIONS),
    unused("rope-theta", int, 256),
    unused("gradient-checkpoint", bool, False),
    unused("gradient-checkpoint-layers", int, -1),
    # --- extra models
    unused("vae", str, "884-16c-hy", ("884-16c-hy",)),
    unused("vae-precision", str, "fp16", PRECISIONS),
    used("vae-tiling", bool, True),
    unused("text-encoder", str, "llm-i2v", ENCODERS),
    unused("text-encoder-precision", str, "fp16", PRECISIONS),
    unused("text-states-dim", int, 4096),
    unused("text-len", int, 256),
    unused("tokenizer", str, "llm-i2v", ENCODERS),
    unused("prompt-template", str, "dit-llm-encode-i2v", TEMPLATES),
    unused("prompt-template-video", str, "dit-llm-encode-video-i2v", TEMPLATES),
    unused("hidden-state-skip-layer", int, 2),
    unused("apply-final-norm", bool, False),
    unused("text-encoder-2", str, "clipL", ENCODERS),
    unused("text-encoder-precision-2", str, "fp16", PRECISIONS),
    unused("text-states-dim-2", int, 768),
    unused("tokenizer-2", str, "clipL", ENCODERS),
    unused("text-len-2", int, 77),
    # --- denoising schedule
    used("denoise-type", str, "flow"),
    used("flow-shift", float, 17.0),
    used("flow-reverse", bool, False),
    used("flow-solver", str, "euler"),
    unused("use-linear-quadratic-schedule", bool, False),
    unused("linear-schedule-end", int, 25),
    # --- image to video
    used("i2v-mode", bool, False),
    used("i2v-resolution", str, "720p", ("720p", "540p", "360p")),
    used("i2v-image-path", str, "./assets/demo/i2v/imgs/0.png"),
    used("i2v-condition-type", str, "token_replace", ("token_replace", "latent_concat")),
    used("i2v-stability", bool, False),
    # --- LoRA
    used("use-lora", bool, False),
    used("lora-path", str, ""),
    used("lora-scale", float, 1.0),
    unused("lora-rank", int, 64),
    # --- inference
    used("model-base", str, "ckpts"),
    used("dit-weight", str, DIT_WEIGHT.format("t2v")),
    used("i2v-dit-weight", str, DIT_WEIGHT.format("i2v")),
    unused("model-resolution", str, "540p", ("540p", "720p")),
    unused("load-key", str, "module"),
    unused("use-cpu-offload", bool, False),
    unused("batch-size", int, 1),
    used("infer-steps", int, 50),
    unused("disable-autocast", bool, False),
    used("save-path", str, "./results"),
    used("save-path-suffix", str, ""),
    unused("name-suffix", str, ""),
    used("num-videos", int, 1),
    Flag("video-size", int, (720, 1280), is_used=False, takes_many=True),
    used("video-length", int, 129),
    used("prompt", str, None),
    unused("seed-type", str, "auto", ("file", "random", "fixed", "auto")),
    used("seed", int, None),
    used("neg-prompt", str, None),
    used("cfg-scale", float, 1.0),
    used("embedded-cfg-scale", float, None),
    unused("use-fp8", bool, False),
    unused("reproduce", bool, False),
    # --- parallel
    used("ulysses-degree", int, 1),
    used("ring-degree", int, 1),
)

# Flags of other revisions of the original and of programs made from it, as public scripts pass them.
OTHERS: tuple[Flag, ...] = (
    unused("xdit-adaptive-size", bool, False),
    unused("vae-parallel", bool, False),
    unused("use-attentioncache", bool, False),
    unused("enable-teacache", bool, False),
    unused("teacache-thresh", float, 0.0),
    unused("rel-l1-thresh", float, 0.0),
    unused("local-rank", int, -1),  # launchers of older days add it
)


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        """Raises: InputError."""
        raise InputError(f"{message} (see --help).")


def parser() -> Parser:
    """An argument parser whose result holds only the flags that were given."""
    made = Parser(
        prog="sample_image2video.py",
        description="The command line of the original HunyuanVideo-I2V, run by framewake.",
        argument_default=argparse.SUPPRESS,
    )
    for flag in (*FLAGS, *OTHERS):
        names = [f"--{flag.name}"]
        if flag in OTHERS and flag.key != flag.name:  # both spellings are about
            names.append(f"--{flag.key}")
        if flag.kind is bool:
            made.add_argument(*names, action="store_true")
        elif flag.takes_many:
            made.add_argument(*names, type=flag.kind, nargs="+", metavar="N")
        else:
            made.add_argument(*names, type=flag.kind, choices=flag.choices)
    return made
