"""The API over HTTP, in this process: fields, states, files, pages, errors."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import threading

import numpy as np
import pytest
from PIL import Image
from test_worker import work_once

from framewake.request import Request
from framewake.service.storage import CLIP, PICTURE

FIELDS = {"prompt": "the red circle moves left", "resolution": "360p", "seed": 3}


def post(client, picture, **fields):
    files = None if picture is None else {"input_reference": ("../../etc/passwd", picture, "image/png")}
    return client.post("/v1/videos", data={name: str(value) for name, value in (FIELDS | fields).items()}, files=files)


def data_url(picture):
    return "data:image/png;base64," + base64.b64encode(picture).decode()


def test_a_form_becomes_a_job(client, desk, picture):
    answer = post(client, picture, num_frames=9, num_inference_steps=3, fps=8, stability="false", flow_shift=5.5)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["object"] == "video" and body["status"] == "queued" and body["queue_position"] == 1
    assert (body["num_frames"], body["fps"], body["seconds"], body["size"]) == (9, 8.0, "1.125", "64x64")
    request = json.loads(desk.store.get(body["id"]).request)
    want = {"frames": 9, "steps": 3, "fps": 8.0, "is_stable": False, "flow_shift": 5.5, "seed": 3, "image": PICTURE}
    assert {name: request[name] for name in want} == want
    assert (desk.storage.job(body["id"]) / PICTURE).read_bytes() == picture


@pytest.mark.parametrize("wrap", [lambda url: url, lambda url: {"image_url": url}])
def test_json_with_a_data_url(client, desk, picture, wrap):
    fields = FIELDS | {"guidance_scale": 4, "true_cfg_scale": 2.0, "negative_prompt": "blue", "stability": True}
    answer = client.post("/v1/videos", json=fields | {"input_reference": wrap(data_url(picture))})
    assert answer.status_code == 200, answer.text
    request = json.loads(desk.store.get(answer.json()["id"]).request)
    assert (request["embedded_guidance"], request["guidance_scale"], request["negative_prompt"]) == (4.0, 2.0, "blue")


@pytest.mark.parametrize(
    ("fields", "want"),
    [
        ({"size": "1280x720"}, {"resolution": "720p"}),
        ({"size": "64x64"}, {"resolution": "360p"}),
        ({"size": "1280x720", "resolution": "720p"}, {"resolution": "720p"}),
        ({"seconds": "1"}, {"frames": 13}),
        ({"seconds": "1.5", "fps": "8"}, {"frames": 13}),
        ({"seconds": "0.01"}, {"frames": 1}),
        ({"seconds": "0.4", "num_frames": "5"}, {"frames": 5}),
    ],
)
def test_size_and_length(client, desk, picture, fields, want):
    files = {"input_reference": ("x.png", picture)}
    answer = client.post("/v1/videos", data={"prompt": "x"} | fields, files=files)
    request = json.loads(desk.store.get(answer.json()["id"]).request)
    assert {name: request[name] for name in want} == want


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_frames": 6}, "nearest is 5"),
        ({"num_frames": "many"}, "num_frames"),
        ({"prompt": "  "}, "prompt is empty"),
        ({"resolution": "36p"}, "360p"),
        ({"size": "1x1"}, "size"),
        ({"seconds": "soon"}, "expected a number"),
        ({"model": "sora-2"}, "this server has 'toy'"),
        ({"guidance": 3}, "guidance"),
        ({"lora": '[{"name": "../../etc/passwd"}]'}, "no LoRA"),
        ({"lora": "style"}, "JSON"),
        ({"callback_url": "ftp://example.com/"}, "http"),
        ({"callback_url": "http://127.0.0.1:9/"}, "private"),
    ],
)
def test_a_bad_field_is_named(client, desk, picture, fields, words):
    answer = post(client, picture, **fields)
    assert answer.status_code == 422
    assert words in answer.json()["error"]["message"]
    assert list((desk.storage.folder / "jobs").iterdir()) == []


def damaged(picture):
    return picture[: len(picture) // 2]


def gif(_picture):
    buffer = io.BytesIO()
    frames = [Image.new("L", (64, 64), shade) for shade in (0, 99)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    return buffer.getvalue()[:-6]  # cut within its last frame


@pytest.mark.parametrize("change", [damaged, gif, lambda _: b"text", lambda _: b""])
def test_a_bad_picture_is_refused_without_paths(client, desk, picture, change):
    answer = post(client, change(picture))
    assert answer.status_code == 422, answer.text
    assert "/" not in answer.json()["error"]["message"].replace("and/or", "")
    assert list((desk.storage.folder / "jobs").iterdir()) == []


def test_no_picture(client):
    assert post(client, None).status_code in (415, 422)
    answer = client.post("/v1/videos", json={"prompt": "x"})
    assert answer.status_code == 422 and "animates a picture" in answer.json()["error"]["message"]


@pytest.mark.parametrize("body", [b"{", b"[1]", b"null", b"[" * 100_000, b'{"prompt": 7}'])
def test_json_that_is_none(client, body):
    answer = client.post("/v1/videos", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and answer.json()["error"]["type"] == "invalid_request_error"
    assert client.post("/v1/videos", content=body, headers={"content-type": "text/plain"}).status_code == 415


def test_a_finished_video(client, desk, worker_of, picture):
    job = post(client, picture).json()["id"]
    early = client.get(f"/v1/videos/{job}/content")
    assert early.status_code == 409 and "queued" in early.json()["error"]["message"]
    work_once(worker_of(desk))
    body = client.get(f"/v1/videos/{job}").json()
    assert (body["status"], body["progress"], body["queue_position"], body["error"]) == ("completed", 100, None, None)
    assert body["completed_at"] >= body["started_at"] >= body["created_at"]
    clip = (desk.storage.job(job) / CLIP).read_bytes()
    answer = client.get(f"/v1/videos/{job}/content")
    assert answer.content == clip and answer.headers["content-type"] == "video/mp4"
    part = client.get(f"/v1/videos/{job}/content", headers={"Range": "bytes=10-19"})
    assert part.status_code == 206 and part.content == clip[10:20]
    assert part.headers["content-range"] == f"bytes 10-19/{len(clip)}"
    assert client.get(f"/v1/videos/{job}/content", headers={"Range": f"bytes={len(clip)}-"}).status_code == 416
    thumbnail = Image.open(io.BytesIO(client.get(f"/v1/videos/{job}/content?variant=thumbnail").content))
    assert thumbnail.format == "JPEG" and np.asarray(thumbnail).std() > 5
    preview = Image.open(io.BytesIO(client.get(f"/v1/videos/{job}/content?variant=preview").content))
    assert preview.format == "PNG"
    gone = client.delete(f"/v1/videos/{job}").json()
    assert gone == {"id": job, "object": "video.deleted", "deleted": True, "status": "deleted"}
    assert client.get(f"/v1/videos/{job}").status_code == 404
    assert not desk.storage.job(job).exists()


def test_deleting_a_waiting_video_cancels_it(client, picture):
    job = post(client, picture).json()["id"]
    assert client.delete(f"/v1/videos/{job}").json()["deleted"] is False
    assert client.get(f"/v1/videos/{job}").json()["status"] == "cancelled"
    assert client.post(f"/v1/videos/{job}/retry").json()["status"] == "queued"
    assert client.post(f"/v1/videos/{job}/retry").status_code == 409


def test_pages(client, picture):
    ids = [post(client, picture, seed=seed).json()["id"] for seed in range(3)]
    first = client.get("/v1/videos?limit=2").json()
    assert [entry["id"] for entry in first["data"]] == ids[:0:-1] and first["has_more"]
    assert (first["first_id"], first["last_id"]) == (ids[2], ids[1])
    second = client.get(f"/v1/videos?limit=2&after={first['last_id']}").json()
    assert [entry["id"] for entry in second["data"]] == ids[:1] and not second["has_more"]
    assert client.get("/v1/videos?limit=0").status_code == 422


def test_events(client, desk, worker_of, picture):
    job = post(client, picture, num_inference_steps=300).json()["id"]
    worker = threading.Thread(target=work_once, args=(worker_of(desk),))
    worker.start()
    names, statuses = [], []
    with client.stream("GET", f"/v1/videos/{job}/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if line.startswith("event: "):
                names.append(line[7:])
            if line.startswith("data: {"):
                statuses.append(json.loads(line[6:]))
    worker.join()
    assert names[0] == "status" and names[-1] == "end"
    assert statuses[-1]["status"] == "completed" and statuses[-1]["progress"] == 100
    progress = [entry["progress"] for entry in statuses]
    assert progress == sorted(progress)
    assert client.get(f"/v1/videos/{'video_' + 32 * '0'}/events").status_code == 404


def test_state_of_the_server(client, desk, picture):
    assert client.get("/health").status_code == 503
    desk.presence.beat("elsewhere:1:ab", model="toy", engine="torch:cpu")
    post(client, picture)
    health = client.get("/health")
    assert health.status_code == 200 and health.json() == {
        "status": "ok",
        "workers": 1,
        "devices": 1,
        "jobs": {"queued": 1},
    }
    model = client.get("/v1/models").json()["data"][0]
    assert model["id"] == "toy" and model["resolutions"] == ["720p", "540p", "360p"]
    text = client.get("/metrics").text
    assert 'framewake_jobs{state="queued"} 1.0' in text and "framewake_workers 1.0" in text
    assert 'framewake_request_seconds_count{method="POST",path="/v1/videos",status="200"} 1.0' in text


def test_every_setting_of_a_request_is_known_here():
    """A new setting is either a field of the API or one of these."""
    inside = {"precision", "vae_tiling", "rng", "ignores_lora_alpha", "allows_partial_loras", "image", "solver"}
    fields = {"prompt", "negative_prompt", "resolution", "frames", "steps", "seed", "crop", "is_stable", "flow_shift"}
    fields |= {"embedded_guidance", "guidance_scale", "fps", "loras", "cache", "background", "takes_first_frame"}
    fields |= {"super_resolution"}
    known = {field.name for field in dataclasses.fields(Request)}
    assert known - inside == fields
