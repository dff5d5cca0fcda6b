"""What a person should know of a request before it is made, the same at every door because all ask here."""

from __future__ import annotations

from collections.abc import Iterator

from framewake.media.picture import Loaded
from framewake.pipeline.condition import TextReader
from framewake.pipeline.domain import domain_note
from framewake.request import Request


def notes_of(request: Request, picture: Loaded | None, reader: TextReader) -> Iterator[str]:
    """Sentences about a request and its picture; a new one belongs here, and reaches commands, API and page."""
    if picture is not None:
        yield from picture.notes
    warning = domain_note(reader.checkpoint.settings, None if picture is None else picture.image, request.prompt)
    if warning is not None:
        yield warning
    yield from reader.tokens(request.prompt).notes()
