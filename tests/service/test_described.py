"""What the API says of itself: the page /docs without internet, examples that work, and tables that follow the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

from framewake.errors import HTTP_STATUS
from framewake.service.described import ASSETS, EXAMPLE, EXAMPLE_ERROR, EXAMPLE_VIDEO
from framewake.service.dialects import ENVELOPES, IDLE, SAME
from framewake.service.fields import JsonVideo
from framewake.service.routes import ERRORS
from framewake.service.views import ErrorBody, Video

PAGE = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")


def test_the_page_of_the_api_needs_nothing_from_elsewhere(client):
    page = client.get("/docs")
    assert page.status_code == 200 and not re.findall(r'(?:src|href)="(?:https?:)?//', page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for name, media in ASSETS.items():
        asset = client.get(f"/docs/{name}")
        assert asset.status_code == 200 and asset.headers["content-type"].startswith(media)
        assert f'"docs/{name}"' in page.text
    assert client.get("/redoc").status_code == 404
    assert client.get("/docs/redoc.standalone.js").status_code == 404


def test_the_example_is_taken(client):
    answer = client.post("/v1/videos", json=EXAMPLE)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == EXAMPLE_VIDEO.keys(), "the sample answer lacks a field, or has one too many"
    Video.model_validate(EXAMPLE_VIDEO)
    answer = client.post("/v1/videos", json=EXAMPLE | {"num_frames": 2000})
    assert answer.json() == EXAMPLE_ERROR and ErrorBody.model_validate(EXAMPLE_ERROR)


def test_examples_are_in_the_description(client):
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    assert schemas["JsonVideo"]["examples"] == [EXAMPLE] and schemas["Video"]["examples"] == [EXAMPLE_VIDEO]


def test_no_endpoint_promises_plain_text_for_an_error(client):
    for path, methods in client.get("/openapi.json").json()["paths"].items():
        for method in methods.values():
            for status, response in method["responses"].items():
                if int(status) >= 400 and path != "/health":
                    assert set(response["content"]) == {"application/json"}, (path, status)


def field_rows():
    """The rows of the table of fields in docs/service.md."""
    others = {**SAME, "size": ("width and height",)}
    for name, field in JsonVideo.model_fields.items():
        names = ", ".join(
            f"`{other}`" if " " not in other else "`width` and `height`" for other in others.get(name, ())
        )
        yield f"| `{name}` | {field.description} | {names} |"


def test_the_table_of_fields_follows_the_code():
    assert not [row for row in field_rows() if row not in PAGE], "docs/service.md lacks these rows"


def test_every_status_is_in_the_table_of_errors():
    told = {int(found) for found in re.findall(r"^\| (\d{3}) \|", PAGE, re.MULTILINE)}
    assert told == {*ERRORS, *HTTP_STATUS.values()}


def test_the_answer_in_the_docs_is_one():
    found = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
    bodies = [json.loads(text) for text in found]
    assert EXAMPLE_VIDEO in bodies and EXAMPLE_ERROR in bodies
    for name in (*IDLE, *ENVELOPES):
        assert f"`{name}`" in PAGE
