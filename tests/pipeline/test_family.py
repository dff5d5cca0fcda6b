"""Another family of models: one component more is a row and a class, and nothing else of the package knows of it."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace

import numpy as np
import pytest

from framewake.errors import CheckpointError, InputError
from framewake.golden import rule
from framewake.pipeline import Job, Pipeline
from framewake.pipeline.condition import TextReader
from framewake.pipeline.family import TextEncoder
from framewake.pipeline.forecast import forecast
from framewake.pipeline.forecast.probe import Rates
from framewake.pipeline.hunyuan import HUNYUAN
from framewake.pipeline.precision import choose_precision
from framewake.weights.checkpoint.component import Component, table
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import SinglePart, open_checkpoint
from framewake.weights.checkpoint.verify import verify
from framewake.weights.reading.names import NameRule
from framewake.weights.writing.convert import LAYOUTS, convert
from framewake.weights.writing.export import write_component
from framewake.weights.writing.files import write_tensors


@dataclass(frozen=True)
class WordsConfig:
    """A table of so many words."""

    words: int
    width: int


class Words:
    """The mean of a prompt's words, each a row of a table."""

    def __init__(self, engine, config):
        self.engine = engine
        self.config = config

    def shapes(self):
        return {"words.weight": (self.config.words, self.config.width)}

    def streams(self):
        return ()

    def __call__(self, w, ids):
        ids = self.engine.asarray(ids % self.config.words)
        return self.engine.mean(self.engine.embedding(w.part("words")["weight"], ids), (1,))


WORDS = Component(
    name="words",
    word="table of words",
    role="third text encoder",
    flag="words",
    folder="text_encoder_3",
    library="transformers",
    kind="WordsModel",
    tencent="text_encoder_3/words.pt",
    read=lambda content: WordsConfig(content["words"], content["width"]),
    infer=lambda shapes, hints: WordsConfig(*shapes["words.weight"]),
    write=asdict,
    marks=("words.weight", "lexicon.weight"),
    rules=lambda held, config: [NameRule(name.replace("lexicon", "words"), (name,)) for name in held],
    told=("words",),
    meets=lambda config: {"pooled": ("the table's width", config.width)},
)
COMPONENTS = table(*HUNYUAN.components.values(), WORDS)


class Reader(TextReader):
    """The words' mean is added to the pooled vector."""

    def states(self, parts, prompts, semantic, dtype):
        states = super().states(parts, prompts, semantic, dtype)
        ids = np.concatenate([tokens.clip.ids for tokens in prompts])
        words = parts.get("words", dtype)
        return states._replace(pooled=states.pooled + words.model(words.weights, ids))


FAMILY = replace(
    HUNYUAN,
    components=COMPONENTS,
    reader=Reader,
    encoders=(
        *HUNYUAN.encoders,
        TextEncoder(
            WORDS,
            Words,
            work_bytes=lambda config, scene, dtype, is_composed: 3 << 20,
            operations=lambda config, parameters, tokens: 1e12 * tokens,
            layers=lambda config: 0,
        ),
    ),
)


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    """The toy checkpoint with the component more; nobody wrote it into the index."""
    folder = shutil.copytree(toy, tmp_path_factory.mktemp("family") / "whole")
    config = WordsConfig(11, 16)
    write_component(folder, WORDS, config, rule.weights(Words(None, config).shapes(), seed=3), dtype="float32")
    return folder


def opened(folder, *parts):
    return open_checkpoint(folder, parse_files(parts, COMPONENTS), components=COMPONENTS)


def frames(checkpoint, engine, request, family=FAMILY):
    return list(Pipeline(checkpoint, engine, family=family).run(request))[-1].frames


def test_it_is_computed_with(folder, toy, engine, request_of):
    found = frames(opened(folder), engine, request_of())
    assert not np.array_equal(found, frames(open_checkpoint(toy), engine, request_of(), HUNYUAN))
    again = list(Pipeline(opened(folder), engine, family=FAMILY).run(request_of()))[-1].frames
    assert np.array_equal(found, again)


def test_it_is_forecast(folder, toy, engine, request_of):
    found = []
    for pipeline in (Pipeline(open_checkpoint(toy), engine), Pipeline(opened(folder), engine, family=FAMILY)):
        setup = pipeline._setup(choose_precision("float32", engine))
        found.append(forecast(setup, pipeline.plan(Job(request_of())), room=64 << 30, rates=Rates(1e12, 1e12, 1e9)))
    without, with_it = found
    assert any(line.startswith("third text encoder: resident") for line in with_it.lines), with_it.lines
    assert with_it.placements["words"].weights == 4 * 11 * 16
    assert with_it.stages["encode text"] > without.stages["encode text"] + 1
    assert with_it.stages["denoise"] == without.stages["denoise"]


def test_its_name_is_one_of_those_with_part(folder):
    with pytest.raises(InputError, match=r"expected NAME=FILE.*clip, words"):
        opened(folder, "word=x")


def test_it_is_verified(folder, tmp_path):
    shapes = FAMILY.shapes(opened(folder))
    found = {each.component: each for each in verify(opened(folder), shapes, is_full=True)}
    assert not any(each.problem for each in found.values()) and found["words"].tensors == 1
    alone = SinglePart(folder / "text_encoder_3", COMPONENTS)
    assert alone.kind.name == "a table of words" and alone.config(WORDS) == WordsConfig(11, 16)
    broken = shutil.copytree(folder, tmp_path / "broken")
    write_tensors(broken / "text_encoder_3" / "model.safetensors", {"words.weight": np.ones((7, 16), np.float32)})
    (finding,) = (each for each in verify(opened(broken), shapes) if each.problem)
    assert finding.component == "words" and "words is 11 and the tensors' 7" in finding.problem
    write_tensors(broken / "text_encoder_3" / "model.safetensors", {"words.weight": np.ones((7, 9), np.float32)})
    (broken / "text_encoder_3" / "config.json").write_text('{"words": 7, "width": 9}')
    with pytest.raises(CheckpointError, match="the transformer's pooled width is 16, the table's width is 9"):
        opened(broken)


def test_a_file_of_it_takes_its_place_and_no_other(folder, tmp_path):
    write_tensors(tmp_path / "w.safetensors", {"lexicon.weight": np.ones((11, 16), np.float32)})
    tensors = opened(folder, f"words={tmp_path / 'w.safetensors'}").check(
        "words", Words(None, WordsConfig(11, 16)).shapes()
    )
    assert np.array_equal(tensors.read("words.weight"), np.ones((11, 16), np.float32))
    with pytest.raises(CheckpointError, match=r"is a table of words, no transformer\. Name it with --part words=FILE"):
        opened(folder, f"dit={tmp_path / 'w.safetensors'}").tensors("dit")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_it_is_converted(folder, tmp_path, layout):
    checkpoint = opened(folder)
    list(convert(checkpoint, tmp_path / "x", shapes=FAMILY.shapes(checkpoint), layout=layout))
    found = opened(tmp_path / "x")
    assert found.configs == checkpoint.configs and (tmp_path / "x" / "text_encoder_3").is_dir()
    shapes = FAMILY.shapes(found)
    for name in COMPONENTS:
        one, two = checkpoint.tensors(name), found.check(name, shapes[name])
        assert all(np.array_equal(one.read(tensor), two.read(tensor)) for tensor in shapes[name])
