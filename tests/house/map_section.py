"""The module list of docs/structure.md, made from the first sentences of docstrings; scripts/fmt writes it."""

from __future__ import annotations

import ast

from package_source import ROOT, Module, modules, place_of

PAGE = ROOT / "docs" / "structure.md"
BEGIN, END = "## Every module\n", "## Benchmarks\n"
INTRODUCTION = (
    "Paths are below `src/framewake/`; `demonstration/` lies beside `src/`. `scripts/fmt` writes this section from "
    "docstrings.\n"
)
# From the ground up; what is not named comes at the end.
ORDER = ("", "console", "engine", "nn", "models", "weights", "sampling", "text", "media", "pipeline", "golden", "train")


def page() -> str:
    """docs/structure.md with the list as it should be."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return before + BEGIN + "\n" + section() + "\n" + END + after


def section() -> str:
    """A heading for each folder, and a line for each of its files."""
    folders: dict[str, list[Module]] = {}
    for module in modules().values():
        folders.setdefault(place_of(module.path).parent.as_posix().strip("."), []).append(module)
    return "\n".join([INTRODUCTION, *(_folder(name, folders[name]) for name in sorted(folders, key=_place))])


def first_sentence(module: Module) -> str:
    """The first paragraph of the file's docstring, on one line; nothing where there is none."""
    paragraph = (ast.get_docstring(module.tree) or "").partition("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "`")


def _place(folder: str) -> tuple[int, str]:
    part = folder.partition("/")[0]
    return (ORDER.index(part) if part in ORDER else len(ORDER), folder)


def _folder(name: str, found: list[Module]) -> str:
    own = next(module for module in found if module.path.name == "__init__.py")
    title = f"### `{name}/`" if name else "### Leaves: anyone may import them"
    files = [module for module in found if module is not own or not name]
    lines = [f"- `{place_of(m.path).as_posix()}`: {first_sentence(m)}" for m in files]
    return "\n".join([title, "", *([first_sentence(own), ""] if name else []), *lines, ""])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
