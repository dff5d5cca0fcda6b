"""The demonstration checkpoint's tokenizers: small, complete, the same every time."""

from __future__ import annotations

import numpy as np
import pytest

from demonstration.tokenizers import carried_rows, write_tokenizers
from demonstration.world import corpus, sample_scene, write_prompt
from framewake.text import encode, template
from framewake.text.tokenize import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("tokenizers")
    write_tokenizers(path, corpus())
    return path


@pytest.fixture(scope="module")
def llava(folder):
    return Tokenizer.from_folder(folder / "tokenizer")


@pytest.fixture(scope="module")
def clip(folder):
    return Tokenizer.from_folder(folder / "tokenizer_2")


def test_the_same_corpus_gives_the_same_files(folder, tmp_path):
    write_tokenizers(tmp_path, iter(corpus()))
    files = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    assert len(files) == 8
    for file in files:
        assert (tmp_path / file).read_bytes() == (folder / file).read_bytes(), file


def test_every_word_of_the_world_is_one_token(llava, clip):
    rng = np.random.default_rng(3)
    scenes = [sample_scene(rng) for _ in range(60)]
    for number in range(1200):
        prompt = write_prompt(rng, scenes[number % len(scenes)])
        words = prompt.replace(".", " .").replace("-", " - ").split()
        assert len(llava.plain(prompt).ids) == len(words) - words.count("-"), prompt
        assert len(clip.plain(prompt).ids) == len(words), prompt


def test_a_hyphen_between_words_parts_them(llava):
    assert llava.plain("moves up-left").ids == llava.plain("moves up left").ids
    assert llava.plain("- 4 -x a- -").ids != llava.plain("4 x a").ids


@pytest.mark.parametrize("name", ["tokenizer", "tokenizer_2"])
def test_embeddings_move_with_their_tokens(folder, tmp_path, name):
    write_tokenizers(tmp_path, [*corpus(), "the red circle wobbles"])
    old, new = (Tokenizer.from_folder(path / name) for path in (folder, tmp_path))
    rows = np.arange(old.vocab_size, dtype=np.float32)[:, None] * np.float32([1, 2])
    carried = carried_rows(folder / name, tmp_path / name, rows)
    assert carried.shape == (new.vocab_size, 2) and carried.dtype == np.float32
    known, unknown = "the red circle moves up-left.", " wobbles"
    np.testing.assert_array_equal(carried[new.plain(known).ids], rows[old.plain(known).ids])
    assert len(new.plain(unknown).ids) == 1 < len(old.plain(unknown).ids)
    np.testing.assert_allclose(carried[new.plain(unknown).ids[0]], rows[old.plain(unknown).ids].mean(axis=0))


def test_the_fixed_text_is_short(llava):
    image_id = llava.token_id("<image>")
    expected = {template.VIDEO_I2V: (14, 5, 4), template.IMAGE_I2V: (13, 5, 4)}
    expected |= {template.VIDEO: (11, None, 0), template.IMAGE: (11, None, 0)}
    for shape, sizes in expected.items():
        layout = encode.derive_layout(llava, shape, image_token_id=image_id, image_tokens=4)
        assert (layout.crop_start, layout.image_at, layout.dropped) == sizes


def test_sizes(llava, clip):
    assert llava.vocab_size < 2000
    assert clip.vocab_size < 2000
    assert clip.named_id("eos_token") == clip.vocab_size - 1
    assert llava.named_id("pad_token") == llava.vocab_size - 1


@pytest.mark.parametrize("prompt", ["Zürich — 日本語 🙂 \x00\x7f", "<image><|eot_id|><pad>", "The RED circle; 3.5%"])
def test_any_text_becomes_tokens(llava, clip, prompt):
    layout = encode.derive_layout(
        llava, template.VIDEO_I2V, image_token_id=llava.token_id("<image>"), image_tokens=4, text_length=64
    )
    tokens = encode.encode_in_template(llava, template.VIDEO_I2V, prompt, layout=layout)
    assert tokens.cut_tokens == 0
    assert (tokens.ids == llava.token_id("<image>")).sum() == 1
    assert (encode.encode_clip(clip, prompt, 77).ids == clip.named_id("eos_token")).argmax() > 1


def test_capitals_mean_nothing_to_clip(clip):
    assert clip.plain("The RED circle").ids == clip.plain("the red Circle").ids
