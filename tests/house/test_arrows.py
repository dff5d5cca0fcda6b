"""Which way the arrows point: who may import whom, and who may import what from outside."""

from __future__ import annotations

import sys

import pytest
from package_source import imports, modules

# Anyone may import these.
LEAVES = {"", "errors", "config", "setting", "shapes", "request"}

CORE = {"engine", "nn", "models", "weights", "sampling", "text", "media", "pipeline"}

# Part of the package -> what it may import besides itself and the leaves.
ARROWS: dict[str, set[str]] = {
    **{leaf: set() for leaf in LEAVES},
    "engine": set(),
    "nn": {"engine.contract"},
    "models": {"engine.contract", "nn"},
    "weights": {"engine.contract"},
    "sampling": {"engine.contract"},
    "text": {"engine.contract"},
    "media": set(),
    "pipeline": CORE,
    "batch": set(),
    "golden": CORE,
    "demo": CORE,
    "app": CORE | {"batch", "golden"},
}

# One module -> one thing it may import against the arrows, and why.
EXCEPTIONS = {
    ("pipeline.run", "demo.world"): "warns when an input lies outside the demonstration's world; imported only then",
}

# What comes from outside, and where it may be imported.
PACKAGES: dict[str, set[str]] = {
    "numpy": set(ARROWS),
    "PIL": {"media", "pipeline", "golden", "demo"},
    "safetensors": {"weights", "demo"},
    "tokenizers": {"text", "demo"},
    "av": {"media.mp4"},
    "typer": {"app"},
    "rich": {"app"},
    "torch": {"engine.torch"},
    "mindspore": {"engine.mindspore"},
}


def part_of(name: str) -> str:
    return name.partition(".")[0]


def is_under(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("name", modules())
def test_arrows_between_parts(name):
    part = part_of(name)
    assert part in ARROWS, f"{part!r} is new: give it a line in ARROWS and in docs/structure.md"
    allowed = ARROWS[part] | LEAVES | {part}
    wrong = []
    for full in imports(modules()[name]):
        if full.partition(".")[0] != "framewake":
            continue
        target = full.removeprefix("framewake").removeprefix(".")
        is_allowed = target == "" or is_under(target, allowed - {""}) or (name, target) in EXCEPTIONS
        if not is_allowed:
            wrong.append(target)
    assert not wrong, f"{name} imports {wrong}; allowed: {sorted(allowed)}"


def test_no_exception_is_left_over():
    unused = [pair for pair in EXCEPTIONS if f"framewake.{pair[1]}" not in set(imports(modules()[pair[0]]))]
    assert not unused, f"no longer needed: {unused}"


@pytest.mark.parametrize("name", modules())
def test_outside_packages_stay_in_their_place(name):
    wrong = []
    for full in imports(modules()[name]):
        package = full.partition(".")[0]
        if package == "framewake" or package in sys.stdlib_module_names:
            continue
        if not is_under(name, PACKAGES.get(package, set())):
            wrong.append(package)
    assert not wrong, f"{name} imports {sorted(set(wrong))}; where each may be imported stands in PACKAGES"


def test_models_and_weights_never_meet():
    for name, other in (("models", "weights"), ("weights", "models")):
        for module in modules().values():
            if part_of(module.name) == name:
                met = [full for full in imports(module) if full.startswith(f"framewake.{other}")]
                assert not met, f"{module.name} imports {met}"
