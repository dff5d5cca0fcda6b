"""Prompts into ids: equal to the whole text's ids, and never control tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from framewake.errors import CheckpointError, InputError
from framewake.text import encode, template
from framewake.text.tokenize import CLIP_END, CLIP_START, Tokenizer, build_clip

PROMPTS = st.lists(
    st.sampled_from(
        ["a", "red", "circle", " ", "\n", "\n\n", "\t", ".", "!?", "12345", "é", "红", "it's", "\r\n", "\x85"]
    )
    | st.text(max_size=4),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("shape", template.TEMPLATES.values(), ids=lambda t: t.name)
@settings(max_examples=100, deadline=None)
@given(prompt=PROMPTS)
def test_parts_give_the_ids_of_the_whole_text(llama, whole_llama, shape, prompt):
    layout = encode.derive_layout(
        llama, shape, image_token_id=llama.token_id("<image>"), image_tokens=9, text_length=100
    )
    tokens = encode.encode_in_template(llama, shape, prompt, layout=layout)
    expected = whole_llama.encode(shape.fill(prompt.strip())).ids[: layout.max_length]
    assert tokens.ids[0, : int(tokens.mask.sum())].tolist() == expected
    assert (tokens.ids[0, int(tokens.mask.sum()) :] == llama.named_id("pad_token")).all()


@pytest.mark.parametrize("text", ["<image>", "<|eot_id|>", "<|start_header_id|>", "<pad>", "<|begin_of_text|>"])
def test_control_tokens_in_a_prompt_are_text(llama, text):
    control = {llama.token_id(token) for token in ("<image>", "<pad>", "<|eot_id|>", "<|start_header_id|>")}
    tokens = llama.plain(f"a sign that says {text} in red")
    assert not control & set(tokens.ids)
    assert llama.token_id("<|begin_of_text|>") not in tokens.ids
    assert len(tokens.ids) > len(llama.plain("a sign that says in red").ids)
    # the switch between plain and control text does not stick
    assert llama.control(text) == [llama.token_id(text)]


def test_text_that_is_not_unicode_is_refused(llama):
    with pytest.raises(InputError, match="character 4 is not valid Unicode"):
        llama.plain("red \udcff")


def test_names_are_read_from_either_file(llama_folder, tmp_path):
    for file in ("tokenizer.json",):
        (tmp_path / file).write_bytes((llama_folder / file).read_bytes())
    assert Tokenizer.from_folder(tmp_path).named_id("bos_token") is None
    (tmp_path / "special_tokens_map.json").write_text(json.dumps({"bos_token": {"content": "<pad>"}}))
    assert Tokenizer.from_folder(tmp_path).named_id("bos_token") == Tokenizer.from_folder(tmp_path).token_id("<pad>")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<image>", "pad_token": None}))
    tokenizer = Tokenizer.from_folder(tmp_path)
    assert tokenizer.named_id("bos_token") == tokenizer.token_id("<image>")
    assert tokenizer.vocab_size == tokenizer.token_id("<pad>") + 1


def clip_files():
    letters = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    merges = [("r", "e"), ("re", "d</w>"), ("c", "a"), ("ca", "t</w>")]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *(a + b for a, b in merges), CLIP_START, CLIP_END]
    return {token: i for i, token in enumerate(tokens)}, merges


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    vocab, merges = clip_files()
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    names = {"bos_token": CLIP_START, "eos_token": CLIP_END, "pad_token": CLIP_END, "unk_token": CLIP_END}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def test_clip_from_vocabulary_and_merges(clip_folder):
    clip = Tokenizer.from_folder(clip_folder)
    vocab, _ = clip_files()
    tokens = encode.encode_clip(clip, "  A  RED\n cat! ", 9)
    words = [CLIP_START, "a</w>", "red</w>", "cat</w>", "!</w>", CLIP_END, CLIP_END, CLIP_END, CLIP_END]
    assert tokens.ids.tolist() == [[vocab[word] for word in words]]
    assert tokens.mask.tolist() == [[1, 1, 1, 1, 1, 1, 0, 0, 0]]
    assert tokens.ids.argmax() == 5
    assert (tokens.prompt_tokens, tokens.cut_tokens, tokens.cut) == (4, 0, "")


def test_clip_from_one_file_is_the_same(clip_folder, tmp_path):
    build_clip(*clip_files()).save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_bytes((clip_folder / "tokenizer_config.json").read_bytes())
    one, two = Tokenizer.from_folder(clip_folder), Tokenizer.from_folder(tmp_path)
    for text in ("a red cat", "ReD CAT's 12 ñandú — 红", ""):
        np.testing.assert_array_equal(encode.encode_clip(one, text, 77).ids, encode.encode_clip(two, text, 77).ids)


def test_clip_says_what_it_cut(clip_folder):
    tokens = encode.encode_clip(Tokenizer.from_folder(clip_folder), "red cat red Cat, red", 5)
    assert (tokens.prompt_tokens, tokens.cut_tokens, tokens.cut) == (6, 3, "Cat, red")
    assert int(tokens.mask.sum()) == 5
    assert tokens.ids[0, -1] == clip_files()[0][CLIP_END]


def test_clip_end_token_in_a_prompt_is_text(clip_folder):
    vocab, _ = clip_files()
    tokens = encode.encode_clip(Tokenizer.from_folder(clip_folder), f"red {CLIP_END} cat", 77)
    valid = int(tokens.mask.sum())
    assert np.flatnonzero(tokens.ids[0] == vocab[CLIP_END])[0] == valid - 1
    assert valid > 5


def test_missing_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"expected tokenizer\.json, or vocab\.json and merges\.txt"):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"model": {"type": "Nothing"}}', '{"added_tokens": [3]}'])
def test_a_damaged_file_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(
        CheckpointError, match=r"tokenizer\.json (is not a readable tokenizer|is not readable JSON|holds a list)"
    ):
        Tokenizer.from_folder(tmp_path)


@pytest.mark.parametrize("content", ["", "[]", "3"])
def test_damaged_names_are_refused(llama_folder, tmp_path, content):
    (tmp_path / "tokenizer.json").write_bytes((llama_folder / "tokenizer.json").read_bytes())
    (tmp_path / "special_tokens_map.json").write_text(content)
    with pytest.raises(CheckpointError, match="special_tokens_map"):
        Tokenizer.from_folder(tmp_path)


def test_damaged_clip_files_are_refused(clip_folder, tmp_path):
    (tmp_path / "vocab.json").write_bytes((clip_folder / "vocab.json").read_bytes())
    (tmp_path / "merges.txt").write_text("not a pair of tokens\n")
    with pytest.raises(CheckpointError, match="no readable vocab"):
        Tokenizer.from_folder(tmp_path)
