"""The versions that scripts/setup installs belong to what pyproject.toml asks for now."""

from __future__ import annotations

import re

import pytest
from package_source import ROOT
from packaging.requirements import Requirement

tomllib = pytest.importorskip("tomllib")  # Python 3.10 has none

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = PROJECT["optional-dependencies"]
PYTHONS = {"torch": ("3.10", "3.11", "3.12", "3.13"), "mindspore": ("3.10", "3.11", "3.12")}


def held(kind: str, machine: dict[str, str]) -> dict[str, str]:
    """The version of each package on a machine."""
    lines = (ROOT / "constraints" / f"{kind}.txt").read_text(encoding="utf-8").splitlines()
    found: dict[str, str] = {}
    for requirement in (Requirement(line) for line in lines if not line.startswith("#")):
        if requirement.marker is None or requirement.marker.evaluate(machine):
            assert requirement.name not in found, f"{requirement.name} stands twice in constraints/{kind}.txt"
            found[requirement.name] = str(requirement.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize(("kind", "python"), [(kind, python) for kind in PYTHONS for python in PYTHONS[kind]])
def test_constraints_hold_everything_that_is_asked_for(kind, python):
    full = f"{python}.1"
    machine = {"python_version": python, "python_full_version": full, "sys_platform": "linux"}
    machine |= {"platform_machine": "x86_64", "extra": ""}
    known = held(kind, machine)
    assert len(known) > 100
    extras = [name for name in EXTRAS if name != "mindspore" or kind == "mindspore"]
    asked = [Requirement(text) for text in (*PROJECT["dependencies"], *(t for name in extras for t in EXTRAS[name]))]
    asked = [r for r in asked if r.name != "framewake" and (r.marker is None or r.marker.evaluate(machine))]
    names = {requirement: re.sub("[-_.]+", "-", requirement.name).lower() for requirement in asked}
    wrong = [str(r) for r in asked if not r.specifier.contains(known.get(names[r], "0"), prereleases=True)]
    assert not wrong, f"run scripts/lock: constraints/{kind}.txt does not suit {wrong}"
    unknown = [str(r) for r in asked if names[r] not in known]
    assert not unknown, f"run scripts/lock: constraints/{kind}.txt lacks {unknown}"


def test_the_image_has_the_tested_torch():
    lines = (ROOT / "constraints" / "torch.txt").read_text(encoding="utf-8").splitlines()
    (torch,) = [line for line in lines if line.startswith("torch==")]
    assert torch in (ROOT / "constraints" / "mindspore.txt").read_text(encoding="utf-8").splitlines()
    assert f"ARG TORCH={torch}\n" in (ROOT / "docker" / "cuda.Dockerfile").read_text(encoding="utf-8")
