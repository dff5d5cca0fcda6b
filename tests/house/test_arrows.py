"""Which way the arrows point: who may import whom, and who may import what from outside."""

from __future__ import annotations

import graphlib
import sys

import pytest
from package_source import imports, modules

OURS = {"framewake", "demonstration"}

# Anyone may import these.
LEAVES = {"", "errors", "lasting", "packages", "console", "config", "config15", "setting", "shapes", "lora", "cache"}
LEAVES |= {"request", "pulse", "network", "demo"}

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
    "train": CORE,
    "service": CORE,
    "demonstration": CORE | {"train"},
    "agents": {"media", "service.fields"},
    "__main__": {"app"},
    "app": CORE | {"agents", "batch", "golden", "service", "train"},
}

# Wing of weights/ -> the wings that it may import.
WINGS: dict[str, set[str]] = {
    "reading": set(),
    "stores": {"reading"},
    "checkpoint": {"reading", "stores"},
    "writing": {"reading", "stores", "checkpoint"},
    "lora": {"reading", "stores", "checkpoint", "writing"},
}

# What comes from outside, and where it may be imported.
PACKAGES: dict[str, set[str]] = {
    "numpy": set(ARROWS),
    "PIL": {"media", "pipeline", "golden", "service", "demonstration"},
    "safetensors": {"weights", "demonstration"},
    "tokenizers": {"text", "demonstration"},
    "av": {"media.mp4"},
    "tomli": {"train.dataset"},
    "tomllib": {"train.dataset"},
    "pillow_heif": {"media.picture"},
    "flip_evaluator": {"media.quality"},
    "tensorboardX": {"train.board"},
    "typer": {"app"},
    "rich": {"app"},
    "huggingface_hub": {"weights.checkpoint.download"},
    "httpx": {"weights.checkpoint.download", "service", "agents.calls", "app.jobs"},
    "fastapi": {"service"},
    "starlette": {"service"},
    "pydantic": {"service"},
    "python_multipart": {"service"},
    "fastapi_offline": {"service"},
    "sqlalchemy": {"service"},
    "prometheus_client": {"service"},
    "gradio": {"service.page"},
    "mcp": {"agents"},
    "mcp_types": {"agents"},
    "anyio": {"app.agents"},
    "uvicorn": {"app.serve", "service.connections"},
    "h11": {"service.connections"},
    "torch": {"engine.torch"},
    "mindspore": {"engine.mindspore"},
}


def part_of(name: str) -> str:
    return name.partition(".")[0]


def is_under(name: str, places: set[str]) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in places)


def is_allowed(name: str, target: str) -> bool:
    allowed = ARROWS[part_of(name)] | LEAVES | {part_of(name)}
    return target == "" or is_under(target, allowed - {""})


def test_every_part_has_its_place():
    parts = {part_of(name) for name in modules()}
    assert parts == set(ARROWS), "give a new part a line in ARROWS and in docs/structure.md"


def test_arrows_between_parts():
    wrong = []
    for module in modules().values():
        ours = [full for full in imports(module) if full.partition(".")[0] in OURS]
        targets = [full.removeprefix("framewake").removeprefix(".") for full in ours]
        wrong += [f"{module.name} -> {target}" for target in targets if not is_allowed(module.name, target)]
    assert not wrong


def test_arrows_between_the_wings_of_weights():
    inside = {name: module for name, module in modules().items() if name.startswith("weights.")}
    assert {name.split(".")[1] for name in inside} == set(WINGS), "every file of weights/ lies in a wing"
    wrong = []
    for name, module in inside.items():
        wing = name.split(".")[1]
        met = [full.split(".")[2] for full in imports(module) if full.startswith("framewake.weights.")]
        wrong += [f"{name} -> weights.{other}" for other in met if other not in WINGS[wing] | {wing}]
    assert not wrong


def test_outside_packages_stay_in_their_place():
    wrong = []
    for module in modules().values():
        packages = {full.partition(".")[0] for full in imports(module)} - OURS - sys.stdlib_module_names
        wrong += [f"{module.name} -> {p}" for p in packages if not is_under(module.name, PACKAGES.get(p, set()))]
    assert not wrong, "where each may be imported stands in PACKAGES"


def order(graph: dict[str, set[str]]) -> list[str]:
    """Modules, each behind those that it imports.

    Raises: graphlib.CycleError.
    """
    return list(graphlib.TopologicalSorter(graph).static_order())


def test_no_circle():
    known = {f"framewake.{name}".rstrip("."): name for name in modules()}
    graph = {module.name: {known[full] for full in imports(module) if full in known} for module in modules().values()}
    assert len(order(graph)) == len(graph)
    # What imports something that leads back to it is found, wherever in the file it does so.
    inner = next(name for name in graph["app.animate"] if name.startswith("pipeline."))
    with pytest.raises(graphlib.CycleError):
        order(graph | {inner: graph[inner] | {"app.animate"}})


def test_models_and_weights_never_meet():
    for name, other in (("models", "weights"), ("weights", "models")):
        ours = [module for module in modules().values() if part_of(module.name) == name]
        met = [f"{m.name} -> {full}" for m in ours for full in imports(m) if full.startswith(f"framewake.{other}")]
        assert ours and not met
