"""A server for strangers: no keys, any host name, and a bound on what is kept."""

from __future__ import annotations

import pytest
from service_process import command
from test_api import post
from test_worker import work_once

from framewake.app.access import asked_keys, asked_site
from framewake.errors import InputError
from framewake.service.api import Access
from framewake.service.trimming import Trimmer

GIVEN = {"api_key": [], "api_key_file": None, "host": "0.0.0.0", "public": True}
PLACE = {"allow_host": [], "allow_origin": ["https://huggingface.co"], "root_path": "", "trust_proxy": []}


def test_everybody_is_let_in_under_any_name(desk, client_of, monkeypatch):
    monkeypatch.delenv("FRAMEWAKE_API_KEY", raising=False)
    assert asked_keys(GIVEN) == []
    client = client_of(desk, Access(site=asked_site(GIVEN | PLACE, has_keys=False)))
    assert client.get("/v1/videos", headers={"Host": "you-name.hf.space"}).status_code == 200
    from_elsewhere = {"Host": "you-name.hf.space", "Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    assert client.post("/v1/videos", json={"prompt": "x"}, headers=from_elsewhere).status_code == 403


def test_public_and_keys_exclude_each_other(monkeypatch):
    monkeypatch.delenv("FRAMEWAKE_API_KEY", raising=False)
    with pytest.raises(InputError, match="--public lets everybody in"):
        asked_keys(GIVEN | {"api_key": ["k" * 24]})
    done = command("serve", "--public", "--api-key", "k" * 24)
    assert done.returncode == 2 and done.stderr.count("\n") == 1


def test_the_newest_ended_videos_are_kept(desk, client, picture, worker_of):
    videos = [post(client, picture).json()["id"] for _ in range(4)]
    worker = worker_of(desk)
    work_once(worker)
    client.delete(f"/v1/videos/{videos[2]}")
    Trimmer(desk, 1).tidy()
    left = [video["id"] for video in client.get("/v1/videos?order=asc").json()["data"]]
    assert left == videos[1:], "what waits is never removed, and of the ended ones the oldest goes"
    assert not desk.storage.job(videos[0]).exists() and desk.storage.job(videos[1]).exists()
    Trimmer(desk, 1).tidy()
    assert len(client.get("/v1/videos").json()["data"]) == 3


def test_a_trimmer_goes_on_by_itself(desk, client, picture, monkeypatch):
    monkeypatch.setattr("framewake.service.trimming.LOOK_SECONDS", 0.01)
    video = post(client, picture).json()["id"]
    client.delete(f"/v1/videos/{video}")
    trimmer, calls = Trimmer(desk, 0), []
    remove = desk.storage.hide

    def refuse_once(job):
        calls.append(job)
        if len(calls) == 1:
            raise InputError("the disk is away for a moment.")
        remove(job)

    monkeypatch.setattr(desk.storage, "hide", refuse_once)
    trimmer.start()
    for _ in range(2000):
        if not client.get("/v1/videos").json()["data"]:
            break
    trimmer.stop()
    assert len(calls) == 2 and not desk.storage.job(video).exists()
