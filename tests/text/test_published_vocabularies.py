"""Ids of the published vocabularies: the original's, and those of transformers for prompts that few people type."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from published_vocabularies import EXPECTED, IMAGE, MERGES, PROMPTS, RANKS, write_clip, write_llama

from framewake.text import encode, template
from framewake.text.tokenize import Tokenizer

CASES = json.loads((Path(__file__).parent.parent / "golden" / "cases.json").read_text())["cases"]
TEMPLATE = next(case for case in CASES if case["id"] == "llava_empty")["inputs"]["input_ids"][:108]
ARTICLE = "An Asian man with short hair in black tactical uniform and white clothes waves a firework stick."
ARTICLE_IDS = [2127, 14875, 893, 449, 2875, 7013, 304, 3776, 39747, 14113, 323, 4251, 15447, 17301, 264, 4027, 1816]
ARTICLE_IDS += [9396, 13]
CAT = [49406, 320, 1125, 539, 320, 2368, 49407]  # "a photo of a cat", known from CLIP itself
ODD = json.loads(EXPECTED.read_text(encoding="utf-8"))

pytestmark = pytest.mark.skipif(
    not (RANKS.exists() and MERGES.exists()), reason="the published vocabularies are not here: scripts/setup tests"
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return Tokenizer.from_folder(write_llama(tmp_path_factory.mktemp("published") / "llama"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return Tokenizer.from_folder(write_clip(tmp_path_factory.mktemp("published") / "clip"))


@pytest.fixture(scope="module")
def layout(llama):
    return encode.derive_layout(llama, template.VIDEO_I2V, image_token_id=128257, image_tokens=576)


def in_template(llama, layout, prompt):
    """The ids of a whole text, without what it is padded with."""
    tokens = encode.encode_in_template(llama, template.VIDEO_I2V, prompt, layout=layout)
    return tokens.ids[0, : int(tokens.mask.sum())].tolist()


def test_the_template_has_the_ids_of_the_original(llama, layout):
    assert (len(TEMPLATE), layout.crop_start, layout.image_at) == (108, 103, 5)
    assert encode.template_ids(llama, template.VIDEO_I2V) == (TEMPLATE[:103], TEMPLATE[103:])
    assert (llama.vocab_size, llama.named_id("pad_token"), llama.token_id(IMAGE)) == (128259, 128258, 128257)


def test_the_prompt_of_the_article_has_the_ids_of_the_original(llama, layout):
    assert in_template(llama, layout, ARTICLE) == [*TEMPLATE[:103], *ARTICLE_IDS, *TEMPLATE[103:]]


@pytest.mark.parametrize("entry", ODD, ids=[str(i) for i in range(len(ODD))])
def test_odd_prompts_have_the_ids_of_transformers(llama, clip, layout, entry):
    prompt = entry["prompt"]
    assert prompt == prompt.strip()
    assert in_template(llama, layout, prompt) == [*TEMPLATE[:103], *entry["llama"], *TEMPLATE[103:]]
    tokens = encode.encode_clip(clip, prompt, 77)
    assert tokens.ids[0, : int(tokens.mask.sum())].tolist() == entry["clip"]


def test_clip_has_its_known_ids(clip):
    assert encode.encode_clip(clip, "a photo of a cat", 77).ids[0, :7].tolist() == CAT
    assert (clip.vocab_size, clip.named_id("eos_token")) == (49408, 49407)


def test_the_expected_ids_are_of_these_prompts():
    assert [entry["prompt"] for entry in ODD] == PROMPTS and len(PROMPTS) == 12
