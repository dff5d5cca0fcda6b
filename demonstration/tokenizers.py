"""Makes the two tokenizers of the demonstration checkpoint.

Both are real tokenizer folders that other libraries load too.  They are small because the world is:
every word of it is one token, and each long instruction of the prompt templates is one token, so that
the fixed text before a prompt takes 14 tokens instead of 103.  Any other text still becomes tokens, byte
by byte if need be.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from framewake.text.template import SENTENCES
from framewake.text.tokenize import CLIP_END, CLIP_START, build_clip

BEGIN, END_OF_TURN, IMAGE, PAD = "<|begin_of_text|>", "<|eot_id|>", "<image>", "<pad>"
HEADER_START, HEADER_END = "<|start_header_id|>", "<|end_header_id|>"
SPECIALS = (BEGIN, HEADER_START, HEADER_END, END_OF_TURN, IMAGE, PAD)
CLIP_LENGTH = 77
WORD_END = "</w>"  # of CLIP's tokens, which its model puts there itself
# How Llama 3 cuts text before merging: contractions, words with one leading mark, up to three digits,
# punctuation with the line ends after it, line ends with the space before them, other space.
LLAMA_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ROLES = ("system", "user", "assistant", "\n\n")


def write_tokenizers(folder: Path, corpus: Iterable[str]) -> None:
    """Write ``tokenizer/`` (LLaVA) and ``tokenizer_2/`` (CLIP) under a folder.

    The same corpus gives the same files and the same ids.
    """
    words = word_forms(corpus)
    write_llava(folder / "tokenizer", words)
    write_clip(folder / "tokenizer_2", words)


def word_forms(corpus: Iterable[str]) -> list[str]:
    """Every word of a corpus at the start of a text, in its middle, and with a capital letter, sorted."""
    found = sorted({word.lower() for text in corpus for word in re.findall(r"[^\W\d_]+", text)})
    return [form for word in found for form in (word, f" {word}", word.capitalize())]


def learn_merges(words: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Byte-pair merges that make every word one token, most frequent pair first, then by the alphabet.

    The tokenizers library learns them too, but in another order each time when words have a suffix.
    """
    rest = [list(word) for word in words]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for word in rest for pair in pairwise(word)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        rest = [merge_pair(word, best) for word in rest]
    return merges


def merge_pair(word: list[str], pair: tuple[str, str]) -> list[str]:
    """The word with every occurrence of a pair made one symbol, from the left."""
    joined: list[str] = []
    for symbol in word:
        if joined and (joined[-1], symbol) == pair:
            joined[-1] += symbol
        else:
            joined.append(symbol)
    return joined


def write_llava(folder: Path, words: list[str]) -> None:
    """The LLaVA tokenizer: byte-level pairs, Llama 3 control tokens, one token per template instruction."""
    cut = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    merges = learn_merges(piece for text in (*_ROLES, *words) for piece, _ in cut.pre_tokenize_str(text))
    tokens = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *dict.fromkeys(a + b for a, b in merges)]
    tokenizer = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
    # "up-left" is to be the words of "up left": a word without its space is another token, and would be one never seen.
    tokenizer.normalizer = normalizers.Replace(Regex(r"(?<=\p{L})-(?=\p{L})"), " ")
    tokenizer.pre_tokenizer = cut
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (*SENTENCES, *SPECIALS)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BEGIN} $A",
        pair=f"{BEGIN} $A {BEGIN}:1 $B:1",
        special_tokens=[(BEGIN, tokenizer.token_to_id(BEGIN))],
    )
    names = {"bos_token": BEGIN, "eos_token": END_OF_TURN, "pad_token": PAD}
    write_folder(folder, tokenizer, "PreTrainedTokenizerFast", names, {"padding_side": "right"})


def write_clip(folder: Path, words: list[str]) -> None:
    """The CLIP tokenizer: lower-case words that end in ``</w>``; the end token has the highest id."""
    cut = build_clip({CLIP_START: 0, CLIP_END: 1}, []).pre_tokenizer
    bare = sorted({word.strip().lower() for word in words})
    pieces = [piece for word in bare for piece, _ in cut.pre_tokenize_str(word)]
    merges = learn_merges([*piece[:-1], piece[-1] + WORD_END] for piece in pieces)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + WORD_END for letter in letters)]
    tokens += [token for token in dict.fromkeys(a + b for a, b in merges) if token not in set(tokens)]
    vocab = {token: i for i, token in enumerate([*tokens, CLIP_START, CLIP_END])}
    names = dict.fromkeys(("eos_token", "pad_token", "unk_token"), CLIP_END) | {"bos_token": CLIP_START}
    write_folder(folder, build_clip(vocab, merges), "CLIPTokenizer", names, {"model_max_length": CLIP_LENGTH})
    (folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(f"{a} {b}" for a, b in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def carried_rows(before: Path, now: Path, rows: np.ndarray) -> np.ndarray:
    """A table of embeddings for another tokenizer: what was a token keeps its row, what was several gets their mean.

    Shapes: rows (vocabulary before, D) -> (vocabulary now, D), of the same kind.
    """
    old, new = (Tokenizer.from_file(str(folder / "tokenizer.json")) for folder in (before, now))
    carried = np.zeros((new.get_vocab_size(), *rows.shape[1:]), rows.dtype)
    for token, number in new.get_vocab().items():
        known = old.token_to_id(token)
        pieces = [known] if known is not None else [p.id for p in old.model.tokenize(token.removesuffix(WORD_END))]
        carried[number] = rows[pieces].mean(axis=0)
    return carried


def write_folder(folder: Path, tokenizer: Tokenizer, kind: str, names: dict[str, str], more: dict) -> None:
    """``tokenizer.json`` with the two small files that say which token plays which part."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": kind, "clean_up_tokenization_spaces": False, **names, **more}
    for name, content in (("tokenizer_config.json", config), ("special_tokens_map.json", names)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
