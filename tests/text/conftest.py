"""Small tokenizers with the structure of the published ones, made on the spot."""

from __future__ import annotations

import json

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers, processors, trainers

from demonstration.tokenizers import LLAMA_PATTERN
from framewake.text import template
from framewake.text.tokenize import Tokenizer

CONTROL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
TEXTS = [
    *(t.before + t.after for t in template.TEMPLATES.values()),
    "A man walks.\n\nThen he stops, turns 180 degrees\nand it's over!  \n\n\n",
    "red circle\r\n\r\nblue square\t\tgreen ... !!!\n\n ?\n\n",
] * 3


def pre_tokenizer():
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def write(folder, tokenizer, **names):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """Byte-level pairs with Llama 3's pattern; ``<image>`` and ``<pad>`` are added but not special there."""
    whole = tokenizers.Tokenizer(models.BPE(ignore_merges=True))
    whole.pre_tokenizer, whole.decoder = pre_tokenizer(), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    whole.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=900, initial_alphabet=alphabet, show_progress=False)
    )
    whole.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    whole.add_tokens([AddedToken("<image>", normalized=False), AddedToken("<pad>", normalized=False)])
    begin = CONTROL[0]
    whole.post_processor = processors.TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, whole.token_to_id(begin))]
    )
    names = {"bos_token": begin, "eos_token": {"content": "<|eot_id|>"}, "pad_token": "<pad>"}
    return write(tmp_path_factory.mktemp("llama"), whole, **names)


@pytest.fixture(scope="session")
def llama(llama_folder):
    return Tokenizer.from_folder(llama_folder)


@pytest.fixture(scope="session")
def whole_llama(llama_folder):
    """The same file as the tokenizers library alone reads it, control tokens live everywhere."""
    return tokenizers.Tokenizer.from_file(str(llama_folder / "tokenizer.json"))
