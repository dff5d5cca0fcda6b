"""A checkpoint's small files with anything in them: used, or refused as ours; nothing else ever comes out."""

from __future__ import annotations

import copy
import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from toy_checkpoint import write_toy

from framewake.errors import CheckpointError, FramewakeError
from framewake.pipeline.checkpoint import check_whole, open_whole
from framewake.weights.reading.files import open_tensors, weight_files
from framewake.weights.writing.files import write_tensors

# What a place of a JSON file may hold instead of what belongs there.
STRANGE = [
    None, True, False, 0, -1, 1, 2**31, 2**63, 2**70, 1e400, -0.5, float("nan"), "", "x", "\ud800", "\0", "../../etc",
    "a" * 5000, [], {}, [[]], [None], {"": None}, [1, 2, 3], {"content": 3}, {"type": "BPE"}, [[[[[[]]]]]],
]  # fmt: skip
FILES = [
    "model_index.json", "framewake.json", "transformer/config.json", "vae/config.json", "text_encoder/config.json",
    "text_encoder_2/config.json", "image_processor/preprocessor_config.json", "tokenizer/tokenizer.json",
    "tokenizer/tokenizer_config.json", "tokenizer/special_tokens_map.json", "tokenizer_2/tokenizer.json",
    "tokenizer_2/tokenizer_config.json",
]  # fmt: skip
ROUNDS = 20


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture
def folder(toy, tmp_path):
    return shutil.copytree(toy, tmp_path / "copy")


def places(content, path=()):
    """Every place of a JSON document; of long lists and tables, a few."""
    yield path
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(items)[:12]:
        yield from places(value, (*path, key))


def changed(content, path, value):
    """The document with one place replaced, removed or, in a table, renamed."""
    content = copy.deepcopy(content)
    if not path:
        return value
    at = content
    for key in path[:-1]:
        at = at[key]
    if value == "\0":
        del at[path[-1]]
    elif value == "x" and isinstance(at, dict):
        at["x"] = at.pop(path[-1])
    else:
        at[path[-1]] = value
    return content


def opened(folder):
    """What a folder is found to be: None where it can be used, else what was said."""
    try:
        open_whole(folder)
    except FramewakeError as error:
        assert str(error)
        return str(error)
    return None


@pytest.mark.parametrize("name", FILES)
def test_json_files_with_anything_in_them(folder, name):
    path = folder / name
    before = json.loads(path.read_text(encoding="utf-8"))
    found = list(places(before))
    chance = random.Random(name)
    for _ in range(ROUNDS):
        content = changed(before, chance.choice(found), chance.choice(STRANGE))
        path.write_text(json.dumps(content), encoding="utf-8")
        opened(folder)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe{\0}\0",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"9" * 10_000,
        b'{"a": 1, "a": 2}',
        b"\0" * 100,
        b"null",
    ],
    ids=["empty", "utf16", "deep list", "deep table", "long number", "twice", "zeros", "null"],
)
def test_json_files_that_are_none(folder, name, content):
    (folder / name).write_bytes(content)
    said = opened(folder)
    assert content == b'{"a": 1, "a": 2}' or name in ("model_index.json",) or Path(name).name in said or "token" in said


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_folders_or_gone(folder, name):
    (folder / name).unlink()
    opened(folder)
    (folder / name).mkdir()
    opened(folder)


TOKENS = "tokenizer/tokenizer.json"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c["added_tokens"][0].update(content="\ud800"),
        lambda c: c["added_tokens"][0].update(id=2**31),
        lambda c: c["model"]["vocab"].update({"zz": 2**32 - 1}),
        lambda c: c["model"]["merges"].append(["no", "such"]),
        lambda c: c["model"].update(vocab={}),
        lambda c: c["normalizer"].update(pattern={"Regex": "("}),
        lambda c: c["normalizer"].update(pattern={"Regex": "(a+)+$" * 50}),
        lambda c: c["pre_tokenizer"].update(pretokenizers=[{"type": "Split", "pattern": {"Regex": "[[["}}]),
        lambda c: c.update(truncation={"max_length": 0, "strategy": "LongestFirst", "stride": 7, "direction": "Left"}),
        lambda c: c.update(padding={"strategy": {"Fixed": 2**40}, "direction": "Left", "pad_id": 0}),
        lambda c: c.update(pre_tokenizer={"type": "ByteLevel"}),
    ],
)
def test_tokenizers_that_their_library_does_not_survive(folder, change):
    path = folder / TOKENS
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    opened(folder)


def test_special_tokens_that_are_no_text(folder):
    path = folder / "tokenizer" / "tokenizer_config.json"
    path.write_text('{"bos_token": "\\ud800"}')
    assert "no text" in opened(folder)


def test_a_tokenizer_of_another_model(folder):
    shutil.copytree(folder / "tokenizer_2", folder / "tokenizer", dirs_exist_ok=True)
    assert "token" in opened(folder)
    path = folder / "text_encoder_2" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 3}))
    assert "instead of [3, 16]" in opened(folder)


INDEX = "diffusion_pytorch_model.safetensors.index.json"


@pytest.mark.parametrize(
    "shard",
    [
        INDEX, "other.safetensors.index.json", "\0.safetensors", "/etc/passwd", "../vae/x.safetensors", "..", ".", "",
        "\ud800.safetensors", "a\nb.safetensors", "C:\\x.safetensors", "config.json", "x" * 300,
    ],
)  # fmt: skip
def test_an_index_that_points_elsewhere(folder, shard):
    part = folder / "transformer"
    (part / "other.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": INDEX}}))
    (part / INDEX).write_text(json.dumps({"weight_map": {"x": shard}}))
    for look in (open_tensors, weight_files):
        with pytest.raises(CheckpointError, match="transformer"):
            look(part / INDEX)


@pytest.mark.parametrize(
    "content", ['{"weight_map": {}}', '{"weight_map": []}', "{}", '{"weight_map": {"x": 3}}', "[]"]
)
def test_an_index_without_places(folder, content):
    (folder / "transformer" / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=r"weight_map|not an object"):
        open_tensors(folder / "transformer" / INDEX)


def sharded(part, count=3):
    """A part in several files under an index; the names of the files."""
    (whole,) = part.glob("*.safetensors")
    file = open_tensors(whole)
    groups = [list(file.names())[i::count] for i in range(count)]
    shards = [f"diffusion_pytorch_model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)]
    for shard, names in zip(shards, groups, strict=True):
        write_tensors(part / shard, {name: file.read(name) for name in names})
    places = {name: shard for shard, names in zip(shards, groups, strict=True) for name in names}
    (part / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    whole.unlink()
    return shards


def test_shards(folder):
    part = folder / "transformer"
    shards = sharded(part)
    assert opened(folder) is None
    (part / shards[1]).rename(part / f"{shards[1]}.incomplete")
    (part / shards[2]).unlink()
    said = opened(folder)
    assert (
        f"lacks 2 of the 3 files that {INDEX} names, first {shards[1]!r}" in said and f"{shards[1]}.incomplete" in said
    )
    (part / INDEX).unlink()
    (part / shards[2]).write_bytes((part / shards[0]).read_bytes())
    assert "whose index, *.index.json, is missing" in opened(folder)


def test_all_faults_at_once(folder):
    write_tensors(next((folder / "vae").glob("*.safetensors")), {"x": np.zeros(2, np.float32)})
    path = next((folder / "text_encoder").glob("*.safetensors"))
    path.write_bytes(path.read_bytes()[:-1000])
    said = opened(folder)
    assert "2 of 4 parts cannot be used" in said and "autoencoder:" in said and "LLaVA text encoder:" in said


def test_a_config_that_contradicts_the_tensors(folder):
    path = folder / "transformer" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"num_layers": 4}))
    said = opened(folder)
    assert "does not fit the model" in said and f"In {path}, double_blocks is 4 and the tensors' 1." in said
    with pytest.raises(CheckpointError):
        check_whole(open_whole(folder))


def test_more_layers_than_the_config_says(folder):
    """The last layers of a text encoder are not read, so that nothing else would tell."""
    (path,) = (folder / "text_encoder").glob("*.safetensors")
    file = open_tensors(path)
    tensors = {name: file.read(name) for name in file.names()}
    first = {name: values for name, values in tensors.items() if ".layers.0." in name}
    write_tensors(path, tensors | {name.replace(".layers.0.", ".layers.2."): values for name, values in first.items()})
    assert opened(folder) is None
    write_tensors(path, tensors | {name.replace(".layers.0.", ".layers.7."): values for name, values in first.items()})
    assert "has 8 layers, and" in opened(folder)
