"""Webhooks: signed, retried, never lost, checked with the real OpenAI client's verification."""

from __future__ import annotations

import http.server
import json
import stat
import threading
import time

import openai
import pytest
from conftest import new_job
from sqlalchemy import func, select, update

from framewake.service.fetch import Guarded
from framewake.service.tables import deliveries
from framewake.service.webhooks import Sender, read_secret


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes what it gets; the first answers are failures."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.got.append((body, dict(self.headers)))
        self.send_response(500 if len(self.server.got) <= self.server.failures else 204)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def hook():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hook)
    server.got, server.failures = [], 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
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


def test_the_secret_is_kept_and_private(tmp_path):
    secret = read_secret(tmp_path)
    assert read_secret(tmp_path) == secret and secret.startswith("whsec_") and len(secret) > 40
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
