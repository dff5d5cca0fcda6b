"""Why a LoRA file is refused: what its keys are for, what would be lost, and what to do instead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from framewake.weights.lora import foreign
from framewake.weights.lora.keys import Module, other_method
from framewake.weights.lora.targets import Targets
from framewake.weights.lora.updates import LoraTensors, WeightUpdate

LISTED = 4


class Found(NamedTuple):
    """A file's keys as far as they have a place. ``misfits`` says of modules in ``lost`` which sizes are wrong."""

    updates: tuple[WeightUpdate, ...]
    lost: tuple[Module, ...]
    halves: tuple[Module, ...]
    misfits: dict[str, str]
    strange: tuple[str, ...] = ()

    def left_out(self) -> tuple[str, ...]:
        """The keys that are not applied."""
        return (*self.strange, *(key for module in (*self.lost, *self.halves) for key in module.keys.values()))


def refusal(path: Path, tensors: LoraTensors, targets: Targets, found: Found) -> str:
    """The whole message. What a file is for is decided last: what has a place here is ours."""
    names = tensors.names()
    if not names:
        return f"{path} holds no tensors: it is no LoRA."
    keys = found.left_out()
    others = [key for key in keys if foreign.elsewhere(key) is None]
    matched = len({update.module.name for update in found.updates})
    if matched <= len(found.lost):
        is_told = found.misfits and not found.updates
        widths = [tensors.shape(key)[-1] for key in keys if tensors.shape(key)]
        what = foreign.recognised(others, tensors.metadata, widths) if others else None
        if is_told:
            size = f". It looks like a LoRA for {what}." if what else "; it is for a model of another size."
            return f"{path} does not fit this transformer: {next(iter(found.misfits.values()))}{size}"
        if what:
            return f"{path} looks like a LoRA for {what}: its {others[0]!r} is nothing in this transformer."
    told = "; ".join(_told(names, targets, found))
    told += "" if told.endswith("?") else "."
    if not found.updates:
        return f"{path}: {told}"
    return f"{path}: {told} --lora-partial applies the rest, {matched} module{'s' if matched > 1 else ''}."


def summary(keys: tuple[str, ...]) -> str:
    """How many keys were left out and what they are for, as a part of a sentence."""
    counts: dict[str, int] = {}
    for key in keys:
        part, method = foreign.elsewhere(key), other_method(key)
        if part or method:
            what = f"for {part}" if part else f"of {method}"
            counts[what] = counts.get(what, 0) + 1
    for_what = ", ".join(f"{count} {what}" for what, count in counts.items())
    return f"{len(keys)} keys left out" + (f" ({for_what})" if for_what else "")


def _told(names: tuple[str, ...], targets: Targets, found: Found) -> Iterator[str]:
    groups: dict[tuple[str, str, str, str], list[str]] = {}
    owned = [tuple(module.keys.values()) for module in (*found.lost, *found.halves)]
    for owner in (*((key,) for key in found.strange), *owned):
        part = next(filter(None, map(foreign.elsewhere, owner)), None)
        method = next(filter(None, map(other_method, owner)), None)
        if part is not None:
            groups.setdefault(("are", "is", f"for {part}", "which LoRAs do not change here"), []).extend(owner)
        elif method is not None:
            groups.setdefault(("belong", "belongs", f"to {method}", "which is not applied"), []).extend(owner)
    for (several, single, what, but), members in groups.items():
        many = f"{len(members)} of its {len(names)} keys"
        if len(members) == len(names):
            many = "its only key" if len(names) == 1 else f"all of its {len(names)} keys"
        yield f"{many} {single if len(members) == 1 else several} {what} ({members[0]!r}), {but}"
    named = {key for members in groups.values() for key in members}
    halves = [module for module in found.halves if not named.intersection(module.keys.values())]
    if halves:
        held = ", ".join(halves[0].keys.values())
        yield f"it has only a part of {halves[0].name!r} ({held}) and is incomplete" + _more(len(halves))
    if found.misfits:
        first = next(iter(found.misfits.values()))
        yield f"{first}, as a model of another size has" + _more(len(found.misfits))
    wrong = set(found.misfits) | {module.name for module in halves}
    rest = [module for module in found.lost if module.name not in wrong and not named & set(module.keys.values())]
    strange = [key for key in found.strange if key not in named]
    lost = strange + [key for module in rest for key in module.keys.values()]
    if lost:
        hints = [f"{m.name!r}{targets.hint(m.name, is_underscored=m.is_underscored)}" for m in rest[:LISTED]]
        what = "; ".join(hints or [repr(key) for key in strange[:LISTED]])
        if len(lost) == len(names):
            none = f"none of its {len(names)} keys fits" if len(names) > 1 else "its only key does not fit"
            yield f"{none} this transformer: {what}"
        else:
            yield f"{len(lost)} of its {len(names)} keys have no place in this transformer: {what}"


def _more(count: int) -> str:
    return "" if count == 1 else f" (and {count - 1} other module{'s' if count > 2 else ''})"
