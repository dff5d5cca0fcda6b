"""``gaps.txt``: which tests an engine cannot pass, each under its reason."""

from __future__ import annotations

from pathlib import Path

FILE = Path(__file__).with_name("gaps.txt")


def read_gaps(text: str) -> dict[str, str]:
    """Test id -> reason.

    Raises: ValueError for an id without a reason, an id that stands twice, a reason without ids.
    """
    gaps: dict[str, str] = {}
    reason, is_used = "", True
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if not line[0].isspace():
            if not is_used:
                raise ValueError(f"gaps.txt: no test stands under {reason!r}")
            reason, is_used = line.strip(), False
            continue
        name = line.strip()
        if not reason or "::" not in name or name in gaps:
            raise ValueError(f"gaps.txt:{number}: expected a new test id under a reason, found {name!r}")
        gaps[name], is_used = reason, True
    if not is_used:
        raise ValueError(f"gaps.txt: no test stands under {reason!r}")
    return gaps
