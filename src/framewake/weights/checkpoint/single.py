"""One part alone: recognised by its names, and opened without the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from framewake.errors import CheckpointError
from framewake.weights.checkpoint.component import Components
from framewake.weights.checkpoint.layouts import COMPONENTS, TABLES, Layout, known_layout
from framewake.weights.reading.files import find_file, open_tensors
from framewake.weights.reading.storage import Tensors


class PartKind(NamedTuple):
    """What a file is. ``flag`` is its name with ``--part``; ``component`` is None for what is no part, whose way out
    is ``advice``. ``is_own``: of files whose names end so, whether one is."""

    name: str
    component: str | None
    flag: str
    ends: tuple[str, ...]
    advice: str = ""
    is_own: Callable[[Tensors], bool] = lambda file: True


LORA = PartKind(
    "a LoRA", None, "", (".lora_A.weight", ".lora_down.weight", ".lora.down.weight"),
    "Look at it with `framewake lora info FILE`, use it with --lora FILE.",
)  # fmt: skip
LDM = PartKind(
    "an autoencoder with LDM names", None, "", ("decoder.up.0.block.0.conv1.weight", "decoder.conv_in.weight"),
    "Take the one with the names of diffusers or Tencent (decoder.conv_in.conv.weight).",
)  # fmt: skip


def kinds(components: Components) -> Iterator[PartKind]:
    """What a file can be; the first of which a name ends as it says counts.

    A whole CLIP has a vision tower too, and so has a whole LLaVA: towers come last.
    """
    yield LORA
    for row in components.values():
        yield PartKind(with_article(row.word), row.name, row.flag, row.marks, is_own=row.is_own)
    yield LDM
    for row in components.values():
        if row.tower is not None:
            yield PartKind(with_article(row.tower.word), row.name, row.tower.flag, row.tower.marks)


def with_article(word: str) -> str:
    """ "a transformer", "an autoencoder"."""
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def kinds_of(file: Tensors, components: Components) -> list[PartKind]:
    """All that the names of a file's tensors belong to, for some files hold several parts."""
    held = file.names()
    return [kind for kind in kinds(components) if any(name.endswith(kind.ends) for name in held) and kind.is_own(file)]


def table_of(path: Path) -> Components:
    """The family that a part belongs to, by the names of its tensors; the first where they tell none.

    Later families' marks are their own; the first one's name some of theirs too.
    """
    file = open_tensors(path)
    found = (each for each in reversed(TABLES) if any(kind.component for kind in kinds_of(file, each)))
    return next(found, COMPONENTS)


def open_kind(path: Path, components: Components) -> tuple[PartKind, str]:
    """What a file, or the file in a folder, is, and the component that it belongs to.

    Raises: CheckpointError for what no model here has, with the way out where it is known.
    """
    file = open_tensors(path)
    kind = next(iter(kinds_of(file, components)), None)
    if kind is None:
        held = ", ".join([*file.names()[:3], "..."]) if file.names() else "no tensors at all"
        raise CheckpointError(
            f"{file.path} is no part of {components.facts.name} (it has {held}): this is another model."
        )
    if kind.component is None:
        raise CheckpointError(f"{file.path} is {kind.name}, no part of a checkpoint. {kind.advice}")
    return kind, kind.component


def part_layout(path: Path, component: str, components: Components) -> Layout:
    """A part with the ``config.json`` beside it, where there is one, as the only part of a checkpoint."""
    folder = path if path.is_dir() else path.parent
    return Layout(
        name="single part",
        root=folder,
        components=components,
        weights={component: (path,)},
        configs={component: folder / "config.json"},
        tokenizers={},
        image_processor=folder / "preprocessor_config.json",
        condition="token_replace",
        is_strict=False,
    )


def told_of_place(path: Path, components: Components | None = None) -> str:
    """What to do with a place that is no checkpoint: a part, a folder around one, or something else.

    Raises: CheckpointError for a file that cannot be used at all.
    """
    around = known_layout(path.absolute().parent, components) if path.is_dir() else None
    if around is not None:
        return f"{path} is one part of a checkpoint. Name the whole: {path.parent}."
    try:
        find_file(path)
    except CheckpointError:
        inside = [
            child for child in sorted(path.iterdir()) if child.is_dir() and known_layout(child, components) is not None
        ]
        hint = f" Did you mean {inside[0]}?" if inside else ""
        return (
            f"{path} is no checkpoint that is known: it has neither model_index.json (the diffusers layout) nor a "
            f"folder hunyuan-video-*/ (Tencent's).{hint} Single files are taken with --part NAME=FILE."
        )
    kind, _ = open_kind(path, components or table_of(path))
    return (
        f"{path} is {kind.name} alone. Take it with --part {kind.flag}={path}, and name a folder that has the other "
        "parts with --checkpoint (`framewake checkpoints download DIR` fetches them)."
    )
