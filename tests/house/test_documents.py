"""The documents stay short enough to be read, their links lead somewhere, and their commands exist."""

from __future__ import annotations

import re

from package_source import ROOT

DOCS = ROOT / "docs"
NOTES = DOCS / "measurements"
BENCHES = ROOT / "scripts" / "benches"
DOCUMENTS = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]

MOST_DECISION_BYTES = 15_000
MOST_README_BYTES = 8_000
MOST_RELEASE_LINES = 30
MOST_EXPECTED_ROWS = 20

LINK = re.compile(r"\]\(([^)\s]+)\)")
BENCH = re.compile(r"scripts/bench\s+([a-z][a-z-]*)((?:\s+--[a-z-]+(?:\s+[\w.:]+)*)*)")
OUTSIDE = ("http://", "https://", "mailto:")


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def links(text: str) -> list[str]:
    return [target for target in LINK.findall(text) if not target.startswith(OUTSIDE)]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to headings."""
    heads = [line.lstrip("#").strip().lower() for line in text.splitlines() if line.startswith("#")]
    return {re.sub(r"[^\w\- ]", "", head).replace(" ", "-") for head in heads}


def test_the_readmes_are_short_and_say_the_same():
    pages = [ROOT / "README.md", ROOT / "README.zh.md"]
    assert all(page.stat().st_size <= MOST_README_BYTES for page in pages)
    texts = [page.read_text(encoding="utf-8") for page in pages]
    assert [len(re.findall("^## ", text, re.M)) for text in texts] == [len(re.findall("^## ", texts[0], re.M))] * 2
    ours = [{target for target in links(text) if target.startswith("docs/")} for text in texts]
    of_one = {"docs/images/page.png", "docs/images/page-phone.png", "docs/index.md", "docs/zh/index.md"}
    assert ours[0] ^ ours[1] <= of_one


def test_decisions_are_short():
    assert (DOCS / "decisions.md").stat().st_size <= MOST_DECISION_BYTES


def test_a_release_is_told_in_a_few_lines():
    releases = text_of("CHANGELOG.md").split("\n## ")[1:]
    assert releases and all(len(release.splitlines()) <= MOST_RELEASE_LINES for release in releases)


def test_measurements_begin_with_what_to_expect():
    lines = text_of("docs/measurements.md").partition("\n## Every")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][1:]
    assert 10 <= len(rows) <= MOST_EXPECTED_ROWS
    bad = [row for row in rows if not (row[2].startswith("`") and re.fullmatch(r"20\d\d-\d\d-\d\d", row[3]))]
    assert not bad, "each has its command and its date"


def test_every_link_leads_somewhere():
    gone = []
    for page in DOCUMENTS:
        for target in links(page.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            place = (page.parent / path) if path else page
            if not place.exists() or (anchor and anchor not in anchors(place.read_text(encoding="utf-8"))):
                gone.append(f"{page.relative_to(ROOT)}: {target}")
    assert not gone


def test_every_benchmark_has_its_page_and_every_page_its_link():
    pages = {path.stem for path in NOTES.glob("*.md")}
    names = {path.stem.replace("_", "-") for path in BENCHES.glob("*.py") if "record.write(" in path.read_text()}
    names |= {name for path in BENCHES.glob("*.py") for name in re.findall(r'^NAME = "(.+)"$', path.read_text(), re.M)}
    assert names and names <= pages, f"no page for {sorted(names - pages)}"
    linked = {target.removeprefix("measurements/") for target in links(text_of("docs/measurements.md"))}
    assert {f"{page}.md" for page in pages} <= linked


def test_benchmarks_that_are_named_exist_with_their_options():
    known = "".join(path.read_text(encoding="utf-8") for path in (BENCHES / "measuring").glob("*.py"))
    wrong, found = [], 0
    for page in DOCUMENTS:
        for name, options in BENCH.findall(page.read_text(encoding="utf-8")):
            script = BENCHES / f"{name.replace('-', '_')}.py"
            own = script.read_text(encoding="utf-8") if script.is_file() else ""
            flags = re.findall(r"--[a-z-]+", options)
            found += 1
            if not own or any(f'"{flag}"' not in own + known for flag in flags):
                wrong.append(f"{page.relative_to(ROOT)}: {name} {options}")
    assert found > 20 and not wrong
