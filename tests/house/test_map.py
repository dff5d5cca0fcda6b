"""The maps are true: a newcomer finds every module, and nothing that is not there."""

from __future__ import annotations

import re

from map_section import first_sentence, page
from package_source import PACKAGE, ROOT, modules

STRUCTURE = ROOT / "docs" / "structure.md"
README = ROOT / "README.md"


def test_structure_lists_every_module_as_its_docstring_says():
    assert STRUCTURE.read_text(encoding="utf-8") == page(), "write it again with scripts/fmt"


def test_every_module_says_what_it_is():
    silent = [module.name for module in modules().values() if not first_sentence(module).endswith(".")]
    assert not silent, f"the first paragraph of the docstring is one sentence: {silent}"


def test_readme_maps_every_part():
    section = README.read_text().partition("## Where things are")[2].partition("\n## ")[0]
    text = set(re.findall(r"`([\w./-]+)`", section))
    parts = {f"src/framewake/{p.name}/" for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    parts |= {f"src/framewake/{p.name}" for p in PACKAGE.glob("*.py")} | {"demonstration/"}
    assert not parts - text, f"not in the README's map: {sorted(parts - text)}"
    gone = {path for path in text if "/" in path and not (ROOT / path).exists()}
    assert not gone, f"in the README's map, but not there: {sorted(gone)}"


def test_scripts_named_in_the_documents_exist():
    documents = [README, ROOT / "CONTRIBUTING.md", STRUCTURE, *(ROOT / "docs").glob("*.md")]
    named = {name for path in documents for name in re.findall(r"\bscripts/(\w+)", path.read_text())}
    gone = {name for name in named if not (ROOT / "scripts" / name).exists()}
    assert named and not gone, f"named, but not there: {sorted(gone)}"
