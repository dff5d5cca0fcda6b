"""Toy checkpoints, made once per test run."""

from __future__ import annotations

import pytest
from toy_checkpoint import write_picture, write_toy

from framewake.request import Request


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
    return write_toy(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def picture(tmp_path_factory):
    return write_picture(tmp_path_factory.mktemp("pictures") / "picture.png")


@pytest.fixture
def request_of(picture):
    """A small request; settings can be changed by name."""

    def make(**changes):
        settings = {"prompt": "the red circle moves left", "image": str(picture), "resolution": "360p", "seed": 3}
        return Request(**(settings | changes))

    return make
