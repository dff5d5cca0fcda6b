"""What may be handed in as input_reference: transparent pictures, clips, and kinds that are refused by name."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from framewake.demo import PICTURES
from framewake.media.video import write_video
from framewake.service.storage import PICTURE

SHIPPED = PICTURES / "red-circle.png"
FIELDS = {"prompt": "the red circle moves right", "num_frames": 5, "num_inference_steps": 2, "resolution": "360p"}


def post(client, data, **fields):
    files = {"input_reference": ("picture", data, "application/octet-stream")}
    return client.post("/v1/videos", data={key: str(value) for key, value in (FIELDS | fields).items()}, files=files)


def clip_bytes(tmp_path, height=96, width=64):
    frames = np.zeros((20, height, width, 3), np.uint8)
    frames[..., 0] = np.arange(20)[:, None, None] * 12
    return write_video(tmp_path / "a.mp4", frames, fps=24, metadata=None).read_bytes()


def test_a_clip_is_taken_with_its_frame(client, desk, tmp_path):
    answer = post(client, clip_bytes(tmp_path), first_frame="true", background="#102030")
    assert answer.status_code == 200, answer.text
    assert "picture: it is moving: its first frame is taken." in answer.json()["notes"]
    row = desk.store.get(answer.json()["id"], None)
    request = json.loads(row.request)
    assert (request["takes_first_frame"], request["background"]) == (True, "#102030")


def test_a_moving_picture_and_a_transparent_one(client):
    content = io.BytesIO()
    frames = [Image.new("RGBA", (32, 32), (index, 9, 9, 90)) for index in (0, 200)]
    frames[0].save(content, "WEBP", save_all=True, append_images=frames[1:])
    assert post(client, content.getvalue()).status_code == 200


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0\0\0\x18ftypcrx \0\0\0\0crx isom", "a camera's raw picture"),
        (b"\xff\x0a" + bytes(50), "JPEG XL"),
        (b"<!DOCTYPE html><html>", "a web page (HTML)"),
        (b"\x1a\x45\xdf\xa3" + bytes(50), "damaged"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isomavc1", "damaged"),
        (b"GIF89a\x08\0\x08\0\0\0\0", "damaged"),
    ],
)
def test_what_is_not_read_is_refused_by_name(client, data, words):
    answer = post(client, data)
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]


def test_a_clip_of_too_many_pixels(client, desk, tmp_path):
    object.__setattr__(desk.limits, "pixels", 1000)
    assert post(client, clip_bytes(tmp_path)).status_code == 413


def test_a_crop_is_kept_with_the_video(client, desk, picture):
    kept = [
        json.loads(desk.store.get(post(client, picture, **given).json()["id"], None).request)
        for given in ({"crop": "0,1"}, {"crop": "fit"}, {"crop": "0.5,0.5"}, {})
    ]
    assert [each.get("crop") for each in kept] == ["0,1", "fit", None, None]
    for wrong in ("0.5", "0,2", "nan,0", "left,top", "fit,0"):
        answer = post(client, picture, crop=wrong)
        assert answer.status_code == 422 and answer.json()["error"]["param"] == "crop"


def test_a_background_that_is_no_colour(client, picture):
    answer = post(client, picture, background="whiteish")
    assert answer.status_code == 422
    assert answer.json()["error"]["param"] == "background"


def test_the_picture_that_ships_is_taken_by_its_name(client, desk):
    def send(name):
        return client.post(
            "/v1/videos", files={key: (None, str(v)) for key, v in (FIELDS | {"input_reference": name}).items()}
        )

    for answer in (send("demo/red-circle"), client.post("/v1/videos", json={**FIELDS, "image": "demo/red-circle"})):
        assert answer.status_code == 200, answer.text
        assert (desk.storage.job(answer.json()["id"]) / PICTURE).read_bytes() == SHIPPED.read_bytes()
    assert send("demo/other").status_code == 422
