"""A finished clip as GIF and WebP."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image
from test_worker import submit, work_once

from framewake.media.video import read_metadata, read_video, write_video
from framewake.service.formats import MOST_PIXELS, MOST_WAITING, Formats, longest_px
from framewake.service.refusals import TooMany
from framewake.service.storage import CLIP


@pytest.mark.parametrize(("kind", "name"), [("gif", "GIF"), ("webp", "WEBP")])
def test_a_finished_clip_in_another_format(client, desk, worker_of, picture, kind, name):
    job = submit(desk, picture)
    address = f"/v1/videos/{job}/content?format={kind}"
    assert client.get(address).status_code == 409
    work_once(worker_of(desk))
    clip = desk.storage.job(job) / CLIP
    answer = client.get(address)
    assert answer.headers["content-type"] == f"image/{kind}"
    assert f"-seed3.{kind}" in answer.headers["content-disposition"]
    kept = clip.with_suffix(f".{kind}")
    assert answer.content == kept.read_bytes() and Image.open(io.BytesIO(answer.content)).format == name
    frames, fps = read_video(clip)
    found, rate = read_video(kept)
    assert found.shape == frames.shape and rate == fps
    assert np.abs(found.astype(int) - frames).mean() < 6
    assert read_metadata(kept) == read_metadata(clip)
    made = kept.stat().st_mtime_ns
    part = client.get(address, headers={"Range": "bytes=2-5"})
    assert part.status_code == 206 and part.content == answer.content[2:6]
    assert client.get(address, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert kept.stat().st_mtime_ns == made, "it is made once"
    refused = client.get(f"{address}&variant=thumbnail")
    assert refused.status_code == 422 and refused.json()["error"]["param"] == "format"
    clip.unlink()
    kept.unlink()
    assert client.get(address).status_code == 404


def test_a_large_clip_is_shrunk(desk, tmp_path):
    frames = np.zeros((5, 360, 800, 3), np.uint8)
    frames[:, :, 400:] = 200
    write_video(tmp_path / CLIP, frames, fps=8, metadata={"seed": 1})
    found, _ = read_video(Formats(desk.storage).file(tmp_path, "webp"))
    assert found.shape == (5, 288, 640, 3)
    assert (found[:, :, :300] < 20).all() and (found[:, :, 340:] > 180).all()


def test_frames_together_are_bounded():
    assert longest_px(129, (1280, 720)) == 640
    assert longest_px(33, (96, 128)) == 128
    side = longest_px(1025, (1280, 720))
    assert 0.97 * MOST_PIXELS < 1025 * side * side * 720 / 1280 <= MOST_PIXELS


def test_one_is_made_at_a_time_and_few_wait(desk, tmp_path):
    write_video(tmp_path / CLIP, np.zeros((5, 32, 32, 3), np.uint8), fps=8, metadata={"seed": 1})
    formats = Formats(desk.storage)
    done = []
    with formats._turn:  # somebody else's is being made
        waiting = [
            threading.Thread(target=lambda: done.append(formats.file(tmp_path, "gif"))) for _ in range(MOST_WAITING)
        ]
        for each in waiting:
            each.start()
        while formats._waiting._value:  # until all of them wait
            time.sleep(0.01)
        with pytest.raises(TooMany):
            formats.file(tmp_path, "gif")
    for each in waiting:
        each.join()
    assert done == [tmp_path / "clip.gif"] * MOST_WAITING
