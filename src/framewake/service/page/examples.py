"""What a newcomer can click: the picture that ships, with prompts that the demonstration follows."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import FileResponse

from framewake.demo import PICTURES

PROMPTS = ("the red circle moves right", "the red circle grows", "the red circle bounces")


def add_examples(app: FastAPI) -> None:
    """A route of the page's own, beside the API's."""

    @app.get("/page/example", include_in_schema=False)
    def example() -> FileResponse:
        return FileResponse(PICTURES / "red-circle.png", media_type="image/png")
