"""What the server says reaches a reader of Chinese in Chinese: the messages are those that the code really raises."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from PIL import Image
from steps import PROMPT, choose_picture
from toy_checkpoint import write_picture, write_toy

from framewake.errors import FramewakeError
from framewake.media.picture import load_picture
from framewake.media.video import read_metadata, to_uint8, write_video
from framewake.pipeline.denoise import check_numbers
from framewake.pipeline.jobs import Job, plan_job
from framewake.pipeline.precision import PRECISIONS
from framewake.pipeline.run import Pipeline
from framewake.request import Request, from_dict
from framewake.service.database import Database, default_url
from framewake.service.desk import Desk
from framewake.service.fields import JsonVideo, fields_in
from framewake.service.formats import Formats
from framewake.service.guard import Limits
from framewake.service.intake import check_there
from framewake.service.page.controls import fields_of
from framewake.service.page.estimate import picture_sides
from framewake.service.page.told import PATTERNS, translated
from framewake.service.refusals import public_error
from framewake.service.storage import Storage
from framewake.service.store import JobStore
from framewake.weights.checkpoint.load import open_checkpoint

FALLBACK = PATTERNS["zh"][-1][1].partition("{")[0]
REQUEST = {"prompt": "x", "resolution": "360p"}


def said(action):
    """What the API says about what an action raises."""
    with pytest.raises(FramewakeError) as found:
        action()
    return public_error(found.value)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("told")


@pytest.fixture(scope="module")
def desk(folder):
    storage = Storage(folder / "data")
    limits = Limits(queued=2, per_minute=5, pixels=5000)
    return Desk(JobStore(Database(default_url(storage.folder))), storage, open_checkpoint(write_toy(folder / "toy")),
                limits=limits)  # fmt: skip


@pytest.fixture(scope="module")
def messages(desk, folder):
    """Everything that a user of the page can bring about."""
    picture = write_picture(folder / "picture.png").read_bytes()
    cut, empty, long, plain = (folder / name for name in ("cut.png", "empty.png", "long.png", "clip.mp4"))
    cut.write_bytes(picture[:200])
    empty.touch()
    Image.new("RGB", (900, 8)).save(long)
    write_video(plain, np.zeros((5, 16, 16, 3), np.uint8), fps=8, metadata=None)

    def submit(data=picture, **fields):
        return desk.submit(JsonVideo(**(REQUEST | fields)), "me", picture=data)

    def request(**fields):
        return lambda: from_dict(REQUEST | fields)

    found = [
        *(
            said(request(**{name: value}))
            for name, value in [
                ("frames", 8),
                ("frames", 0),
                ("steps", 0),
                ("steps", "many"),
                ("seed", -1),
                ("fps", 0),
                ("flow_shift", 0),
                ("prompt", " "),
                ("prompt", "a\0b"),
                ("resolution", "8k"),
                ("precision", "float8"),
                ("cache", "often"),
                ("nothing", 1),
            ]
        ),
        said(lambda: from_dict({"steps": 1})),
        said(lambda: fields_of(["x", "360p", "stable", 5, 2, "many", *[None] * 8], [])),
        said(lambda: fields_of(["x", "360p", "stable", 5, 2, 1, None, None, None, "wide", *[None] * 4], [])),
        *(
            said(lambda fields=fields: fields_in(REQUEST | fields, JsonVideo, is_strict=True))
            for fields in [
                {"num_frames": 2000},
                {"num_inference_steps": 0},
                {"prompt": "x" * 10_001},
                {"seed": 1.5},
                {"lora": [{"name": "x", "scale": 11}]},
                {"lora": [{"name": "x"}] * 9},
                {"flow_shift": "wide"},
            ]
        ),
        said(lambda: picture_sides("wide")),
        *(said(lambda path=path: load_picture(path)) for path in (cut, empty, long)),
        said(lambda: read_metadata(plain)),
        said(lambda: read_metadata(shutil.copy(cut, folder / "cut.mp4"))),
        said(lambda: plan_job(Job(Request(**REQUEST)), desk.checkpoint)),
        said(lambda: check_there(None, desk.checkpoint.dit)),
        said(lambda: check_there(b"", desk.checkpoint.dit)),
        said(lambda: check_numbers(np.full(1, np.nan), 3, 9, PRECISIONS["bfloat16"])),
        said(lambda: to_uint8(np.full(1, np.nan))),
        said(lambda: submit(b"no picture")),
        said(lambda: submit(lora=[{"name": "style"}])),
    ]
    job = submit().id
    found.append(said(lambda: desk.store.remove(job)))
    found.append(said(lambda: desk.store.retry(job)))
    submit()
    found.append(said(submit))
    found += [said(submit) for _ in range(2)][-1:]
    desk.store.cancel(job)
    found += [said(lambda: desk.store.cancel(job)), said(lambda: desk.store.get("video_" + "0" * 32))]
    found.append(said(lambda: desk.ended_clip(job, "me")))
    formats = Formats(desk.storage)
    while formats._waiting.acquire(blocking=False):  # as many wait as may
        pass
    found.append(said(lambda: formats.file(plain.parent, "gif")))
    tight = Pipeline.load(folder / "toy", engine="torch:cpu", memory=5000)
    found.append(said(lambda: tight.forecast(Job(Request(**REQUEST, image=str(folder / "picture.png"))))))
    return [*found, public_error(OSError(28, "full"))[1], public_error(RuntimeError("inside"))[1]]


def test_every_one_is_translated(messages):
    assert len(set(messages)) > 40
    untold = [message for message in messages if translated("zh", message).startswith(FALLBACK)]
    assert not untold
    for message in messages:
        text = translated("zh", message)
        assert re.search(r"[\u4e00-\u9fff]", text) and not re.search(r"[{}]", text), text
        # Names of settings, fields and states never stay English.
        assert not re.search(r"num_|steps|frames|queued|prompt|flow_shift", text.replace("--frames", "")), text
        assert translated("en", message) == message


def test_the_browser_translates_alike_and_shows_it(page_of, messages, folder):
    page = page_of("/zh/")
    found = page.evaluate("(messages) => messages.map(window.framewake.translated)", messages)
    assert found == [translated("zh", message) for message in messages]
    page.fill("#fw-prompt textarea", PROMPT)
    page.fill("#fw-seed input, #fw-seed textarea", "many")
    choose_picture(page, folder / "cut.png")
    page.click("#fw-make")  # refused by a handler of the page's own
    page.wait_for_selector("#fw-message:has-text(\"种子为 'many'：应为整数。\")")
    page.fill("#fw-seed input, #fw-seed textarea", "")
    page.click("#fw-make")  # refused by the API
    page.wait_for_selector("#fw-message:has-text('图片已损坏或不完整。')")


def test_notes_on_pictures_are_translated(folder):
    clear, moving = folder / "clear.png", folder / "moving.gif"
    Image.new("RGBA", (64, 48), (200, 20, 20, 90)).save(clear)
    frames = [Image.new("L", (64, 48), shade) for shade in (0, 99)]
    frames[0].save(moving, "GIF", save_all=True, append_images=frames[1:])
    texts = [note for path in (clear, moving) for note in load_picture(path).notes]
    assert len(texts) >= 2
    assert not [text for text in texts if translated("zh", text).startswith(FALLBACK)]


def test_what_is_not_known_stays_readable():
    assert translated("zh", "something new happened.") == f"{FALLBACK}something new happened."


def test_parts_are_taken_over():
    assert (
        translated("zh", "steps is 0: expected a whole number from 1 to 1000.") == "步数为 0：应为 1 到 1000 的整数。"
    )
    assert translated("zh", "num_frames is 2000: expected less than or equal to 1025.") == "帧数为 2000：最多为 1025。"
    assert translated("zh", "the video is queued: cancel it first.") == "该视频等待中：请先取消。"
