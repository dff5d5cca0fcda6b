"""Names without the wrapping that other programs put around modules."""

from __future__ import annotations

import re

_WRAPPERS = re.compile(r"(^|\.)(?:(?:_orig_mod|module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_backbone)\.)+")


def unwrapped(name: str) -> str:
    """A name without what torch.compile, DDP, FSDP and MindSpore's mixed precision put into it."""
    return _WRAPPERS.sub(r"\1", name)
