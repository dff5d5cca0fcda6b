"""Bodies that are made to cost much: refused at a price that does not grow with them, and never by an error of ours."""

from __future__ import annotations

import contextlib
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.datastructures import UploadFile
from test_api import FIELDS, data_url

from framewake.errors import InputError
from framewake.service.body import LARGE, MOST_BESIDE, MOST_KEYS, form_pairs, json_value
from framewake.service.refusals import Refused

MANY = 2 * 2**20  # bytes of a hostile body
HEAD = b'Content-Disposition: form-data; name="prompt"\r\n\r\n'
JSON, FORM = "application/json", "multipart/form-data; boundary=b"


def repeated(text, begin=b"", end=b""):
    return begin + text * (MANY // len(text)) + end


HOSTILE = {
    "keys": (JSON, b"{" + b",".join(b'"%x":0' % number for number in range(200_000)) + b"}"),
    "few keys": (JSON, b"{" + b",".join(b'"%x":0' % number for number in range(20_000)) + b"}"),
    "same key": (JSON, repeated(b'"a":0,', b"{", b'"a":0}')),
    "lists": (JSON, repeated(b"[],", b"[", b"[]]")),
    "lists as a prompt": (JSON, b'{"prompt":[' + b"[]," * 60_000 + b"[]]}"),
    "loras": (JSON, b'{"prompt":"x","lora":[' + b'{"a":0},' * 20_000 + b"{}]}"),
    "depth": (JSON, repeated(b"[")),
    "some depth": (JSON, b"[" * 200_000),
    "objects in objects": (JSON, b'{"a":' * 40_000),
    "digits": (JSON, repeated(b"9", b'{"seed":', b"}")),
    "some digits": (JSON, b'{"seed":' + b"9" * 200_000 + b"}"),
    "a long exponent": (JSON, b'{"fps":1e' + b"9" * 200_000 + b"}"),
    "NaN": (JSON, b'{"prompt":"x","fps":NaN}'),
    "texts": (JSON, repeated(b'"a",', b"[", b'""]')),
    "quotes": (JSON, repeated(b'\\"', b'{"prompt":"', b'"}')),
    "backslashes": (JSON, repeated(b"\\\\", b'{"prompt":"', b'"}')),
    "spaces": (JSON, repeated(b" ", b"{", b"}")),
    "a long prompt": (JSON, repeated(b"x", b'{"prompt":"', b'"}')),
    "a long name": (JSON, repeated(b"x", b'{"', b'":0}')),
    "two long texts": (JSON, b'{"prompt":"' + b"x" * 2 * LARGE + b'","model":"' + b"x" * 2 * LARGE + b'"}'),
    "half a letter": (JSON, b'{"\\ud800":"\\ud800"}'),
    "nothing": (JSON, b""),
    "bytes": (JSON, bytes(range(256))),
    "parts": (FORM, repeated(b"--b\r\n" + HEAD + b"x\r\n")),
    "a header": (FORM, repeated(b"x", b"--b\r\nContent-Disposition: form-data; name=")),
    "headers": (FORM, repeated(b"a: b\r\n", b"--b\r\n")),
    "a long field": (FORM, repeated(b"x", b"--b\r\n" + HEAD, b"\r\n--b--")),
    "almost boundaries": (FORM, repeated(b"\r\n--", b"--b\r\n" + HEAD, b"\r\n--b--")),
    "no name": (FORM, b"--b\r\n\r\nx\r\n--b--"),
    "no end": (FORM, b"--b\r\n" + HEAD + b"x"),
    "two files": (FORM, 2 * b'--b\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\nx\r\n' + b"--b--"),
    "no text": (FORM, b"--b\r\n" + HEAD + b"\xff\xfe\r\n--b--"),
    "no boundary": ("multipart/form-data", b"x"),
    "a long boundary": (f"multipart/form-data; boundary={'b' * 300}", b"x"),
    "a codec that is no alphabet": ("multipart/form-data; boundary=b; charset=punycode", b"--b\r\n" + HEAD + b"\xff"),
    "another": ("application/x-www-form-urlencoded", repeated(b"a=b&")),
    "packed": ("application/json; charset=utf-7", b"+AHs-"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_body_is_refused(client, desk, name):
    """With few bytes said about it, at no cost beyond some copies of it, and nothing left on the disk."""
    kind, body = HOSTILE[name]
    tracemalloc.start()
    try:
        answer = client.post("/v1/videos", content=body, headers={"content-type": kind})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 400 <= answer.status_code < 500 and len(answer.content) < 2000, answer.text[:500]
    assert answer.json()["error"]["message"]
    assert peak < 5 * MANY + 20 * 2**20
    assert list((desk.storage.folder / "jobs").iterdir()) == []


def test_a_packed_body_is_refused_by_its_header(client):
    headers = {"content-type": JSON, "content-encoding": "gzip"}
    answer = client.post("/v1/videos", content=b"\x1f\x8b", headers=headers)
    assert answer.status_code == 415 and "Content-Encoding" in answer.json()["error"]["message"]


def test_the_rate_is_taken_before_the_body_is_read(desk_of, client_of):
    client = client_of(desk_of(per_minute=1))
    answers = [client.post("/v1/videos", content=b"{", headers={"content-type": JSON}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [422, 429]


@pytest.mark.parametrize("slash", ["/", "\\/"])
def test_a_large_picture_in_json(slash):
    picture = "data:image/png;base64," + "AA/+" * LARGE
    body = json.dumps({"prompt": "a" * 9000, "input_reference": {"image_url": picture}}).replace("/", slash)
    assert len(body) > MOST_BESIDE
    assert json_value(body.encode())["input_reference"] == {"image_url": picture}


def test_prompts_of_full_length_fit_however_they_are_written(client, picture):
    prompts = {"prompt": "圆" * 10_000, "negative_prompt": "圆" * 10_000}
    for is_ascii in (True, False):
        body = json.dumps(FIELDS | prompts | {"input_reference": data_url(picture)}, ensure_ascii=is_ascii)
        assert client.post("/v1/videos", content=body.encode(), headers={"content-type": JSON}).status_code == 200


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner, max_size=MOST_KEYS),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(value=VALUES, encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"]))
def test_json_means_what_it_means_elsewhere(value, encoding):
    assert json_value(json.dumps(value).encode(encoding)) == value


@settings(max_examples=300, deadline=None)
@given(body=st.binary(max_size=300))
def test_any_bytes_are_json_or_refused(body):
    with contextlib.suppress(InputError, Refused):
        json_value(body)


FIELD = st.tuples(st.text('abc[]_"\\;', min_size=1, max_size=9), st.binary(max_size=40).map(lambda b: b.hex()))


@settings(max_examples=150, deadline=None)
@given(fields=st.lists(FIELD, max_size=20), is_cut=st.booleans(), noise=st.binary(max_size=20), at=st.integers(0, 400))
def test_forms_are_read_or_refused(fields, is_cut, noise, at):
    """A whole form gives back its fields; one that is cut or has noise in it gives fields or a refusal."""
    import httpx

    files = {"input_reference": ("x.png", b"\r\n--x\r\n")}
    request = httpx.Request("POST", "http://a/", data=dict(fields), files=files)
    body, kind = request.read(), request.headers["content-type"]
    pairs = form_pairs(body, kind)
    assert isinstance(pairs[-1][1], UploadFile) and pairs[-1][1].file.read() == b"\r\n--x\r\n"
    escaped = {name.replace("\\", "\\\\").replace('"', "%22"): value for name, value in dict(fields).items()}
    assert len(pairs) == len(escaped) + 1 and [value for _, value in pairs[:-1]] == list(escaped.values())
    with contextlib.suppress(InputError, Refused):
        form_pairs(body[:at] if is_cut else body[:at] + noise + body[at:], kind)
