"""What is taken away while it is in use: the database's file, the data folder, the folder of one job."""

from __future__ import annotations

import pytest
from test_api import post
from test_worker import submit, when, work_once

from framewake.errors import UnwritableError
from framewake.service.binding import open_place
from framewake.service.database import FILE, DatabaseBroken
from framewake.service.storage import CLIP, PREVIEW
from framewake.service.worker import WorkerSettings


@pytest.mark.parametrize("how", ["moved", "replaced"])
def test_nothing_is_taken_into_a_database_that_has_lost_its_name(desk, client_of, worker_of, picture, tmp_path, how):
    """An open file can be written to when nobody can find it any more; what it took would be lost."""
    client = client_of(desk, raise_server_exceptions=False)
    job = post(client, picture).json()["id"]
    file = desk.storage.folder / FILE
    file.rename(tmp_path / FILE)
    if how == "replaced":
        file.write_bytes((tmp_path / FILE).read_bytes())
    for answer in (post(client, picture), client.delete(f"/v1/videos/{job}"), client.get("/v1/videos")):
        assert answer.status_code == 500 and "operator has to mend it" in answer.json()["error"]["message"]
    with pytest.raises(DatabaseBroken, match="moved, removed or replaced"):
        worker_of(desk).run()
    (tmp_path / FILE).replace(file)
    assert client.get(f"/v1/videos/{job}").json()["status"] == "queued" and desk.storage.ids() == [job]
    assert post(client, picture).status_code == 200


def test_without_its_folder_a_server_takes_and_removes_nothing(desk_of, client_of, database_url, picture, tmp_path):
    """A disk that was unmounted, below a database that is elsewhere."""
    place = open_place(
        tmp_path / "data", f"sqlite:///{tmp_path}/elsewhere" if "sqlite" in database_url else database_url
    )
    place.database.close()
    desk = desk_of(place.database.engine.url.render_as_string(hide_password=False))
    client = client_of(desk, raise_server_exceptions=False)
    job = submit(desk, picture)
    desk.store.cancel(job)
    folder = desk.storage.folder.rename(tmp_path / "unmounted")
    assert post(client, picture).json()["error"]["code"] == "storage_failed"
    assert client.delete(f"/v1/videos/{job}").json()["error"]["code"] == "storage_failed"
    assert "framewake_jobs" in client.get("/metrics").text and client.get("/health").json()["jobs"] == {"cancelled": 1}
    with pytest.raises(UnwritableError):
        desk.storage.has_room()
    desk.storage.folder.mkdir()  # what lies below the mount
    assert client.delete(f"/v1/videos/{job}").status_code == 500
    desk.storage.folder.rmdir()
    folder.rename(desk.storage.folder)
    assert client.delete(f"/v1/videos/{job}").json()["deleted"] is True and desk.storage.ids() == []


def test_a_job_whose_folder_goes_while_it_is_made_waits(desk, worker_of, picture, tmp_path):
    open_place(desk.storage.folder).database.close()
    job = submit(desk, picture, num_inference_steps=200)
    worker = worker_of(desk, WorkerSettings(pause_seconds=0.01, save_every=1))
    moved = []

    def take_away():
        moved.append(desk.storage.job(job).rename(tmp_path / "taken"))
        worker.stop.set()

    watcher = when(desk, job, lambda row: row.step >= 2, take_away)
    work_once(worker)
    watcher.join()
    assert desk.store.get(job).state == "queued"
    moved[0].rename(desk.storage.job(job))
    work_once(worker_of(desk))
    assert desk.store.get(job).state == "completed" and (desk.storage.job(job) / CLIP).is_file()


def test_a_folder_in_the_place_of_a_file_is_no_file(desk, client, worker_of, picture):
    job = submit(desk, picture)
    work_once(worker_of(desk))
    (desk.storage.job(job) / PREVIEW).unlink(missing_ok=True)
    (desk.storage.job(job) / PREVIEW).mkdir()
    answer = client.get(f"/v1/videos/{job}/content?variant=preview")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "not_found"
