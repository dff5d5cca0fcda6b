"""What stands between torch and a CUDA device: a build without it, a driver that is too old, a card without code."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence

import torch

from framewake.console.escape import one_line
from framewake.errors import EngineError

BUILDS = "https://download.pytorch.org/whl/"  # torch for each version of CUDA


def why_absent(device: str) -> str:
    """Why torch has not got a CUDA device, and what to do about it."""
    if device == "cpu":
        return ""
    if torch.version.cuda is None and torch.version.hip is None:
        plain = torch.__version__.partition("+")[0]
        index = "" if sys.platform == "linux" else f" --index-url {BUILDS}cu128"
        line = f"pip install --force-reinstall torch=={plain}{index}"
        return f"This torch ({torch.__version__}) is a build for CPUs. Run: {line}"
    if torch.cuda.device_count():
        return ""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides every card: unset it."
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        said = one_line(str(error)).partition(". ")[0].rstrip(".")
        return f"Torch says: {said[:200]}. See whether `nvidia-smi` lists the card; a new driver may be needed."
    return ""


def check_device(device: str) -> None:
    """Whether a device computes. That it is counted says little: a driver that is too old for this torch counts it too.

    Raises: EngineError that says what to do.
    """
    try:
        check_kernels(device)
        torch.zeros(1, device=device).add_(1).item()
    except (RuntimeError, AssertionError) as error:
        said = one_line(str(error)).partition(". ")[0].rstrip(".")
        raise EngineError(
            f"{device} is there but cannot be used. Torch says: {said[:200]}. See whether `nvidia-smi` works; a new "
            "driver may be needed, or a torch for an older CUDA. Or take --engine torch:cpu."
        ) from error


def is_slow_in_convolutions(device: torch.device) -> bool:
    """Whether torch would go around cuDNN for a clip's convolutions in float16, through a copy of it for each tap."""
    shapes = ((1, 16, 4, 8, 8), (16, 16, 3, 3, 3))
    x, weight = (torch.empty(shape, dtype=torch.float16, device=device) for shape in shapes)
    x, weight = (each.contiguous(memory_format=torch.channels_last_3d) for each in (x, weight))
    ones, zeros = [1, 1, 1], [0, 0, 0]
    try:
        found = torch._C._select_conv_backend(x, weight, None, ones, zeros, ones, False, zeros, 1, None)
    except (RuntimeError, TypeError, AttributeError):  # it is not public
        return False
    return "Slow" in str(found)


def check_kernels(device: str) -> None:
    """Whether this build of torch has code for a card.

    Raises: EngineError that says which build has.
    """
    if torch.version.hip is not None:
        return
    capability, found = torch.cuda.get_device_capability(device), torch.cuda.get_arch_list()
    if not found or has_kernels(capability, found):
        return
    known = [parsed for parsed in map(parse_arch, found) if parsed]
    is_old = capability < min(version for _, version in known)
    build = f"pip install --force-reinstall torch --index-url {BUILDS}cu126" if is_old else "pip install -U torch"
    card = f"{device}, a {torch.cuda.get_device_name(device)}"
    raise EngineError(
        f"{card}, has compute capability {capability[0]}.{capability[1]}, and torch {torch.__version__} has code "
        f"for {', '.join(found)} only: take --engine torch:cpu, or a build that has. Run: {build}"
    )


def has_kernels(capability: tuple[int, int], found: Sequence[str]) -> bool:
    """Whether code for these architectures runs on a card: machine code within a generation, PTX on any later one."""
    parsed = [each for each in map(parse_arch, found) if each]
    return any(version <= capability and (kind == "compute" or version[0] == capability[0]) for kind, version in parsed)


def parse_arch(text: str) -> tuple[str, tuple[int, int]] | None:
    """("sm", (9, 0)) of "sm_90a"; None of what is nothing of NVIDIA's."""
    matched = re.fullmatch(r"(sm|compute)_(\d+)(\d)[af]?", text)
    return None if matched is None else (matched[1], (int(matched[2]), int(matched[3])))
