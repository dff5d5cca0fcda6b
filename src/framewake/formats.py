"""What happens to a kind of file: the form of a row of docs/formats.md.

Rows stand as data beside the code that decides them; ``scripts/formats`` puts them on the page.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Handling = Literal["read", "converted", "refused"]


class Format(NamedTuple):
    """One kind of file: what people call it, what becomes of it, and how it is told apart or what the way out is.

    ``handling``: "converted" is what is read and becomes something else on the way, such as another number type.
    """

    name: str
    handling: Handling
    why: str
