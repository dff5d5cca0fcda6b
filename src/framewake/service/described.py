"""What the API says of itself: its OpenAPI description with examples, and the page /docs, which works offline."""

from __future__ import annotations

import base64
import importlib.resources
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import fastapi_offline
from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.openapi.utils import get_openapi
from fastapi.responses import FileResponse, HTMLResponse
from PIL import Image, ImageDraw
from starlette.routing import BaseRoute

from framewake import __version__
from framewake.service.fields import FormVideo, JsonVideo

DESCRIPTION = """
One picture and one prompt become a video. A video is a job: `POST /v1/videos` puts it into the queue, `GET
/v1/videos/{video_id}` tells how far it is, `GET /v1/videos/{video_id}/content` gives the file.

```
curl http://127.0.0.1:7860/v1/videos -F prompt="the red circle moves right" -F input_reference=@circle.png
curl http://127.0.0.1:7860/v1/videos/ID
curl -f -o clip.mp4 http://127.0.0.1:7860/v1/videos/ID/content
```

Every error has the same form: `{"error": {"message": ..., "type": ..., "code": ..., "param": ...}}`.
"""
# Only these are handed out; the folder holds more.
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
# Whatever the description says: nothing runs and nothing is asked for from another host.
POLICY = (
    "default-src 'none'; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)


def example_picture() -> str:
    """A red circle on white as a data URL, small enough to be read over."""
    image = Image.new("P", (96, 64))
    image.putpalette([255, 255, 255, 220, 30, 30])
    ImageDraw.Draw(image).ellipse((10, 16, 42, 48), fill=1)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", bits=1, optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


EXAMPLE: dict[str, Any] = {
    "prompt": "the red circle moves right",
    "input_reference": example_picture(),
    "resolution": "360p",
    "num_frames": 33,
    "seed": 7,
}
EXAMPLE_VIDEO: dict[str, Any] = {
    "id": "video_2f9d4c0a6b1e4f7d8a3c5e7b9d1f3a5c",
    "object": "video",
    "model": "framewake demonstration",
    "status": "in_progress",
    "progress": 45,
    "stage": "denoise",
    "step": 12,
    "num_inference_steps": 24,
    "seconds_left": 6.2,
    "queue_position": None,
    "draft": None,
    "pauses_after": 15,
    "created_at": 1767225600,
    "started_at": 1767225601,
    "completed_at": None,
    "expires_at": None,
    "prompt": EXAMPLE["prompt"],
    "negative_prompt": None,
    "size": "96x64",
    "resolution": "360p",
    "seconds": "2.75",
    "num_frames": 33,
    "fps": 12.0,
    "seed": 7,
    "guidance_scale": 6.0,
    "true_cfg_scale": 1.0,
    "flow_shift": 7.0,
    "stability": True,
    "lora": [],
    "notes": ["picture: it is transparent in places: white lies under it (background takes another)."],
    "error": None,
    "remixed_from_video_id": None,
}
EXAMPLE_ERROR: dict[str, Any] = {
    "error": {
        "message": "num_frames is 2000: expected less than or equal to 1025.",
        "type": "invalid_request_error",
        "code": "invalid_request",
        "param": "num_frames",
    }
}


def describe(routes: Sequence[BaseRoute], has_keys: bool, root: str) -> dict[str, Any]:
    """The OpenAPI description with both kinds of body, of a server under the path ``root``."""
    servers = [{"url": root}] if root else None
    made = get_openapi(title="framewake", version=__version__, description=DESCRIPTION, routes=routes, servers=servers)
    schemas = made["components"]["schemas"]
    for model in (JsonVideo, FormVideo):
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("$defs", {}))
        schemas[model.__name__] = schema
    schemas["JsonVideo"]["examples"] = [EXAMPLE]
    schemas["Video"]["examples"] = [EXAMPLE_VIDEO]
    schemas["ErrorBody"]["examples"] = [EXAMPLE_ERROR]
    for name in ("prompt", "resolution", "num_frames", "seed"):
        schemas["FormVideo"]["properties"][name]["examples"] = [EXAMPLE[name]]
    if has_keys:
        made["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"key": []}]
    return made


def add_docs(app: FastAPI) -> None:
    """The page /docs with its script and style, all from here; addresses are relative, for servers on a sub-path."""
    folder = Path(str(importlib.resources.files(fastapi_offline))) / "static"

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url="openapi.json",
            title="framewake",
            swagger_js_url="docs/swagger-ui-bundle.js",
            swagger_css_url="docs/swagger-ui.css",
            swagger_favicon_url="data:,",
            # Else it would ask a foreign host whether the description is valid.
            swagger_ui_parameters={"validatorUrl": None, "tryItOutEnabled": True},
        )
        page.headers["Content-Security-Policy"] = POLICY
        return page

    for name, media in ASSETS.items():
        _add_asset(app, folder / name, media)


def _add_asset(app: FastAPI, path: Path, media: str) -> None:
    @app.get(f"/docs/{path.name}", include_in_schema=False)
    def asset() -> FileResponse:
        return FileResponse(path, media_type=media, headers={"X-Content-Type-Options": "nosniff"})
