"""What a host of the project runs is what everybody runs: scripts, on every Python and engine that is promised."""

from __future__ import annotations

import re

import pytest
from package_source import ROOT

yaml = pytest.importorskip("yaml")

GITHUB = ROOT / ".github"
CHECKS = yaml.safe_load((GITHUB / "workflows" / "checks.yml").read_text(encoding="utf-8"))
FORMS = [path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config"]


def steps(job):
    return [step["run"] for step in CHECKS["jobs"][job]["steps"] if "run" in step]


def test_the_workflow_calls_scripts_and_nothing_else():
    for job in CHECKS["jobs"]:
        for command in steps(job):
            assert re.match(r"scripts/\w+( |$)", command) and (ROOT / command.split()[0]).is_file(), command
    assert [command.split()[0] for command in steps("checks")] == [
        "scripts/setup",
        "scripts/check",
        "scripts/browser",
        "scripts/test",
    ]
    assert CHECKS["permissions"] == {"contents": "read"}


def test_every_python_and_engine_is_there():
    matrix = CHECKS["jobs"]["checks"]["strategy"]["matrix"]
    from test_constraints import PYTHONS

    pairs = {(engine, python) for engine in matrix["engine"] for python in matrix["python"]}
    pairs -= {(left["engine"], left["python"]) for left in matrix["exclude"]}
    assert pairs == {(engine, python) for engine, pythons in PYTHONS.items() for python in pythons}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_forms_ask_for_what_a_report_needs(path):
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert {"name", "description", "body"} <= set(form)
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert len({field["id"] for field in fields}) == len(fields)
    assert any("framewake doctor" in field["attributes"]["label"] for field in fields)
    assert path.stem != "bug" or any("trace" in field["id"] for field in fields)


def test_a_version_stands_in_one_form_everywhere():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (version,) = re.findall(r'^version = "(\d+\.\d+\.\d+)"$', project, re.M)
    assert f'__version__ = "{version}"' in (ROOT / "src" / "framewake" / "__init__.py").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.M)
