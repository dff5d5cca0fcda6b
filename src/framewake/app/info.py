"""``framewake info``: the settings inside a clip."""

from __future__ import annotations

import json
import sys

from framewake.media.metadata import describe
from framewake.media.video import read_metadata


def print_info(path: str, *, as_json: bool) -> None:
    """Print a clip's settings as a list, or as JSON.

    Raises: InputError for a file without settings, or one that is missing or damaged.
    """
    metadata = read_metadata(path)
    text = json.dumps(metadata, ensure_ascii=False, indent=2) if as_json else "\n".join(describe(metadata))
    sys.stdout.write(text + "\n")
