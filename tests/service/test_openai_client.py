"""The real OpenAI client against a real server with a real worker."""

from __future__ import annotations

import io

import openai
import pytest
from PIL import Image
from service_process import serving

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
KEY = "a-key-of-the-tests-own-24"
SETTINGS = {"resolution": "360p", "seed": 3, "num_inference_steps": 4}


@pytest.fixture(scope="module")
def client(toy, tmp_path_factory):
    with serving(tmp_path_factory.mktemp("server"), toy, "--api-key", KEY) as server:
        yield openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


def test_a_video_from_start_to_end(client, picture):
    video = client.videos.create_and_poll(
        prompt="the red circle moves left",
        input_reference=("picture.png", picture),
        seconds="1",
        size="64x64",
        extra_body=SETTINGS,
        poll_interval_ms=200,
    )
    assert video.status == "completed" and video.progress == 100, video
    assert (video.model, video.size, video.seconds) == ("toy", "64x64", "1.083")
    clip = client.videos.download_content(video.id).read()
    assert clip[4:8] == b"ftyp"
    thumbnail = client.videos.download_content(video.id, variant="thumbnail").read()
    assert Image.open(io.BytesIO(thumbnail)).format == "JPEG"
    assert client.videos.retrieve(video.id).id == video.id
    assert [entry.id for entry in client.videos.list(limit=1)] == [video.id]
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)


def test_a_video_goes_on(client, picture):
    fields = {"input_reference": ("p.png", picture), "extra_body": SETTINGS, "poll_interval_ms": 200}
    first = client.videos.create_and_poll(prompt="the red circle moves left", seconds="1", **fields)
    # What `videos.extend` documents; this version of it takes the reference for a file, and refuses it itself.
    asked = {"video": {"id": first.id}, "prompt": "it grows", "seconds": "1"}
    longer = client.post("/videos/extensions", cast_to=openai.types.Video, body=asked)
    assert longer.remixed_from_video_id == first.id
    assert client.videos.poll(longer.id, poll_interval_ms=200).status == "completed"


def test_the_list_is_paged(client, picture):
    fields = {"prompt": "x", "input_reference": ("p.png", picture), "extra_body": SETTINGS}
    made = [client.videos.create(**fields).id for _ in range(3)]
    assert [entry.id for entry in client.videos.list(limit=2)][:3] == made[::-1]
    assert [model.id for model in client.models.list()] == ["toy"]


def test_errors_are_understood(client, picture):
    with pytest.raises(openai.UnprocessableEntityError, match="nearest is 5"):
        client.videos.create(prompt="x", input_reference=("p.png", picture), extra_body={"num_frames": 6})
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").videos.list()
