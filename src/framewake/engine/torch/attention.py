"""Which of torch's attention kernels work on a device, and which of them is clearly the fastest."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

Sizes = tuple[int, int, int, int]

# In the order in which they are taken where none is clearly faster.
BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    **({"cuDNN": SDPBackend.CUDNN_ATTENTION} if hasattr(SDPBackend, "CUDNN_ATTENTION") else {}),  # from torch 2.5 on
    "memory-efficient": SDPBackend.EFFICIENT_ATTENTION,
    "plain": SDPBackend.MATH,
}
FUSED = tuple(name for name in BACKENDS if name != "plain")
CLEAR = 0.9  # of the time of another kernel: a timing differs by less from process to process
# Samples, tokens, heads, head width. Long enough that the ranks are those of a video, a few milliseconds each.
PROBE = (1, 8192, 8, 128)
# Head width, whether values are a view into a wider tensor, whether there is a mask: what the models ask for.
CALLS = ((128, True, False), (128, False, True), (64, False, True), (512, False, False))
TOKENS = 777  # an odd count is one that a kernel working in tiles gets wrong first
MOST_ERROR = {torch.bfloat16: 0.02, torch.float16: 0.01, torch.float32: 1e-4}  # of the largest value
SCORES = 1 << 26  # that exist at a time where no fused kernel takes a type

_HELD = contextlib.ExitStack()


class Attention(NamedTuple):
    """Kernels, best first, why, and the types in which one of them keeps no scores."""

    order: tuple[str, ...]
    reason: str
    types: tuple[torch.dtype, ...]


class Tried(NamedTuple):
    """The types that a kernel takes, whether it is wrong in one of them, and what it said of the others."""

    types: tuple[torch.dtype, ...]
    is_wrong: bool
    said: str


def choose_attention(device: torch.device, dtype: torch.dtype, *, probe: Sizes = PROBE) -> Attention:
    """The kernels that work on a device, in the order for a type; wrong ones are left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says of each kernel at length why it is not taken
        tried = {name: try_kernel(name, device) for name in FUSED}
        right = {name: each for name, each in tried.items() if each.types and not each.is_wrong}
        seconds = {name: attention_seconds(name, device, probe, dtype) for name in right if dtype in right[name].types}
    order = in_order(seconds)
    samples, tokens, heads, width = probe
    work = 4.0 * samples * heads * tokens**2 * width
    said = [f"{name} {work / seconds[name] / 1e12:.0f} Tflop/s" for name in order]
    said += [f"{name} not ({each.said})" for name, each in tried.items() if name not in seconds]
    others = tuple(name for name in right if name not in order)  # in another type they are all there is
    reason = f"{order[0] if order else 'plain'}, none is clearly faster here: {', '.join(said)}"
    types = tuple(kind for kind in MOST_ERROR if any(kind in each.types for each in right.values()))
    return Attention((*order, *others, "plain"), reason, types)


def in_order(seconds: Mapping[str, float]) -> tuple[str, ...]:
    """Kernels in their usual order, but a clearly faster one first."""
    usual = [name for name in BACKENDS if name in seconds]
    best = usual[0] if usual else ""
    for name in usual:
        if seconds[name] < CLEAR * seconds[best]:
            best = name
    return tuple(sorted(usual, key=lambda name: name != best))


def try_kernel(name: str, device: torch.device) -> Tried:
    """What a kernel makes of the calls that there are, in each type. Where it refuses some, torch passes it over."""
    types, said = [], ""
    for kind, most in MOST_ERROR.items():
        errors = []
        for call in CALLS:
            try:
                errors.append(attention_error(name, device, kind, call))
            except RuntimeError as problem:  # torch's word for a kernel that does not take these inputs
                said = said or str(problem).splitlines()[0][:60]
        if errors and not max(errors) < most:
            return Tried((), True, f"wrong by {max(errors):.2g}")
        if errors:
            types.append(kind)
    return Tried(tuple(types), False, said)


@contextlib.contextmanager
def kernels(order: Sequence[str]) -> Iterator[None]:
    """Prefer the kernels in this order."""
    backends = [BACKENDS[name] for name in order]
    try:
        context = sdpa_kernel(backends, set_priority=True)
    except TypeError:  # before torch 2.6 the order is torch's own
        context = sdpa_kernel(backends)
    with context:
        yield


def use_attention(order: Sequence[str]) -> None:
    """Prefer the kernels in this order from now on, in this process; compiled programs keep theirs."""
    # Not around each call: the order has to count for programs too that torch.compile makes later. The stack holds
    # the context open; one that nobody holds is closed as soon as it is forgotten.
    _HELD.close()
    _HELD.enter_context(kernels(order))


def attention_seconds(name: str, device: torch.device, shape: Sizes, kind: torch.dtype, *, runs: int = 3) -> float:
    """The best of some runs of one kernel. Shapes: (B, N, A, E)."""
    q, k, v = (torch.randn(shape, device=device, dtype=kind).transpose(1, 2) for _ in range(3))
    found = []
    with kernels([name]), torch.no_grad():
        for _ in range(runs + 1):  # the first one loads and plans
            _wait(device)
            begin = time.perf_counter()
            F.scaled_dot_product_attention(q, k, v)
            _wait(device)
            found.append(time.perf_counter() - begin)
    return min(found[1:])


def attention_error(name: str, device: torch.device, kind: torch.dtype, call: tuple[int, bool, bool]) -> float:
    """Largest difference of one kernel from float32 arithmetic, over the largest value."""
    width, is_view, has_mask = call
    generator = torch.Generator(device).manual_seed(0)
    shape = (1, TOKENS, 2, 3, width)
    joined = torch.randn(shape, device=device, generator=generator).to(kind)
    q, k, v = (part.transpose(1, 2) for part in joined.unbind(3))
    if not is_view:
        q, k, v = q.contiguous(), k.contiguous(), v.contiguous()
    mask = torch.ones((TOKENS, TOKENS), dtype=torch.bool, device=device).tril()[None, None] if has_mask else None
    scores = q.float() @ k.float().transpose(2, 3) * width**-0.5
    scores = scores if mask is None else scores.masked_fill(~mask, -torch.inf)
    expected = torch.softmax(scores, -1) @ v.float()
    with kernels([name]), torch.no_grad():
        found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).float()
    return float((found - expected).abs().max() / expected.abs().max())


def composed(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, mask: torch.Tensor | None
) -> torch.Tensor:
    """Attention from matrix products, so many queries at a time that their scores stay few. Shapes: (B, A, N, E)."""
    step = max(1, SCORES // (q.shape[0] * q.shape[1] * k.shape[2]))
    turned, parts = k.transpose(2, 3), []
    for start in range(0, q.shape[2], step):
        scores = (q[:, :, start : start + step] * scale) @ turned
        if mask is not None:
            part = mask if mask.shape[-2] == 1 else mask[..., start : start + step, :]
            scores = scores.masked_fill_(~part, torch.finfo(scores.dtype).min)
        parts.append(torch.softmax(scores, -1) @ v)
        del scores
    return parts[0] if len(parts) == 1 else torch.cat(parts, 2)


# The schema is said: torch 2.4 cannot read it from annotations that are text.
SCHEMA = "(Tensor q, Tensor k, Tensor v, Tensor lengths, float scale, bool is_composed) -> Tensor"


@torch.library.custom_op("framewake::attend", mutates_args=(), schema=SCHEMA)
def attend(q, k, v, lengths, scale, is_composed):
    """Attention to so many keys of each sample; opaque to the compiler, which would build their number in.

    Shapes: q (B, N, A, E), k and v (B, M, A, E), lengths (B,) on the host -> (B, N, A, E).
    """
    parts = []
    for i, count in enumerate(lengths.tolist()):
        one = (q[i : i + 1], k[i : i + 1, :count], v[i : i + 1, :count])
        a, b, c = (x.transpose(1, 2) for x in one)
        out = composed(a, b, c, scale, None) if is_composed else F.scaled_dot_product_attention(a, b, c, scale=scale)
        parts.append(out.transpose(1, 2))
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).contiguous()


@attend.register_fake
def _(q, k, v, lengths, scale, is_composed):
    return q.new_empty(q.shape)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
