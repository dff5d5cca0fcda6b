"""A LoRA with its weights as one text."""

from __future__ import annotations

import pytest

from framewake.errors import InputError
from framewake.lora import LoraUse, Span, parse_lora


@pytest.mark.parametrize(
    ("text", "path", "weight"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("a.safetensors:-1", "a.safetensors", -1.0),
        ("a.safetensors:.5e-1", "a.safetensors", 0.05),
        ("a.safetensors:0", "a.safetensors", 0.0),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1.0),
        (r"C:\loras\a.safetensors:0.8", r"C:\loras\a.safetensors", 0.8),
        ("C:/a b:c/x.safetensors:+2", "C:/a b:c/x.safetensors", 2.0),
        ("/loras/12:30/a.safetensors", "/loras/12:30/a.safetensors", 1.0),
        ("folder:0.5", "folder", 0.5),
        ("a.pt:0.5", "a.pt", 0.5),
    ],
)
def test_one_weight(text, path, weight):
    assert parse_lora(text) == LoraUse(path, (Span(0, None, weight),))
    assert [parse_lora(text).weight(step) for step in (0, 7, 999)] == [weight] * 3


def test_weights_by_step():
    use = parse_lora(r"D:\x.safetensors:0-20=1.0,20-50=0.4")
    assert use.path == r"D:\x.safetensors"
    assert [use.weight(step) for step in (0, 19, 20, 49, 50)] == [1.0, 1.0, 0.4, 0.4, 0.0]
    assert use.strongest() == 1.0 and use.last_start() == 20
    gap = parse_lora("x:5-6=-3, 1-2=2")
    assert [gap.weight(step) for step in range(7)] == [0, 2, 0, 0, 0, -3, 0] and gap.strongest() == -3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is empty"),
        ("a.safetensors:", "the weight '' is no number"),
        ("a.safetensors:0.8x", "the weight '0.8x' is no number"),
        ("a.safetensors:nan", "no number"),
        ("a.safetensors:101", "from -100 to 100"),
        ("a.safetensors:1e999", "no number from"),
        ("a.safetensors:0-20=1,15-50=2", "'15-50=2' overlaps"),
        ("a.safetensors:20-20=1", "'20-20=1' holds no step"),
        ("a.safetensors:0-20=1,0.5", "'0.5' is no span"),
        ("a.safetensors:0-20=x", "the weight 'x'"),
        ("a.safetensors:-5-20=1", "no span"),
    ],
)
def test_mistakes(text, words):
    with pytest.raises(InputError, match=words):
        parse_lora(text)
