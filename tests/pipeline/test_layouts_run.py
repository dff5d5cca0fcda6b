"""A clip does not depend on how its checkpoint lies on the disk."""

from __future__ import annotations

import numpy as np
import pytest
from toy_layouts import save_comfy, text_to_video, write_tencent, write_wide_toy

from framewake.pipeline import Pipeline
from framewake.weights.checkpoint.layouts import Files
from framewake.weights.checkpoint.load import open_checkpoint


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_wide_toy(tmp_path_factory.mktemp("source"))


def frames_of(place, engine, request, files=None):
    checkpoint = open_checkpoint(place) if files is None else open_checkpoint(place, files)
    return list(Pipeline(checkpoint, engine).run(request))[-1].frames


def test_tencents_tree_gives_the_same_frames(source, engine, request_of, tmp_path):
    tree = write_tencent(tmp_path, source)
    first, second = (frames_of(place, engine, request_of()) for place in (source, tree))
    assert first.std() > 5 and np.array_equal(first, second)


def test_single_files_give_the_same_frames(source, engine, request_of, tmp_path):
    """All but the transformer, whose eight bits are not the same numbers."""
    found = save_comfy(tmp_path, source)
    exact = Files({name: path for name, path in found.items() if name != "dit"})
    first, second = frames_of(source, engine, request_of()), frames_of(source, engine, request_of(), exact)
    assert np.array_equal(first, second)
    narrow = frames_of(source, engine, request_of(), Files(**found))
    assert not np.array_equal(first, narrow)
    assert np.abs(first.astype(int) - narrow).mean() < 20


def test_first_release_runs_as_such(engine, request_of, tmp_path):
    source = write_wide_toy(tmp_path / "a", "latent_concat", has_guidance=False)
    tree = write_tencent(tmp_path / "b", source)
    first, second = (frames_of(place, engine, request_of(frames=9)) for place in (source, tree))
    assert np.array_equal(first, second) and first.shape[0] == 5  # the first four are dropped


def test_text_to_video_runs_without_a_vision_tower(engine, request_of, tmp_path):
    source = write_wide_toy(tmp_path / "a", "none")
    tree = text_to_video(tmp_path / "b", source)
    first, second = (frames_of(place, engine, request_of(image=None)) for place in (source, tree))
    assert first.std() > 5 and np.array_equal(first, second)
