"""docs/formats.md, made from the rows that stand beside the code that decides; scripts/formats writes it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from framewake.formats import Format
from framewake.media import kinds
from framewake.weights.lora import rows as lora
from framewake.weights.reading import containers, scales

PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
HEAD = """# Formats

What is read, what is converted on the way, and what is refused with the way out. Every row stands in the program beside
the code that decides, and `scripts/formats` writes this page from them: change the row there.
"""
# Title, and the rows of the module that decides.
SECTIONS: tuple[tuple[str, Iterable[Format]], ...] = (
    ("Files with weights, by their first bytes", containers.rows()),
    ("Weights in eight bits and fewer", scales.rows()),
    ("Pictures and clips, by their first bytes", kinds.rows()),
    ("LoRAs", lora.rows()),
)


def page() -> str:
    """The whole page."""
    return "\n".join([HEAD, *(_section(title, rows) for title, rows in SECTIONS)])


def _section(title: str, rows: Iterable[Format]) -> str:
    lines = [f"| {_cell(row.name)} | {row.handling} | {_cell(row.why)} |" for row in rows]
    return "\n".join([f"## {title}", "", "| what | | |", "|---|---|---|", *lines, ""])


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
