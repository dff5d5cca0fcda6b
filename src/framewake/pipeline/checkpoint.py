"""A checkpoint found by what a person names, and opened whole: every part's header, before anything is loaded."""

from __future__ import annotations

import os
import re
from pathlib import Path

from framewake.demo import CHECKPOINT
from framewake.errors import CheckpointError
from framewake.pipeline.family import Family
from framewake.pipeline.hunyuan import family_of
from framewake.weights.checkpoint.download import PUBLISHED
from framewake.weights.checkpoint.layouts import Files
from framewake.weights.checkpoint.load import Checkpoint, open_checkpoint

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def open_whole(name: str | Path, files: Files = Files()) -> Checkpoint:  # noqa: B008
    """A checkpoint of which every part can be used, as far as headers tell; no weights are read.

    Raises: CheckpointError that names every part that cannot be used.
    """
    checkpoint = open_checkpoint(find_checkpoint(name), files)
    check_whole(checkpoint)
    return checkpoint


def check_whole(checkpoint: Checkpoint) -> None:
    """Look at every part's header and at both tokenizers.

    Raises: CheckpointError that names every part that cannot be used.
    """
    family = family_of(checkpoint)
    check_parts(checkpoint, family)
    family.reader(checkpoint)


def check_parts(checkpoint: Checkpoint, family: Family) -> None:
    """Compare every part's tensors with what its model needs; what was right once is not looked at again.

    Raises: CheckpointError that names every part that cannot be used.
    """
    faults: dict[str, CheckpointError] = {}
    shapes = family.shapes(checkpoint)
    for row in checkpoint.rows:
        try:
            checkpoint.check(row.name, shapes[row.name])
        except CheckpointError as error:
            faults[row.word] = error
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        told = "\n".join(f"  {word}: {error}" for word, error in faults.items())
        raise CheckpointError(
            f"{checkpoint.folder}: {len(faults)} of {len(checkpoint.rows)} parts cannot be used.\n{told}"
        )


def find_checkpoint(name: str | Path) -> Path:
    """The place of a checkpoint: "demo" is the embedded one, anything else a path.

    Raises: CheckpointError when nothing is there, which says where it may be.
    """
    text = os.fspath(name)
    if text == "":  # as a path it would mean this folder
        raise CheckpointError("the checkpoint's path is empty: name a folder, or demo for the embedded one.")
    if text == "demo":
        if not CHECKPOINT.is_dir():
            raise CheckpointError("this installation has no demonstration checkpoint: install framewake again.")
        return CHECKPOINT
    folder = Path(name).expanduser()
    try:
        is_there = folder.exists()
    except (OSError, ValueError):  # a name that no file can have
        is_there = False
    if is_there:
        return _snapshot(folder)
    if "://" in text:
        raise CheckpointError(f"{text} is an address: fetch it first, with `framewake checkpoints download DIR`.")
    if _HUB_ID.fullmatch(text):
        raise CheckpointError(_told_of_hub(text))
    raise CheckpointError(f"{folder}: there is no such checkpoint. Name a folder, or demo for the embedded one.")


def _snapshot(folder: Path) -> Path:
    """What a hub's cache folder, ``models--OWNER--NAME``, has in it: its only snapshot, or the newest branch's.

    Raises: CheckpointError when it has none, or several.
    """
    inside = folder if folder.name == "snapshots" else folder / "snapshots"
    if not folder.is_dir() or not (inside.is_dir() and folder.name.startswith(("models--", "snapshots"))):
        return folder
    found = sorted(path for path in inside.iterdir() if path.is_dir())
    branch = inside.parent / "refs" / "main"
    if len(found) > 1 and branch.is_file():
        named = inside / branch.read_text(encoding="utf-8", errors="replace").strip()
        found = [named] if named in found else found
    if len(found) != 1:
        held = f"several snapshots, {', '.join(path.name[:12] for path in found[:4])}" if found else "no snapshot"
        raise CheckpointError(f"{folder} is a hub's cache with {held}. Name one: --checkpoint {inside}/HASH.")
    return found[0]


def _told_of_hub(name: str) -> str:
    """What to do with a name that a hub would know."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub") / f"models--{name.replace('/', '--')}"
    if cache.is_dir():
        return f"{name} is no folder here, but a hub's cache holds it: name that with --checkpoint {cache}."
    ours = [each.flags for each in PUBLISHED for held in each.repositories if held.name.lower() == name.lower()]
    fetch = f"`framewake checkpoints download DIR {ours[0]}`" if ours else f"`hf download {name} --local-dir DIR`"
    return f"{name} is no folder here. If it is a name on the hub, fetch it with {fetch}, and name DIR."
