"""Webhooks: signed, retried, never lost, checked with the real OpenAI client's verification."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import socket
import stat
import threading
import time

import openai
import pytest
from service_process import command
from sqlalchemy import func, select, update
from toy_jobs import new_job

from framewake.errors import InputError
from framewake.service import webhooks
from framewake.service.fetch import Guarded
from framewake.service.tables import deliveries
from framewake.service.webhooks import OF_ONE_RECEIVER, Sender, read_secret


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes what it gets; the first answers are failures."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((body, dict(self.headers)))
        self.send_response(500 if len(self.server.got) <= self.server.failures else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """Senders look for what is due many times a second, so that no test waits for a second to be over."""
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 0.05)


@pytest.fixture
def hook():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.got, server.failures = [], 0
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()


def waiting(store):
    with store.database.reading() as connection:
        return connection.execute(select(func.count()).select_from(deliveries)).scalar_one()


def until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("nothing happened for 30 s")


@pytest.mark.parametrize("failures", [0, 2])
def test_a_webhook_is_delivered_and_verified(store, tmp_path, hook, failures):
    hook.failures = failures
    url = f"http://127.0.0.1:{hook.server_address[1]}/hook"
    job = store.submit(new_job(callback=url), most_queued=9).id
    store.cancel(job)
    secret = read_secret(tmp_path)
    sender = Sender(store.database, secret, Guarded(allows=lambda _: True), delays=(0.01, 0.01, 0.01))
    sender.start()
    until(lambda: waiting(store) == 0)
    sender.stop()
    assert len(hook.got) == failures + 1
    body, headers = hook.got[-1]
    assert {headers["webhook-id"] for _, headers in hook.got} == {json.loads(body)["id"]}
    client = openai.OpenAI(api_key="none")
    client.webhooks.verify_signature(body, headers, secret=secret)
    event = json.loads(body)
    assert event["type"] == "video.cancelled" and event["data"] == {"id": job}
    with pytest.raises(openai.InvalidWebhookSignatureError):
        client.webhooks.verify_signature(body + b" ", headers, secret=secret)


def test_a_private_address_is_never_called(store, tmp_path, hook):
    url = f"http://127.0.0.1:{hook.server_address[1]}/hook"
    store.cancel(store.submit(new_job(callback=url), most_queued=9).id)
    sender = Sender(store.database, read_secret(tmp_path), Guarded(), delays=(0.01,))
    sender.start()
    until(lambda: waiting(store) == 0)
    sender.stop()
    assert hook.got == []


def test_what_was_not_sent_stays(store):
    store.cancel(store.submit(new_job(callback="http://127.0.0.1:1/"), most_queued=9).id)
    with store.database.writing() as connection:
        connection.execute(update(deliveries).values(due=deliveries.c.due + 3600))
    sender = Sender(store.database, "whsec_AAAA", Guarded())
    sender.start()
    sender.stop()
    assert waiting(store) == 1


@pytest.fixture
def silent():
    """A receiver that takes connections and says nothing; with how many it has."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    taken.append(server.accept()[0])

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/", taken
    for connection in taken:
        connection.close()


def ended(store, url, times=1):
    """A job that has ended so often, each told to an address."""
    job = store.submit(new_job(callback=url), most_queued=99).id
    store.cancel(job)
    for _ in range(times - 1):
        store.retry(job)
        store.cancel(job)
    return job


def test_silent_and_bad_receivers_hold_up_nobody_else(store, tmp_path, hook, silent):
    url, taken = silent
    for number in range(12):
        ended(store, f"{url}{number}")
    for bad in ("http://127.0.0.1:1/", "http://nowhere.invalid/", "http://127.0.0.1:0/"):
        ended(store, bad)
    jobs = {ended(store, f"http://127.0.0.1:{hook.server_address[1]}/{number}") for number in range(5)}
    sender = Sender(store.database, read_secret(tmp_path), Guarded(allows=lambda _: True), delays=(3600,))
    sender.start()
    until(lambda: {json.loads(body)["data"]["id"] for body, _ in hook.got} == jobs)
    assert len(taken) <= OF_ONE_RECEIVER, "a receiver has no more than its share under way"
    sender.stop()
    assert waiting(store) >= 12, "what a silent one did not take is kept"


def test_messages_about_one_video_keep_their_order(store, tmp_path, hook):
    """The first one is refused twice; the second waits for it, and another video's does not."""
    hook.failures = 2
    url = f"http://127.0.0.1:{hook.server_address[1]}/"
    job = ended(store, url, times=3)
    with store.database.reading() as connection:
        numbers = connection.execute(select(deliveries.c.id).order_by(deliveries.c.number)).scalars().all()
    sender = Sender(store.database, read_secret(tmp_path), Guarded(allows=lambda _: True), delays=(0.2, 0.2, 0.2))
    sender.start()
    until(lambda: waiting(store) == 0)
    sender.stop()
    taken = [json.loads(body) for body, _ in hook.got]
    assert {event["data"]["id"] for event in taken} == {job}
    assert [event["id"] for event in taken] == [numbers[0]] * 3 + numbers[1:]


def test_a_given_up_message_lets_the_next_one_pass(store, tmp_path, hook):
    hook.failures = 2
    ended(store, f"http://127.0.0.1:{hook.server_address[1]}/", times=2)
    sender = Sender(store.database, read_secret(tmp_path), Guarded(allows=lambda _: True), delays=(0.01,))
    sender.start()
    until(lambda: waiting(store) == 0)
    sender.stop()
    assert len(hook.got) == 3


def test_a_damaged_record_is_its_own_trouble(store, tmp_path, hook):
    url = f"http://127.0.0.1:{hook.server_address[1]}/"
    ended(store, url)
    with store.database.writing() as connection:
        connection.execute(update(deliveries).values(url="http://[", receiver=None))
    job = ended(store, url)
    sender = Sender(store.database, read_secret(tmp_path), Guarded(allows=lambda _: True), delays=(0.01,))
    sender.start()
    until(lambda: waiting(store) == 0)
    sender.stop()
    assert [json.loads(body)["data"]["id"] for body, _ in hook.got] == [job]


SHORT = base64.b64encode(b"x" * 23)


@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"\n", b"  \t\r\n", b"\xef\xbb\xbf", b"\0" * 40, b"whsec_", b"whsec_\n", b"whsec_AAAA", b"secret"),
        *(b"whsec_" + SHORT, SHORT, b"whsec_not base64 at all, but long enough", b"\xff" * 50, "whsec_ключ".encode()),
        *(b"whsec_" + base64.b64encode(bytes(32)), b"<html>not found</html>"),
    ],
)
def test_a_secret_that_is_none_is_refused(tmp_path, content):
    """Signed with an empty key, a message could be anybody's."""
    (tmp_path / "webhook-secret").write_bytes(content)
    with pytest.raises(InputError, match="webhook-secret holds no secret"):
        read_secret(tmp_path)
    assert (tmp_path / "webhook-secret").read_bytes() == content, "the file stays for a person to look at"


def test_a_secret_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "webhook-secret").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_secret(tmp_path)


@pytest.mark.parametrize("around", [(b"", b""), (b"", b"\n"), (b"\xef\xbb\xbf", b"\r\n")])
def test_a_secret_that_went_through_an_editor_is_the_same(tmp_path, around):
    secret = read_secret(tmp_path)
    (tmp_path / "webhook-secret").write_bytes(around[0] + secret.encode() + around[1])
    assert read_secret(tmp_path) == secret


def test_the_server_does_not_start_without_a_secret(toy, tmp_path):
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "webhook-secret").touch()
    done = command("serve", "--no-page", "--no-worker", "--checkpoint", str(toy), "--data", str(tmp_path / "data"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "webhook-secret" in done.stderr


def test_the_secret_is_kept_and_private(tmp_path):
    secret = read_secret(tmp_path)
    assert read_secret(tmp_path) == secret and secret.startswith("whsec_") and len(secret) > 40
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
