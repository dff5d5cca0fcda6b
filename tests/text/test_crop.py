"""Where prompt and picture stand, at the published layout and around the length limit."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import AddedToken, Regex, models, pre_tokenizers

from demonstration.tokenizers import LLAMA_PATTERN
from framewake.errors import CheckpointError
from framewake.text import encode, template
from framewake.text.tokenize import Tokenizer

CASES = json.loads((Path(__file__).parent.parent / "golden" / "cases.json").read_text())["cases"]
PUBLISHED = next(case for case in CASES if case["id"] == "llava_empty")["inputs"]["input_ids"][:108]
CONTROL = {"<|begin_of_text|>": 128000, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007}
CONTROL |= {"<|eot_id|>": 128009, "<image>": 128257, "<pad>": 128258}
I2V = template.VIDEO_I2V


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """The published ids of the template's pieces: each piece of Llama 3's pattern is one id there."""
    split = pre_tokenizers.Split(Regex(LLAMA_PATTERN), behavior="isolated")
    texts = _without_control(I2V.before) + _without_control(I2V.after)
    pieces = [piece for text in texts for piece, _ in split.pre_tokenize_str(text)]
    ids = [i for i in PUBLISHED if i not in CONTROL.values()]
    vocab = dict(zip(pieces, ids, strict=True)) | CONTROL
    assert [vocab[piece] for piece in pieces] == ids
    # words for prompts of any length, and what else a prompt needs
    vocab |= {f" w{i}": 1000 + i for i in range(10)} | {"w": 999, "?": 998}
    whole = tokenizers.Tokenizer(models.WordLevel(vocab, unk_token="?"))
    whole.pre_tokenizer = pre_tokenizers.Split(
        Regex(LLAMA_PATTERN.replace(r"\p{L}+", r"\p{L}+\d?", 1)), behavior="isolated"
    )
    whole.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    folder = tmp_path_factory.mktemp("published")
    whole.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<|begin_of_text|>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return Tokenizer.from_folder(folder)


def _without_control(text):
    for token in CONTROL:
        text = text.replace(token, "\0")
    return [piece for piece in text.split("\0") if piece]


@pytest.fixture(scope="module")
def layout(published):
    return encode.derive_layout(published, I2V, image_token_id=128257, image_tokens=576)


def prompt_of(count):
    """A prompt of exactly ``count`` tokens."""
    return "w" + "".join(f" w{i % 10}" for i in range(count - 1)) if count else ""


def test_the_published_layout_is_derived(published, layout):
    assert encode.template_ids(published, I2V) == (PUBLISHED[:103], PUBLISHED[103:])
    assert (layout.crop_start, layout.image_at, layout.image_tokens) == (103, 5, 576)
    assert (layout.double_return_id, layout.dropped) == (271, 4)
    assert (layout.max_length, layout.prompt_limit) == (359, 252)


@pytest.mark.parametrize(
    ("count", "cut"), [(0, 0), (1, 0), (19, 0), (250, 0), (251, 0), (252, 0), (253, 1), (254, 2), (255, 3), (300, 48)]
)
def test_how_much_of_a_prompt_is_cut(engine, published, layout, count, cut):
    tokens = encode.encode_in_template(published, I2V, prompt_of(count), layout=layout)
    assert (tokens.prompt_tokens, tokens.cut_tokens) == (count, cut)
    assert tokens.cut == prompt_of(count).strip()[len(prompt_of(count - cut)) :].strip() if cut else tokens.cut == ""
    valid = int(tokens.mask.sum())
    assert valid == min(108 + count, 359)
    # every hidden state says where it stands, so that the crop can be read off
    positions = np.arange(valid - 1 + 576, dtype=np.float32)[None, :, None]
    states, (length,) = layout.kept(engine, engine.asarray(positions), tokens.ids, tokens.mask, interleave=4)
    found = engine.numpy(states)[0, :, 0].astype(int).tolist()
    picture, prompt = list(range(5, 581, 4)), [103 + 575 + i for i in range(count - cut)]
    end = [] if count > 251 else [valid - 1 + 575]
    assert found == picture + prompt + end
    assert length == len(found)


def test_a_blank_line_in_a_prompt_that_fits_changes_nothing(published, layout):
    tokens = encode.encode_in_template(published, I2V, "w w1\n\nw w2", layout=layout)
    assert (tokens.ids == 271).sum() == 5
    assert tokens.cut_tokens == 0


def test_a_blank_line_in_a_cut_prompt_loses_four_tokens_before_it(published, layout):
    prompt = prompt_of(100) + "\n\n" + prompt_of(300)
    tokens = encode.encode_in_template(published, I2V, prompt, layout=layout)
    # 401 tokens, 256 reach the model, and the four in front of the blank line go
    assert (tokens.prompt_tokens, tokens.cut_tokens) == (401, 401 - 256 + 4)
    assert tokens.cut.startswith("w5 w6 w7 w8 ... ")


def test_picture_steps(engine, published, layout):
    tokens = encode.encode_in_template(published, I2V, "w", layout=layout)
    hidden = engine.asarray(np.zeros((1, 109 + 575, 2), np.float32))
    lengths = {
        step: layout.kept(engine, hidden, tokens.ids, tokens.mask, interleave=step).lengths
        for step in (0, 1, 2, 4, 5, 6)
    }
    assert lengths == {0: (578,), 1: (578,), 2: (290,), 4: (146,), 5: (118,), 6: (578,)}


def test_rows_of_a_batch_equal_rows_alone(engine, published, layout):
    rows = [encode.encode_in_template(published, I2V, prompt_of(n), layout=layout) for n in (3, 300, 0)]
    ids, mask = np.concatenate([row.ids for row in rows]), np.concatenate([row.mask for row in rows])
    hidden = np.random.default_rng(1).standard_normal((3, 934, 2)).astype(np.float32)
    states, lengths = layout.kept(engine, engine.asarray(hidden), ids, mask, interleave=4)
    assert lengths == (144 + 4, 144 + 252, 144 + 1)
    for i, row in enumerate(rows):
        alone = layout.kept(engine, engine.asarray(hidden[i : i + 1]), row.ids, row.mask, interleave=4)
        np.testing.assert_array_equal(engine.numpy(states)[i, : lengths[i]], engine.numpy(alone.states)[0])
        assert not engine.numpy(states)[i, lengths[i] :].any()


def test_text_only_template_keeps_all_after_the_header(engine, llama):
    layout = encode.derive_layout(llama, template.VIDEO, image_token_id=llama.token_id("<image>"), image_tokens=9)
    assert (layout.image_at, layout.image_tokens, layout.dropped) == (None, 0, 0)
    tokens = encode.encode_in_template(llama, template.VIDEO, "red circle", layout=layout)
    valid = int(tokens.mask.sum())
    hidden = engine.asarray(np.arange(valid, dtype=np.float32)[None, :, None])
    states, lengths = layout.kept(engine, hidden, tokens.ids, tokens.mask, interleave=4)
    assert engine.numpy(states)[0, :, 0].tolist() == list(range(layout.crop_start, valid))
    assert lengths == (tokens.prompt_tokens + 1,)


def test_a_tokenizer_of_another_model_is_refused(published):
    with pytest.raises(CheckpointError, match="0 image ids 32000, expected 1"):
        encode.derive_layout(published, I2V, image_token_id=32000, image_tokens=576)
