"""What a person should know of a request before it is made, the same at every door because all ask here."""

from __future__ import annotations

from collections.abc import Iterator

from framewake.media.picture import Loaded
from framewake.pipeline.condition import TextReader
from framewake.pipeline.domain import domain_note
from framewake.request import NO_SCALE, Request
from framewake.weights.checkpoint.load import Checkpoint


def notes_of(request: Request, picture: Loaded | None, reader: TextReader) -> Iterator[str]:
    """Sentences about a request and its picture; a new one belongs here, and reaches commands, API and page."""
    if picture is not None:
        yield from picture.notes
    warning = domain_note(reader.checkpoint.settings, None if picture is None else picture.image, request.prompt)
    if warning is not None:
        yield warning
    yield from _idle_notes(request, reader.checkpoint)
    yield from reader.tokens(request.prompt).notes()


def idle_settings(checkpoint: Checkpoint) -> dict[str, str]:
    """Settings that change nothing in the clips of a checkpoint, each with the sentence that says so."""
    dit, found = checkpoint.dit, {}
    if not dit.has_guidance or checkpoint.settings.is_demo:  # the demonstration has the layers, and no use for them
        found["embedded_guidance"] = (
            "the embedded guidance changes nothing: this transformer was not distilled with one."
        )
    if not dit.mixes_picture:
        found["is_stable"] = "stable or dynamic changes nothing: this model starts every clip from noise alone."
    return found


def _idle_notes(request: Request, checkpoint: Checkpoint) -> Iterator[str]:
    for name, sentence in idle_settings(checkpoint).items():
        if getattr(request, name) != getattr(Request, name):
            yield sentence
    scale = request.guidance_scale
    if request.negative_prompt and scale is not None and scale <= NO_SCALE:
        yield f"the negative prompt is not used: the guidance scale is {scale:g}, and it counts above 1."
