"""The data folder: for its owner's eyes only, refused where it cannot be used, and no client's fault."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess

import pytest
from service_process import ENVIRONMENT, PROGRAM, command
from small_disk import MIB, mounted
from test_api import post
from test_worker import submit, when, work_once

from framewake.errors import DiskFullError, UnwritableError
from framewake.service.binding import open_place
from framewake.service.refusals import public_error
from framewake.service.storage import CLIP, PICTURE, Storage
from framewake.service.webhooks import read_secret
from framewake.service.worker import WorkerSettings

posix = pytest.mark.skipif(os.name != "posix", reason="modes are of POSIX")


def loose(folder):
    """What others may touch."""
    found = [folder, *folder.rglob("*")]
    return [path for path in found if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) & 0o077]


@contextlib.contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@posix
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
def test_files_are_their_owners_whatever_the_umask(desk_of, worker_of, picture, mask):
    with umask(mask):
        desk = desk_of()
        open_place(desk.storage.folder)
        read_secret(desk.storage.folder)
        whole, parts = (submit(desk, picture, num_inference_steps=40) for _ in range(2))
        worker = worker_of(desk, WorkerSettings(save_every=2))
        os.umask(mask)
        work_once(worker)
        os.umask(mask)
        watcher = when(desk, parts, lambda row: row.step >= 5, worker.stop.set)
        work_once(worker)
        watcher.join()
        lost = submit(desk, picture)
        desk.store.cancel(lost)
        desk.storage.put_aside(lost)
        assert (desk.storage.job(whole) / CLIP).is_file()
        assert len(list(desk.storage.job(parts).iterdir())) >= 3, "picture, preview and latents"
        assert loose(desk.storage.folder) == []


@posix
def test_the_programs_close_what_they_write(toy, tmp_path):
    data = tmp_path / "data"
    line = [*PROGRAM, "serve", "--no-page", "--no-worker", "--port", "0", "--checkpoint", str(toy), "--data", str(data)]
    process = subprocess.Popen(line, env=ENVIRONMENT, stderr=subprocess.PIPE, text=True, umask=0)
    try:
        assert "data in" in process.stderr.readline()
        assert loose(data) == [] and (data / "jobs.sqlite3").is_file()
    finally:
        process.terminate()
        process.wait(timeout=60)
    assert loose(data) == []


@posix
def test_a_folder_of_an_older_version_is_closed(tmp_path):
    folder = tmp_path / "data" / "jobs" / f"video_{'0' * 32}"
    with umask(0o022):
        folder.mkdir(parents=True)
        for path in (folder / CLIP, folder / PICTURE, tmp_path / "data" / "jobs.sqlite3"):
            path.touch()
    (tmp_path / "outside").touch()
    (tmp_path / "outside").chmod(0o644)
    (tmp_path / "data" / "page").mkdir(mode=0o700)  # of a server with the page
    (folder / "loras").symlink_to(tmp_path / "outside")
    Storage(tmp_path / "data")
    assert loose(tmp_path / "data") == [tmp_path / "data" / "jobs.sqlite3"], "the database closes its own"
    assert stat.S_IMODE((tmp_path / "outside").stat().st_mode) & 0o077, "what is elsewhere is not ours"


@posix
def test_a_folder_with_other_things_is_not_ours_to_close(tmp_path):
    with umask(0o022):
        home = tmp_path / "home"
        (home / "letters").mkdir(parents=True)
        Storage(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o755 and stat.S_IMODE((home / "letters").stat().st_mode) == 0o755
    assert loose(home / "jobs") == []


def refused(folder, words, kind=UnwritableError):
    with pytest.raises(kind, match=words) as raised:
        Storage(folder)
    assert str(folder) in str(raised.value) and " -o" not in str(raised.value) and "\n" not in str(raised.value)


def test_a_file_in_place_of_a_folder(tmp_path):
    (tmp_path / "file").touch()
    refused(tmp_path / "file", "File exists|Not a directory")
    refused(tmp_path / "file" / "data", "Not a directory|File exists")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "jobs").touch()
    refused(tmp_path / "data", "File exists|Not a directory")
    (tmp_path / "link").symlink_to(tmp_path / "link")
    refused(tmp_path / "link", "loop|symbolic")


def mount(folder, options):
    folder.mkdir(exist_ok=True)
    line = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(line, capture_output=True, check=False).returncode:
        pytest.skip("nothing can be mounted here: it needs Linux and root")


@pytest.fixture
def small(tmp_path):
    with mounted(tmp_path / "small", 8 * MIB) as disk:
        yield disk


def remount(disk, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk.folder)], check=True)


def test_a_read_only_disk_is_refused_at_the_start(small, toy):
    data = small.folder / "data"
    Storage(data)
    remount(small, "ro")
    try:
        refused(data, "Read-only file system")
        for line in (
            ["serve", "--no-page", "--port", "0", "--data", str(data), "--checkpoint", str(toy)],
            ["worker", "--storage", str(data), "--checkpoint", str(toy)],
        ):
            done = command(*line)
            assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Read-only" in done.stderr
    finally:
        remount(small, "rw")


def test_a_disk_without_room_is_refused_at_the_start(tmp_path):
    """Of bytes, or of entries while bytes are free."""
    for name, options in (("bytes", "size=64k"), ("entries", "size=1m,nr_inodes=2")):
        folder = tmp_path / name
        mount(folder, options)
        try:
            if name == "bytes":
                (folder / "filler").write_bytes(b"x" * 64 * 1024)
            refused(folder, "is full. Make room", DiskFullError)
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_folder_of_somebody_else_is_refused(tmp_path):
    """Run as another user: root may write everywhere."""
    if os.name != "posix" or os.geteuid() != 0:
        pytest.skip("only root can be another user")
    import pwd

    nobody = pwd.getpwnam("nobody").pw_uid
    number = os.fork()
    if number == 0:
        for path in (tmp_path, *tmp_path.parents):
            with contextlib.suppress(OSError):
                path.chmod(path.stat().st_mode | 0o011)
        (tmp_path / "closed").mkdir(mode=0o755)
        os.setuid(nobody)
        try:
            Storage(tmp_path / "closed")
        except UnwritableError as error:
            os._exit(0 if "Permission denied" in str(error) else 1)
        finally:
            os._exit(2)
    assert os.waitpid(number, 0)[1] == 0


def test_what_cannot_be_stored_is_the_servers_fault(small, desk_of, client_of, picture, monkeypatch):
    desk = desk_of()
    desk.storage = Storage(small.folder / "data", least_free=0, reserve=0)
    client = client_of(desk, raise_server_exceptions=False)
    remount(small, "ro")
    try:
        answer = post(client, picture)
    finally:
        remount(small, "rw")
    assert answer.status_code == 500 and answer.json()["error"]["code"] == "storage_failed"
    assert " -o" not in answer.text and str(small.folder) not in answer.text
    assert post(client, picture).status_code == 200


def test_a_folder_that_vanishes_is_the_servers_fault(desk, client_of, picture):
    client = client_of(desk, raise_server_exceptions=False)
    job = post(client, picture).json()["id"]
    shutil.rmtree(desk.storage.jobs)
    for answer in (post(client, picture), client.get(f"/v1/videos/{job}/content")):
        assert answer.status_code in (409, 500) and str(desk.storage.folder) not in answer.text
    assert client.get("/v1/videos").status_code == 200


def test_no_word_for_the_command_line_reaches_a_client(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UnwritableError) as raised:
        Storage(tmp_path / "file")
    assert public_error(raised.value)[1] == "the server could not store this video; its log says why."
