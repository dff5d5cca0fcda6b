"""The maps are true: a newcomer finds every module, and nothing that is not there."""

from __future__ import annotations

import re

from package_source import PACKAGE, ROOT, modules

STRUCTURE = ROOT / "docs" / "structure.md"
README = ROOT / "README.md"


def named_files(text: str) -> set[str]:
    """Paths in backquotes at the start of a list line, such as "- `nn/rope.py`"."""
    return set(re.findall(r"^\s*[-*] `([\w/]+\.py)`", text, flags=re.MULTILINE))


def test_structure_has_a_sentence_for_every_module():
    # A package's own file needs a sentence only where it says something.
    needed = {m.path.relative_to(PACKAGE).as_posix() for m in modules().values() if m.path.stat().st_size > 1}
    named = named_files(STRUCTURE.read_text())
    allowed = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    assert not needed - named, f"without a sentence in docs/structure.md: {sorted(needed - named)}"
    assert not named - allowed, f"in docs/structure.md, but not there: {sorted(named - allowed)}"


def test_readme_maps_every_part():
    section = README.read_text().partition("## Where things are")[2].partition("\n## ")[0]
    text = set(re.findall(r"`([\w./-]+)`", section))
    parts = {f"src/framewake/{p.name}/" for p in PACKAGE.iterdir() if p.is_dir() and any(p.glob("*.py"))}
    parts |= {f"src/framewake/{p.name}" for p in PACKAGE.glob("*.py")}
    assert not parts - text, f"not in the README's map: {sorted(parts - text)}"
    gone = {path for path in text if "/" in path and not (ROOT / path).exists()}
    assert not gone, f"in the README's map, but not there: {sorted(gone)}"


def test_scripts_named_in_the_documents_exist():
    documents = [README, ROOT / "CONTRIBUTING.md", STRUCTURE, *(ROOT / "docs").glob("*.md")]
    named = {name for path in documents for name in re.findall(r"\bscripts/(\w+)", path.read_text())}
    gone = {name for name in named if not (ROOT / "scripts" / name).exists()}
    assert named and not gone, f"named, but not there: {sorted(gone)}"
