"""The maps are true: a newcomer finds every module, and nothing that is not there."""

from __future__ import annotations

import re
import subprocess

import pytest
from map_section import first_sentence, page
from package_source import ROOT, modules
from test_arrows import ARROWS

STRUCTURE = ROOT / "docs" / "structure.md"
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]


def test_structure_lists_every_module_as_its_docstring_says():
    assert STRUCTURE.read_text(encoding="utf-8") == page(), "write it again with scripts/fmt"


def test_every_module_says_what_it_is():
    silent = [module.name for module in modules().values() if not first_sentence(module).endswith(".")]
    assert not silent, f"the first paragraph of the docstring is one sentence: {silent}"


def test_structure_says_of_every_part_who_may_import_it():
    section = STRUCTURE.read_text(encoding="utf-8").partition("## Who may import whom")[2].partition("\n## ")[0]
    missing = {part for part in ARROWS if part not in re.findall(r"\w+", section)} - {"", "__main__"}
    assert not missing, f"not in docs/structure.md: {sorted(missing)}"


@pytest.mark.parametrize("name", ["README.md", "README.zh.md"])
def test_readme_maps_every_folder(name):
    table = (ROOT / name).read_text(encoding="utf-8").rpartition("|---|---|")[2].partition("\n## ")[0]
    text = set(re.findall(r"`([\w./-]+/)`", table))
    tracked = subprocess.run(["git", "ls-files", "*/*"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    folders = {f"{path.partition('/')[0]}/" for path in tracked.split("\n") if path[:1] not in (".", "")}
    assert {folder.partition("/")[0] for folder in text} == {folder.partition("/")[0] for folder in folders}


def test_files_named_in_the_documents_exist():
    documents = [*READMES, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]
    texts = [path.read_text(encoding="utf-8") for path in documents]
    named = {name for text in texts for name in re.findall(r"`((?:[\w-]+/)*[\w-]+\.py)`", text)}
    folders = ("src", "tests", "scripts", "demonstration", "deploy", "comfyui")
    here = [f"/{path.relative_to(ROOT)}" for folder in folders for path in (ROOT / folder).rglob("*.py")]
    here += [f"/{path.name}" for path in ROOT.glob("*.py")]
    gone = {name for name in named - {"scripts/benches/NAME.py"} if not any(path.endswith(f"/{name}") for path in here)}
    assert named and not gone, f"named, but not there: {sorted(gone)}"


def test_scripts_named_in_the_documents_exist():
    documents = [*READMES, ROOT / "CONTRIBUTING.md", STRUCTURE, *(ROOT / "docs").glob("*.md")]
    named = {name for path in documents for name in re.findall(r"\bscripts/(\w+)", path.read_text())}
    gone = {name for name in named if not (ROOT / "scripts" / name).exists()}
    assert named and not gone, f"named, but not there: {sorted(gone)}"
