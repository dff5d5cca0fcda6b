from __future__ import annotations

import re

import numpy as np
import pytest

import framewake
from framewake.media.metadata import describe, package_versions, video_metadata
from framewake.media.video import read_metadata, write_video
from framewake.request import Request, from_dict, resolve
from framewake.shapes import PixelShape

REQUEST = resolve(Request("a \u732b jumps", image="cat.png", seed=7, fps=12))


def metadata():
    return video_metadata(REQUEST, checkpoint="demo", engine="torch:cpu", shape=PixelShape(33, 64, 96))


@pytest.mark.parametrize("name", ["a.mp4", "a.gif", "a.webp", "a"])
def test_a_video_tells_how_it_was_made(tmp_path, name):
    path = write_video(tmp_path / name, np.zeros((5, 16, 16, 3), np.uint8), fps=12, metadata=metadata())
    assert read_metadata(path) == metadata()
    assert resolve(from_dict(read_metadata(path)["request"])) == REQUEST


def test_metadata_holds_what_is_needed():
    values = metadata()
    assert values["request"] == REQUEST.to_dict()
    assert (values["checkpoint"], values["engine"]) == ("demo", "torch:cpu")
    assert (values["size"], values["framewake"]) == ([96, 64], framewake.__version__)
    assert values["versions"]["numpy"] == np.__version__


def test_only_the_engine_in_use_is_named():
    assert "mindspore" not in package_versions("torch:cuda:0")
    assert "torch" not in package_versions("mindspore:ascend:0")


def test_describe_is_readable():
    lines = describe(metadata())
    starts = {re.match(r"[^:]+: +", line).end() for line in lines}
    assert len(starts) == 1, f"the values do not stand below each other: {lines}"
    assert "prompt:               a \u732b jumps" in lines
    assert "seed:                 7" in lines
    assert "is stable:            yes" in lines
    assert "size:                 96 x 64 px" in lines
    assert "engine:               torch:cpu" in lines
    assert not any(line.startswith("negative prompt") for line in lines)


@pytest.mark.parametrize(
    "strange", [{}, {"request": 3}, {"request": {"old": [1]}, "size": {}}, {"versions": {"a": None}, "engine": {}}]
)
def test_describe_bears_strange_values(strange):
    assert all("\n" not in line for line in describe(strange))


def test_describe_does_not_let_a_file_write_to_the_terminal():
    lines = describe(
        {"request": {"prompt": "a\x1b[2Jb\r\nc", "\x1b[1m": 1}, "versions": {"\x07": "\x1b"}, "size": ["\x1b"]}
    )
    assert all(line.isprintable() for line in lines)
    assert lines[0].endswith(r"a\u001b[2Jb\r\nc")
