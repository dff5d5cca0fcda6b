"""Fields of other servers' clients: what has a meaning is taken, the rest is answered by name."""

from __future__ import annotations

import base64
import json

import pytest
from test_api import data_url

from framewake.service.fields import FIELD_OF, PARAM_OF, JsonVideo

PROMPT = "the red circle moves left"


def post_json(client, picture, **fields):
    given = {"prompt": PROMPT, "input_reference": data_url(picture), **fields}
    return client.post("/v1/videos", json={name: value for name, value in given.items() if value is not ...})


def post_form(client, picture, name="input_reference", **fields):
    files = {} if picture is None else {name: ("x.png", picture)}
    return client.post("/v1/videos", data={"prompt": PROMPT, **fields}, files=files)


def request_in(desk, answer):
    assert answer.status_code == 200, answer.text
    return json.loads(desk.store.get(answer.json()["id"]).request)


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"width": "1280", "height": "720"}, {"resolution": "720p"}),
        ({"width": "64", "height": "64", "size": "64x64"}, {"resolution": "360p"}),
        ({"size": "1280*720"}, {"resolution": "720p"}),
        ({"size": "540p"}, {"resolution": "540p"}),
        ({"resolution": "540P"}, {"resolution": "540p"}),
        ({"resolution": "1280x720"}, {"resolution": "720p"}),
        ({"seconds": "2", "fps": "16"}, {"frames": 33, "fps": 16.0}),
        ({"seconds": "2", "fps": "16", "num_frames": "33"}, {"frames": 33}),
        ({"duration": "0.5", "frame_rate": "8"}, {"frames": 5, "fps": 8.0}),
        ({"video_length": "9", "infer_steps": "3"}, {"frames": 9, "steps": 3}),
        ({"user": "me", "n": "1", "stream": "false", "response_format": "mp4"}, {}),
        ({"generate_sound": "false", "enable_teacache": "False", "generator_device": "cuda"}, {}),
        ({"extra_params": '{"num_inference_steps": 3, "flow_shift": 5}'}, {"steps": 3, "flow_shift": 5.0}),
        ({"extra_body[seed]": "7"}, {"seed": 7}),
        ({"num_frames": "5", "frames": "5"}, {"frames": 5}),
        ({"model": "somebody/Toy"}, {}),
        ({"negative_prompt": ""}, {"negative_prompt": None}),
    ],
)
def test_forms_of_other_clients(client, desk, picture, fields, want):
    request = request_in(desk, post_form(client, picture, **fields))
    assert {name: request[name] for name in want} == want


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"width": 1280, "height": 720}, {"resolution": "720p"}),
        ({"extra_body": {"num_frames": 9, "guidance_scale": 4}}, {"frames": 9, "embedded_guidance": 4.0}),
        ({"extra_params": None, "lora": None, "n": 1, "size": ""}, {}),
        ({"seconds": 4, "fps": 24}, {"frames": 97}),
        ({"seed": 0}, {"seed": 0}),
    ],
)
def test_json_of_other_clients(client, desk, picture, fields, want):
    request = request_in(desk, post_json(client, picture, **fields))
    assert {name: request[name] for name in want} == want


def test_any_seed_is_a_drawn_one(client, desk, picture):
    assert request_in(desk, post_json(client, picture, seed=-1))["seed"] >= 0
    assert request_in(desk, post_form(client, picture, seed="-1"))["seed"] >= 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda url: {"image": url},
        lambda url: {"image_url": url},
        lambda url: {"image_url": {"url": url, "detail": "auto"}},
        lambda url: {"input_references": [{"image_url": url}]},
        lambda url: {"input_reference": {"type": "image_url", "image_url": {"url": url}}},
        lambda url: {"input_reference": url.partition(",")[2]},
        lambda url: {"first_frame_image": json.dumps({"image_url": url})},
        lambda url: {"extra_body": {"image_reference": {"image_url": url}}},
        lambda url: {"image": url, "input_reference": url},
    ],
)
def test_a_picture_in_any_form(client, desk, picture, wrap):
    answer = post_json(client, picture, **({"input_reference": ...} | wrap(data_url(picture))))
    assert request_in(desk, answer)["image"] == "picture"
    assert (desk.storage.job(answer.json()["id"]) / "picture").read_bytes() == picture


@pytest.mark.parametrize("name", ["image", "input_references[]", "input_references[0]", "image_file", "init_image"])
def test_a_picture_as_a_file_under_other_names(client, desk, picture, name):
    answer = post_form(client, picture, name=name)
    if name == "image_file":
        assert answer.status_code == 422 and "Did you mean 'image" in answer.json()["error"]["message"]
    else:
        assert (desk.storage.job(answer.json()["id"]) / "picture").read_bytes() == picture


def test_fields_in_brackets(client, desk, picture):
    def send(**fields):
        given = {"prompt": PROMPT, "input_reference[image_url]": data_url(picture), **fields}
        return client.post("/v1/videos", files={name: (None, value) for name, value in given.items()})

    assert request_in(desk, send())["image"] == "picture"
    for name in ("lora[0][name]", "lora[][name]", "lora[name]"):
        error = send(**{name: "style", name.replace("[name]", "[scale]"): "0.5"}).json()["error"]
        assert error["param"] == "lora" and "no LoRA 'style'" in error["message"], error
    for name in ("seed[", "seed[a]b", "seed[a][b][c][d][e]", "lora[x][name]"):
        assert send(**{name: "1"}).status_code == 422


# What is sent beside a usable body, the field that is blamed, and words of the answer.
REFUSED = [
    ({"imag": "x"}, "imag", "Did you mean 'image'?"),
    ({"nothing_of_the_kind": 1}, "nothing_of_the_kind", "Known are: prompt, "),
    ({"n": 2}, "n", "one request makes one video"),
    ({"response_format": "b64_json"}, "response_format", "content endpoint"),
    ({"stream": True}, "stream", "events endpoint"),
    ({"generate_audio": True}, "generate_audio", "nothing of the kind"),
    ({"aspect_ratio": "16:9"}, "aspect_ratio", "own shape"),
    ({"guidance_scale_2": 3}, "guidance_scale_2", "one transformer"),
    ({"cfg_scale": 3}, "cfg_scale", "true_cfg_scale"),
    ({"width": 832}, "height", "width was sent without height"),
    ({"width": 832, "height": "tall"}, "height", "whole number of pixels"),
    ({"width": 832, "height": 480, "size": "1280x720"}, "size", "different things"),
    ({"size": "1280x720", "resolution": "360p"}, "resolution", "send resolution or size"),
    ({"seconds": 4, "num_frames": 5}, "num_frames", "send num_frames or seconds"),
    ({"frames": 9, "num_frames": 5}, "num_frames", "different things (9 and 5)"),
    ({"seed": 3, "extra_body": {"seed": 4}}, "seed", "different things"),
    ({"extra_body": {"extra_params": {}}}, "extra_params", "no such field"),
    ({"extra_params": [1]}, "extra_params", "an object of fields"),
    ({"extra_params": "{"}, "extra_params", "must be JSON"),
    ({"size": "large"}, "size", "width x height"),
    ({"size": "00x00"}, "size", "width x height"),
    ({"size": 5}, "size", "expected text"),
    ({"resolution": "480p"}, "resolution", "take 720p, 540p, 360p, or a checkpoint for 480p"),
    ({"resolution": "8k"}, "resolution", "choose one of"),
    ({"prompt": ""}, "prompt", "the prompt is empty"),
    ({"prompt": "  "}, "prompt", "the prompt is empty"),
    ({"prompt": ...}, "prompt", "the prompt is empty"),
    ({"prompt": 7}, "prompt", "prompt is 7: expected a valid string"),
    ({"num_frames": 10}, "num_frames", "nearest is 9"),
    ({"num_frames": 2000}, "num_frames", "num_frames is 2000: expected less than or equal to 1025."),
    ({"num_inference_steps": 0}, "num_inference_steps", "num_inference_steps is 0"),
    ({"fps": "fast"}, "fps", "fps is 'fast': expected"),
    ({"cache": "often"}, "cache", "cache is 'often'"),
    ({"precision": "float8"}, "precision", "choose one of"),
    ({"seconds": "soon"}, "seconds", "expected a number"),
    ({"seconds": True}, "seconds", "seconds is True: expected"),
    ({"seconds": 0}, "seconds", "above 0, for at most 1025 frames"),
    ({"guidance_scale": 101}, "guidance_scale", "guidance_scale is 101"),
    ({"true_cfg_scale": 101}, "true_cfg_scale", "true_cfg_scale is 101"),
    ({"negative_prompt": "a\0b"}, "negative_prompt", "zero byte"),
    ({"model": "sora-2"}, "model", "this server has"),
    ({"lora": [{"name": "x", "scale": 11}]}, "lora", "lora.0.scale is 11"),
    ({"lora": [{"name": "x", "path": "/x"}]}, "lora", "lora.0.path: there is no such field"),
    ({"lora": [{"name": "x"}] * 9}, "lora", "holds too many"),
    ({"input_reference": ...}, "input_reference", "input_reference is missing"),
    ({"input_reference": "cat.png"}, "input_reference", "A path on your machine"),
    ({"input_reference": "https://example.com/a.png"}, "input_reference", "fetches no pictures"),
    ({"input_reference": {"file_id": "file-1"}}, "input_reference", "no files are kept here"),
    ({"input_reference": {"address": "x"}}, "input_reference", "'address'"),
    ({"input_reference": []}, "input_reference", "0 pictures"),
    ({"input_reference": 5}, "input_reference", "is 5"),
    ({"image": ["a", "b"], "input_reference": ...}, "image", "2 pictures"),
    ({"image": "data:image/png;base64,AAAA"}, "input_reference", "two pictures"),
    ({"image": [[[[[["x"]]]]]], "input_reference": ...}, "image", "holds no picture"),
    ({"input_reference": "data:image/png;base64,////"}, "input_reference", "is not a picture"),
    ({"input_reference": "data:image/png;base64,%"}, "input_reference", "base64"),
    ({"input_reference": "data:image/png;base64,"}, "input_reference", "0 bytes"),
    ({"callback_url": "ftp://example.com/"}, "callback_url", "http"),
]


@pytest.mark.parametrize(
    ("fields", "param", "words"), REFUSED, ids=[json.dumps(each[0], default=str)[:40] for each in REFUSED]
)
def test_what_has_no_meaning_is_refused_by_name(client, desk, picture, fields, param, words):
    answer = post_json(client, picture, **fields)
    assert answer.status_code == 422, answer.text
    error = answer.json()["error"]
    assert (error["type"], error["code"], error["param"]) == ("invalid_request_error", "invalid_request", param)
    assert words in error["message"], error["message"]
    assert list((desk.storage.folder / "jobs").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"), [("size", "must be text"), ("mask", "one picture"), ("attachment", "no such field")]
)
def test_a_file_in_a_field_of_another_kind(client, picture, name, words):
    error = post_form(client, picture, name=name).json()["error"]
    assert error["param"] == name and words in error["message"]


def test_a_field_of_a_form_that_comes_twice(client, picture):
    body = [("prompt", (None, "a")), ("prompt", (None, "b")), ("input_reference", ("x.png", picture))]
    error = client.post("/v1/videos", files=body).json()["error"]
    assert error["param"] == "prompt" and "twice" in error["message"]


@pytest.mark.parametrize("video", ["video_" + "0" * 32, "video_123", "x", "video_%00", "VIDEO_" + "0" * 32])
@pytest.mark.parametrize(
    ("method", "tail"), [("GET", ""), ("DELETE", ""), ("GET", "/content"), ("GET", "/events"), ("POST", "/retry")]
)
def test_an_unknown_id_is_404(client, method, tail, video):
    answer = client.request(method, f"/v1/videos/{video}{tail}")
    assert answer.status_code == 404, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"], error["message"]) == ("not_found", "video_id", "there is no such video.")


def test_a_page_after_an_unknown_id_is_404(client):
    assert client.get("/v1/videos?after=nothing").status_code == 404


def test_every_setting_of_the_api_has_a_field():
    assert set(PARAM_OF.values()) <= set(JsonVideo.model_fields)
    assert set(FIELD_OF) < set(PARAM_OF)


def test_base64_is_not_taken_for_a_path(client, desk, picture):
    text = base64.encodebytes(picture).decode()  # in lines
    assert request_in(desk, post_json(client, picture, input_reference=text))["image"] == "picture"
