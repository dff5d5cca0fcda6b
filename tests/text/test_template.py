"""The templates are constants of the trained model: every byte counts."""

from __future__ import annotations

import hashlib

import pytest

from framewake.errors import InputError
from framewake.text import template

DIGESTS = {
    "dit-llm-encode-video-i2v": "7f45a330cc8fa70b613010c4fb6b4315a991c39eef7a405df46cb2591a547a21",
    "dit-llm-encode-i2v": "d5e508d91078ada4bb3ad22cf2508816eb89f99f332d382b9aa041580dc29ea5",
    "dit-llm-encode-video": "a52f68dde3637b127592fffe9e2483a5d0563987a49db6ddb9b06146f2ba7cb5",
    "dit-llm-encode": "e6794c248e31c8efee73f33028bbb095324ec79e0b05dfae78b373b0abd4fb98",
}


def test_every_byte():
    digests = {name: hashlib.sha256(t.text.encode()).hexdigest() for name, t in template.TEMPLATES.items()}
    assert digests == DIGESTS


def test_default_negative_prompts():
    joined = f"{template.NEGATIVE_PROMPT_I2V}|{template.NEGATIVE_PROMPT_T2V}"
    assert len(joined) == 82 + 1 + 138
    assert hashlib.sha256(joined.encode()).hexdigest()[:16] == "7567a29a2891172f"


def test_braces_in_a_prompt_are_text():
    assert "<|end_header_id|>\n\na {} b{0}<|eot_id|>" in template.VIDEO_I2V.fill("a {} b{0}")


def test_an_unknown_template_is_refused_with_the_nearest_name():
    with pytest.raises(InputError, match="Did you mean 'dit-llm-encode-video-i2v'"):
        template.get("dit-llm-encode-video-i2")
