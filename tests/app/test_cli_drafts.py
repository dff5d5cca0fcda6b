"""Drafts on the command line: look, decide, go on."""

from __future__ import annotations

import json
import shlex

import pytest

from framewake.pipeline.events import STAGES

CLIP = ("the red circle moves left", "--resolution", "360p", "--seed", 4, "--steps", 5)


def test_look_decide_and_go_on(call, picture, tmp_path):
    call("animate", picture, *CLIP, "-q", "-o", "whole.mp4")
    found = call("animate", picture, *CLIP, "-o", "clip.mp4", "--draft", 2, "--memory", "8GB")
    assert found.code == 0 and found.out == "clip.draft-002.mp4: draft after step 2 of 5, 5 frames of 64x64\n"
    advice = found.err.splitlines()[-1].partition("`framewake ")[2].partition("`")[0]
    assert advice.startswith("animate --resume -o clip.mp4 --") and "--memory 8GB" in advice and "draft" not in advice
    assert "draft:" in call("info", "clip.draft-002.mp4").out
    told = call("info", "clip.mp4.latents.safetensors").out
    assert "step 2 of 5" in told and "threads " in told and "clip.draft-002.mp4" in told
    assert json.loads(call("info", "clip.mp4.latents.safetensors", "--json").out)["saved"]["step"] == 2
    late = call("animate", "--resume", "clip.draft-002.mp4", "--draft", 2)
    assert late.code == 2 and "2 steps of this clip are done. Name a later step" in late.err
    assert call("animate", "--resume", "clip.draft-002.mp4", "--draft", 3, "-q").out == "clip.draft-003.mp4\n"
    assert call(*shlex.split(advice)).code == 0
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not list(tmp_path.glob("*.safetensors"))
    for name in ("clip.draft-003.mp4", "clip.mp4"):
        again = call("animate", "--resume", name)
        assert again.code == 2 and "clip.mp4 is finished: nothing is left to go on with" in again.err


def test_a_story_is_told_beside_the_clip(call, picture, tmp_path):
    """The clip is the same as without; of another clip at its place nothing is told."""
    call("animate", picture, *CLIP, "-q", "-o", "whole.mp4")
    found = call("animate", picture, *CLIP, "-o", "clip.mp4", "--draft", 2, "--story")
    advice = found.err.splitlines()[-1].partition("`framewake ")[2].partition("`")[0]
    told = call("info", "clip.mp4.latents.safetensors").out
    assert "pauses:" in told and "1, on so many devices: 1\n" in told and "--story" in advice
    assert call(*shlex.split(advice), "--drafts", "3,4").code == 0
    assert (tmp_path / "clip.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    lines = {
        line.partition(":")[0]: line.partition(":")[2].strip() for line in call("info", "clip.mp4").out.splitlines()
    }
    assert lines["runs"] == "2, on so many devices: 1, 1" and lines["pauses"] == "1"
    assert lines["drafts taken"] == "after step 2, after step 3, after step 4"
    assert [each.rpartition(" ")[0] for each in lines["seconds"].split(", ")] == [
        stage for stage in STAGES if stage != "enlarge"
    ]
    assert json.loads(call("info", "clip.mp4", "--json").out)["story"]["pauses"] == 1
    call("animate", picture, *CLIP[:-1], 4, "-q", "-o", "clip.mp4")
    assert "pauses" not in call("info", "clip.mp4").out
    (tmp_path / "clip.mp4.story.json").write_text("{")
    assert call("info", "clip.mp4").code == 2


def test_a_story_begins_anew_with_its_clip(call, picture, tmp_path):
    for _ in range(2):
        assert call("animate", picture, *CLIP, "--then", "it grows", "-q", "-o", "clip.gif", "--story").code == 0
    assert json.loads((tmp_path / "clip.gif.story.json").read_text())["devices"] == [1]
    (tmp_path / "batch.jsonl").write_text('{"prompt": "x"}\n')
    refused = call("animate", "--batch", "batch.jsonl", "-o", "many", "--story")
    assert refused.code == 2 and "--story is for a single clip" in refused.err


def test_drafts_on_the_way_go_to_stderr(call, picture, tmp_path):
    arguments = ("--drafts", "1,3", "--draft-size", "small")
    quiet = call("animate", picture, *CLIP, *arguments, "-q", "-o", "a.gif")
    assert quiet.out == "a.gif\n" and (tmp_path / "a.draft-001.gif").is_file()
    told = call("animate", picture, *CLIP, *arguments, "-o", "frames/")
    assert "frames.draft-003.webp: draft after step 3 of 5, 2 frames of 32x32" in told.err
    assert len(told.out.splitlines()) == 1 and (tmp_path / "frames.draft-001.webp").is_file()


def test_a_folder_of_pictures_is_found_by_its_draft(call, picture, tmp_path):
    assert call("animate", picture, *CLIP, "-q", "-o", "frames/", "--draft", 2).out == "frames.draft-002.webp\n"
    assert call("animate", "--resume", "frames.draft-002.webp", "-q").out == "frames\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--draft", 5), "the clip has 5 steps, and a draft comes after step 1 to 4"),
        (("--drafts", "1,9"), "a draft after step 9 is impossible"),
        (("--draft", "x"), "draft is 'x': expected a whole number of 1 or more"),
        (("--drafts", "1,,2"), "drafts is '': expected a whole number of 1 or more"),
        (("--draft-size", "small"), "add --draft or --drafts"),
        (("--draft", 1, "--draft-size", "tiny"), "draft_size is 'tiny': choose one of full, small"),
    ],
)
def test_what_is_refused_before_any_work(call, picture, tmp_path, arguments, message):
    answer = call("animate", picture, *CLIP, *arguments)
    assert answer.code == 2 and message in answer.err and not list(tmp_path.iterdir())


def test_a_batch_goes_through(call, picture, tmp_path):
    (tmp_path / "many.jsonl").write_text('{"prompt": "x", "steps": 3}\n')
    refused = call("animate", picture, "--batch", "many.jsonl", "--resolution", "360p", "--draft", 1)
    assert refused.code == 2 and "take --drafts" in refused.err
    assert call("animate", picture, "--batch", "many.jsonl", "--resolution", "360p", "--drafts", 1).code == 0
    assert len(list(tmp_path.glob("*.draft-001.mp4"))) == 1


def test_plan_says_what_a_draft_costs(call, picture):
    lines = call("plan", picture, *CLIP, "--draft", 3).out
    assert "a full draft costs a decode, about " in lines and "draft after step 3 of 5: in about " in lines
    small = call("plan", picture, *CLIP, "--drafts", "1,3", "--draft-size", "small").out
    assert "a small draft costs no decode" in small and "draft after" not in small
