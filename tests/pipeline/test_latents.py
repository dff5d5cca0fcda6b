"""Saved latents are believed whole or not at all: no bit, no cut and no change of their structure passes."""

from __future__ import annotations

import hashlib
import json
import os

import numpy as np
import pytest

from framewake.errors import InputError
from framewake.pipeline.latents import (
    ENDING,
    KEY,
    OLD_ENDING,
    SavedLatents,
    load_latents,
    save_latents,
)
from framewake.weights.writing.files import BLANK_SEAL, SEAL, SEAL_MARK

METADATA = {"request": {"prompt": "a", "steps": 9}, "checkpoint": "toy"}
CACHE = {"cache_computed": np.arange(2), "cache_number_x": np.ones(1), "cache_tensor_y": np.ones(2, np.uint16)}


def saved(**changes):
    latents = np.arange(8, dtype=np.float32).reshape(1, 2, 1, 2, 2)
    return SavedLatents(latents, METADATA, 3, {"the picture": "ab"}, {"engine": "torch:cpu"}, CACHE)._replace(**changes)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / f"clip.mp4{ENDING}"
    save_latents(path, saved())
    return path


def parts_of(content):
    """Header and data of a safetensors file."""
    stop = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:stop]), content[stop:]


def sealed(header, data):
    """A file with a right checksum, as somebody would make it who wants it to be believed."""
    if isinstance(header.get("__metadata__"), dict):
        header["__metadata__"][SEAL] = BLANK_SEAL
    text = json.dumps(header, separators=(",", ":")).encode()
    content = len(text).to_bytes(8, "little") + text + data
    digest = hashlib.sha256(content).hexdigest().encode()
    return content.replace(SEAL_MARK + BLANK_SEAL.encode(), SEAL_MARK + digest)


def test_what_was_saved_comes_back(file):
    found, want = load_latents(file), saved()
    assert found[1:5] == want[1:5]
    assert np.array_equal(found.latents, want.latents)
    assert set(found.cache) == set(CACHE)
    for name, values in CACHE.items():
        assert found.cache[name].dtype == values.dtype and np.array_equal(found.cache[name], values)
    assert os.listdir(file.parent) == [file.name]


def test_every_single_bit_counts(file):
    save_latents(file, saved(latents=np.ones((1, 1, 1, 1, 1)), metadata={}, sources={}, origin={}, cache={}))
    load_latents(file)
    whole = file.read_bytes()
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            with pytest.raises(InputError):
                load_latents(file)


def test_every_cut_and_every_addition_counts(file):
    whole = file.read_bytes()
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError):
            load_latents(file)
    for extra in (b"\0", b"{}", whole):
        file.write_bytes(whole + extra)
        with pytest.raises(InputError):
            load_latents(file)


WORDS = [None, True, -1, 2**70, 1.5, float("nan"), "", "x" * 70, [], {}, [[]], "\ud800"]


def mutations(header, data):
    """Files of another structure, each with a right checksum."""
    record = json.loads(header["__metadata__"][KEY])
    for name in record:
        yield "without", name, {key: value for key, value in record.items() if key != name}
        for word in WORDS:
            if type(word) is not type(record[name]):
                yield "another", name, record | {name: word}
    yield "more", "", record | {"more": 1}
    for word in WORDS:
        yield "no record", word, word


def test_no_structure_is_believed_that_is_not_ours(file):
    header, data = parts_of(file.read_bytes())
    file.write_bytes(sealed(header, data))
    load_latents(file)  # the checksum made here is one that is believed
    for _, _, record in mutations(header, data):
        changed = json.loads(json.dumps(header))
        changed["__metadata__"][KEY] = json.dumps(record)
        file.write_bytes(sealed(changed, data))
        with pytest.raises(InputError):
            load_latents(file)


@pytest.mark.parametrize("name", ["latents", "cache_computed", "__metadata__"])
def test_no_array_is_believed_that_is_not_ours(file, name):
    header, data = parts_of(file.read_bytes())
    others = [{key: value for key, value in header.items() if key != name}]  # without it
    others += [header | {name: word} for word in WORDS]
    if name == "__metadata__":
        others += [header | {name: {KEY: word}} for word in WORDS]
    else:
        entry = header[name]
        others += [header | {name: entry | {key: word}} for key in entry for word in WORDS]
        others += [others[0] | {f"{name}x"[::-1]: entry}, others[0] | {"step": entry}]
        others += [header | {name: entry | {"shape": [2**40, 2**20]}}, header | {name: entry | {"dtype": "F16"}}]
    for other in others:
        file.write_bytes(sealed(json.loads(json.dumps(other)), data))
        with pytest.raises(InputError):
            load_latents(file)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_broken_numbers_are_no_latents(file, value):
    save_latents(file, saved(latents=np.full((1, 2, 1, 2, 2), value, np.float32)))
    with pytest.raises(InputError, match="no latents of a clip"):
        load_latents(file)


def test_what_an_earlier_version_saved_is_told(tmp_path):
    old = tmp_path / f"clip.mp4{OLD_ENDING}"
    np.savez(old, latents=np.zeros((1, 2, 1, 2, 2)))
    with pytest.raises(InputError, match=r"an earlier version, without a checksum.*begin the clip anew"):
        load_latents(old)


@pytest.mark.parametrize("content", [b"", b"PK nothing", b"\xff" * 64, b"\0" * 64, b"<!DOCTYPE html>" * 9])
def test_another_file_is_told(file, content):
    file.write_bytes(content)
    with pytest.raises(InputError, match="no saved latents that can be used"):
        load_latents(file)
