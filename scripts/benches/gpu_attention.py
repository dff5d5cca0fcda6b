"""Every attention kernel that torch has here, at the size of a 720p clip: 119,000 tokens, 24 heads of 128 (--model).

For a machine with a GPU and little else (Python, torch, numpy). From the project's folder:

    PYTHONPATH=src python3 scripts/benches/gpu_attention.py

The error is that of some query rows against float32. Shares are of the best matrix product measured in the same run.
Writes results/bench-gpu-attention.json and adds lines to docs/measurements/gpu-attention.md; --toy is a
trial for any machine.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from measuring import device, models, record
from torch.nn.attention import sdpa_kernel

from framewake import engine as engines
from framewake.engine.torch.attention import BACKENDS

NAME = "gpu-attention"
SCENES = {"hunyuanvideo-i2v": (119_000, 24), "hunyuanvideo-1.5": (112_585, 16)}  # tokens and heads
WIDTH = 128
TOY_TOKENS, TOY_HEADS = 300, 2
CHECKED_ROWS = 64
MOST_SCORES = 8e9  # the plain way keeps all of them

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def main() -> int:
    """Measure each kernel; one that cannot is named with its reason."""
    options = record.parser(__doc__, rounds=3)
    options.add_argument("--engine", default="torch:cuda")
    options.add_argument("--tokens", type=int)
    options.add_argument("--kernels", nargs="+", help=f"of {', '.join([*BACKENDS, *OTHERS])}")
    models.add_option(options)
    given = options.parse_args()
    engine = engines.get(given.engine)
    tokens, heads = (TOY_TOKENS, TOY_HEADS) if given.toy else SCENES[given.model]
    tokens = given.tokens or tokens
    found: dict[str, Any] = device.facts(engine, is_toy=given.toy) | {"model": given.model, "tokens": tokens}
    shape = (1, tokens, heads, WIDTH)  # as the transformer has it; kernels see heads first
    q, k, v = (device.drawn(engine, shape, "bfloat16", seed=seed) for seed in range(3))
    work = 4.0 * heads * tokens**2 * WIDTH
    found["kernels"], rows = {}, []
    for name in given.kernels or [*BACKENDS, *OTHERS]:
        entry = measured(name, (q, k, v), engine, rounds=given.rounds)
        if "seconds" in entry:
            entry |= {"rate": work / entry["seconds"], "share": work / entry["seconds"] / found["ceiling"]}
        found["kernels"][name] = entry
        rows.append(row(name, found, entry))
        sys.stdout.write(rows[-1] + "\n")
        sys.stdout.flush()
        record.write(NAME, found | {"rows": rows}, [], has_notes=False)
    record.write(NAME, found | {"rows": rows}, rows, has_notes=not (given.no_notes or given.toy))
    return 0


def measured(name: str, tensors: tuple[torch.Tensor, ...], engine: Any, *, rounds: int) -> dict[str, Any]:
    """The best of some runs and the error, or why there is none. Shapes: tensors (1, N, A, E)."""
    q = tensors[0]
    if name == "plain" and q.shape[1] ** 2 * q.shape[2] > MOST_SCORES:
        return {"refused": "keeps all scores, more than fit into memory"}
    try:
        attend = OTHERS[name](q) if name in OTHERS else through_torch(name)
        if attend is None:
            return {"refused": "not installed"}
        begin = time.perf_counter()
        out = attend(*tensors)
        engine.synchronize()
        first = time.perf_counter() - begin
        runs = device.timed(engine, lambda: attend(*tensors), seconds=0, least=rounds)
        return {"seconds": min(runs), "first": first, "error": error(out, tensors)}
    # Whatever a kernel of another package or its compiler raises, the others are still to be measured.
    except Exception as problem:  # noqa: BLE001
        return {"refused": " ".join(str(problem).split())[:100] or type(problem).__name__}


def through_torch(name: str) -> Attend:
    """One of the kernels behind torch's own function."""

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        with sdpa_kernel([BACKENDS[name]]), torch.no_grad():
            return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v))).transpose(1, 2)

    return attend


def flexible(q: torch.Tensor) -> Attend | None:
    """torch's flexible attention, a program that Triton compiles."""
    if q.device.type != "cuda":
        raise RuntimeError(f"is for CUDA, not for {q.device.type}")
    from torch.nn.attention.flex_attention import flex_attention

    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda q, k, v: compiled(*(x.transpose(1, 2).contiguous() for x in (q, k, v))).transpose(1, 2)


def flash_two(q: torch.Tensor) -> Attend | None:
    """The package flash_attn."""
    if importlib.util.find_spec("flash_attn") is None:
        return None
    from flash_attn import flash_attn_func

    return flash_attn_func


def flash_three(q: torch.Tensor) -> Attend | None:
    """The package flash_attn_interface, for Hopper."""
    if importlib.util.find_spec("flash_attn_interface") is None:
        return None
    from flash_attn_interface import flash_attn_func

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        out = flash_attn_func(q, k, v)
        return out[0] if isinstance(out, tuple) else out

    return attend


def sage(q: torch.Tensor) -> Attend | None:
    """The package sageattention, in eight bits."""
    if importlib.util.find_spec("sageattention") is None:
        return None
    from sageattention import sageattn

    return lambda q, k, v: sageattn(q, k, v, tensor_layout="NHD")


OTHERS: dict[str, Callable[[torch.Tensor], Attend | None]] = {
    "flex": flexible,
    "flash_attn": flash_two,
    "flash_attn_interface": flash_three,
    "sageattention": sage,
}


def error(out: torch.Tensor, tensors: tuple[torch.Tensor, ...]) -> float:
    """Largest difference in evenly spread query rows, over the largest value."""
    q, k, v = (x.transpose(1, 2).float() for x in tensors)
    rows = torch.linspace(0, q.shape[2] - 1, CHECKED_ROWS, device=q.device).long()
    scores = q[:, :, rows] @ k.transpose(2, 3) * WIDTH**-0.5
    expected = torch.softmax(scores, -1) @ v
    found = out.transpose(1, 2)[:, :, rows].float()
    return float((found - expected).abs().max() / expected.abs().max())


def row(name: str, found: dict[str, Any], entry: dict[str, Any]) -> str:
    """A row of the benchmark's table."""
    cells = [f"{found['device']}, torch {torch.__version__}", name, models.titled(found, str(found["tokens"]))]
    if "refused" in entry:
        cells += ["", "", "", entry["refused"]]
    else:
        share = f"{entry['share']:.0%} of {found['ceiling'] / 1e12:.0f}"
        cells += [f"{entry['seconds'] * 1e3:.1f}", f"{entry['rate'] / 1e12:.0f}", share, f"error {entry['error']:.2%}"]
    return record.line(cells)


if __name__ == "__main__":
    sys.exit(main())
