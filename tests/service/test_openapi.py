"""The OpenAPI description holds: schemathesis asks every endpoint for what it promises."""

from __future__ import annotations

import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance
from test_api import post

EXAMPLES = 15
HEADERS = {"Host": "localhost"}


def test_the_description_names_every_field(client):
    described = client.get("/openapi.json").json()
    body = described["paths"]["/v1/videos"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    fields = set(described["components"]["schemas"]["JsonVideo"]["properties"])
    promised = "prompt input_reference size seconds num_frames fps seed num_inference_steps guidance_scale flow_shift "
    promised += "stability resolution lora negative_prompt callback_url"
    assert set(promised.split()) <= fields
    assert fields == set(described["components"]["schemas"]["FormVideo"]["properties"])


def test_answers_are_as_described(client, desk, picture):
    desk.presence.dead_seconds = 3600.0  # asking takes minutes on a busy machine
    desk.presence.beat("elsewhere:1:ab", model="toy", engine="torch:cpu")  # a server without a worker says 503
    made = post(client, picture).json()["id"]
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app, headers=HEADERS)
    asked = set()
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.path.endswith("/events"):
            continue  # a stream that ends with its video
        asked.add(f"{operation.method} {operation.path}")
        ask(operation, made)
    assert len(asked) >= 8, asked


def ask(operation, made):
    """A few examples of one operation. A schema cannot say that a picture is a picture, so 422 may always come."""

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy())
    def one(case):
        if case.path_parameters and operation.method == "get":
            case.path_parameters["video_id"] = made
        case.call_and_validate(headers=HEADERS, excluded_checks=[positive_data_acceptance])

    one()
