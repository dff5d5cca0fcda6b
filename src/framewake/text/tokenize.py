"""Text into token ids, from the files of a checkpoint's tokenizer folder.

A prompt is always plain text: control tokens exist only where a template puts them, so a prompt that
contains ``<image>`` or ``<|eot_id|>`` describes those characters (the original took them as commands).
"""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, processors

from framewake.errors import CheckpointError, InputError, parsing

MOST_BYTES = 1 << 28  # of one file; the largest tokenizers have a tenth of that
AGAIN = "Copy the tokenizer's files of the checkpoint again."
CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
CLIP_PATTERN = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class PlainTokens(NamedTuple):
    """Ids of a plain text, and the characters (first, one after the last) that each token stands for."""

    text: str
    ids: list[int]
    spans: list[tuple[int, int]]

    def lost(self, kept: set[int]) -> str:
        """The characters of the tokens whose index is not in ``kept``; gaps between pieces are " ... "."""
        pieces: list[tuple[int, int]] = []
        for index, (start, end) in enumerate(self.spans):
            if index in kept:
                continue
            if pieces and index - 1 not in kept:
                pieces[-1] = (pieces[-1][0], end)
            else:
                pieces.append((start, end))
        return " ... ".join(self.text[start:end].strip() for start, end in pieces)


class Tokenizer:
    """One tokenizer folder: plain text and control texts into ids."""

    def __init__(
        self, tokenizer: tokenizers.Tokenizer, names: dict[str, str | None], *, folder: Path | str = "memory"
    ) -> None:
        self.folder = folder
        self._tokenizer = tokenizer
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._names = names
        self._lock = threading.Lock()

    @classmethod
    def from_folder(cls, folder: Path | str) -> Tokenizer:
        """Read ``tokenizer.json``, or ``vocab.json`` with ``merges.txt`` for CLIP.

        Raises: CheckpointError when the files are missing or damaged.
        """
        folder = Path(folder)
        whole = folder / "tokenizer.json"
        if whole.is_file():
            tokenizer = _read_whole(whole)
        elif (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
            tokenizer = _read_clip_files(folder)
        else:
            raise CheckpointError(
                f"no tokenizer in {folder}: expected tokenizer.json, or vocab.json and merges.txt; "
                "copy the tokenizer files of the checkpoint into that folder."
            )
        return cls(tokenizer, _read_names(folder), folder=folder)

    @property
    def vocab_size(self) -> int:
        """One more than the highest id."""
        return max(self._tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    def token_id(self, token: str) -> int | None:
        """The id of one token as it stands in the vocabulary, None when it is not there."""
        return self._tokenizer.token_to_id(token)

    def named_id(self, name: str) -> int | None:
        """The id of "bos_token", "eos_token" or "pad_token", None when the folder names none."""
        token = self._names.get(name)
        return None if token is None else self.token_id(token)

    def plain(self, text: str) -> PlainTokens:
        """Ids of a text in which nothing is a control token.

        Raises: InputError for half of a surrogate pair, which a shell makes of bytes that are no text.
        """
        broken = re.search("[\ud800-\udfff]", text)
        if broken:
            raise InputError(
                f"character {broken.start()} is not valid Unicode: {text!r}; type the prompt again in UTF-8."
            )
        encoding = self._encode(text, is_plain=True)
        return PlainTokens(text, encoding.ids, encoding.offsets)

    def control(self, text: str) -> list[int]:
        """Ids of a text in which control tokens count, without any added at the ends."""
        return self._encode(text, is_plain=False).ids

    def _encode(self, text: str, *, is_plain: bool) -> tokenizers.Encoding:
        # The switch belongs to the tokenizer, not to the call: two threads must not meet here.
        with self._lock:
            self._tokenizer.encode_special_tokens = is_plain
            with parsing(CheckpointError, f"the tokenizer in {self.folder} cannot make ids of {text[:40]!r}", AGAIN):
                return self._tokenizer.encode(text, add_special_tokens=False)


def build_clip(vocab: dict[str, int], merges: list[tuple[str, str]]) -> tokenizers.Tokenizer:
    """CLIP's tokenizer from its vocabulary and merges: lower case, words that end in ``</w>``."""
    tokenizer = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            unk_token=CLIP_END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(CLIP_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing(
        (CLIP_END, vocab[CLIP_END]), (CLIP_START, vocab[CLIP_START]), trim_offsets=False, add_prefix_space=False
    )
    tokenizer.add_special_tokens([CLIP_START, CLIP_END])
    return tokenizer


def _read_whole(path: Path) -> tokenizers.Tokenizer:
    content = _object(path)
    with parsing(CheckpointError, f"{path} is not a readable tokenizer", AGAIN):
        # Every added token is a control token: only those are left alone when a text is plain.
        for token in content.get("added_tokens") or []:
            token["special"] = True
        found = tokenizers.Tokenizer.from_str(json.dumps(content))
        found.encode("a b", add_special_tokens=False)  # some are refused only by the first text
        return found


def _read_clip_files(folder: Path) -> tokenizers.Tokenizer:
    vocab = _object(folder / "vocab.json")
    with parsing(CheckpointError, f"{folder} has no readable vocab.json and merges.txt", AGAIN):
        lines = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
        merges = [_pair(line) for line in lines if line and not line.startswith("#version")]
        return build_clip(vocab, merges)


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file."""
    with parsing(CheckpointError, f"{path} is not readable JSON", AGAIN):
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise CheckpointError(f"{path} has {size} bytes, which no tokenizer's file has. {AGAIN}")
        text = path.read_text(encoding="utf-8")
        if text.startswith("version https://git-lfs"):
            raise CheckpointError(
                f"{path} is a Git LFS pointer. Run `git lfs pull` in its folder, or download the file."
            )
        content = json.loads(text)
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds a {type(content).__name__}, not an object. {AGAIN}")
    return content


def _pair(line: str) -> tuple[str, str]:
    first, second = line.split()
    return first, second


def _read_names(folder: Path) -> dict[str, str | None]:
    """Which token is "bos_token" and so on; a later file wins where both say it."""
    names: dict[str, str | None] = {}
    for file in ("special_tokens_map.json", "tokenizer_config.json"):
        path = folder / file
        if not path.is_file():
            continue
        content = _object(path)
        for name in ("bos_token", "eos_token", "pad_token"):
            value = content.get(name)
            if isinstance(value, dict):
                value = value.get("content")
            if isinstance(value, str):
                if not value.isprintable() and re.search("[\ud800-\udfff]", value):
                    raise CheckpointError(f"{path} says {name} is {value!r}, which is no text. {AGAIN}")
                names[name] = value
    return names
