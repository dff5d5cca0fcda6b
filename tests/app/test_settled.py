"""A request is settled once: one command plans once, and opens and parses everything once."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from engines_here import FIRST
from lora_files import keys_of, write
from PIL import Image

import framewake.app.animate
import framewake.cache
import framewake.lora
import framewake.media.picture
import framewake.pipeline.jobs
import framewake.weights.lora.file
import framewake.weights.lora.targets

# What is counted: a function, by its module and its name there.
COUNTED = [
    (framewake.pipeline.jobs, "plan_job"),
    (Image, "open"),  # reads the header
    (framewake.media.picture, "finished"),  # takes the pixels
    (framewake.weights.lora.file, "open_lora"),
    (framewake.lora, "parse_lora"),
    (framewake.cache, "parse_cache"),
    (framewake.weights.lora.targets.Targets, "__init__"),  # a list of all modules
]


@pytest.fixture
def counts(monkeypatch):
    """How often each function of ``COUNTED`` is called; it does what it did, wherever it was imported."""
    found = Counter()

    def counting(name, function):
        def counted(*given, **named):
            found[name] += 1
            return function(*given, **named)

        return counted

    for owner, name in COUNTED:
        function = getattr(owner, name)
        counted = counting(name, function)
        monkeypatch.setattr(owner, name, counted)
        for module in [module for key, module in sys.modules.items() if key.startswith("framewake.")]:
            if vars(module).get(name) is function:
                monkeypatch.setattr(module, name, counted)
    framewake.pipeline.adapters.targets_for.cache_clear()
    return found


def test_one_clip_is_settled_once(call, counts, toy, picture, tmp_path):
    lora = write(tmp_path / "a.safetensors", keys_of("kohya"))
    given = ("--lora", f"{lora}:0-1=1.0,1-2=0.5", "--cache", "fast", "--steps", "2", "--resolution", "360p")
    answer = call("animate", picture, "the red circle moves", *given, "--engine", FIRST, "-o", tmp_path / "a.webp")
    assert answer.code == 0, answer.err
    assert counts == {name: 1 for _, name in COUNTED}
