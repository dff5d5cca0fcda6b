"""Going on from a finished video, and what can be done with one that does."""

from __future__ import annotations

from steps import PROMPT, hand_in, look_at, wait_until_ready


def test_a_finished_video_goes_on_with_what_comes_next(page_of, server):
    page = page_of()
    before = hand_in(page, server, num_frames="5", num_inference_steps="2", seed="7", crop="0,1")
    page.reload()
    look_at(page, before)
    wait_until_ready(page, before)
    page.click("[data-does='video.onward']:text-is('Go on from here')")
    assert page.input_value("#fw-onward") == PROMPT
    page.fill("#fw-onward", " ")
    page.click("[data-does='onward.go']")
    page.wait_for_selector("#fw-problem:has-text('Say in a sentence')")
    page.fill("#fw-onward", "the red circle grows")
    with page.expect_response(lambda answer: answer.url.endswith("/extensions")) as answered:
        page.click("[data-does='onward.go']")
    made = answered.value.json()
    assert made["remixed_from_video_id"] == before and made["seed"] == 8
    look_at(page, made["id"])
    wait_until_ready(page, made["id"])
    assert page.inner_text(".fw-said") == "the red circle grows"
    page.wait_for_function("document.querySelector('#fw-player').duration > 0")
    assert page.evaluate("document.querySelector('#fw-player').duration * 12") > 8, "both, of five frames each"
    page.click("[data-does='video.reuse']")
    page.wait_for_selector("#fw-message:has-text('The clip does not contain its picture')")
    stored = page.request.get(f"{server.url}/page/videos/{made['id']}/settings").json()
    assert "crop" not in stored["settings"] and stored["picture_of"] is None


def test_a_pause_is_offered_only_where_a_draft_can_come(page_of, server):
    page = page_of()
    running = hand_in(page, server, num_inference_steps="1000")
    page.reload()
    look_at(page, running)
    page.wait_for_selector(f".fw-stage [data-id='{running}'] [data-does='video.pause']")
    video = page.request.get(f"{server.url}/v1/videos/{running}").json()
    changes = [{"stage": stage} for stage in ("encode text", "denoise", "decode", "write")]
    changes.append({"stage": "denoise", "remixed_from_video_id": running})
    offered = page.evaluate(
        """(videos) => videos.map((video) => {
          const card = window.framewake.card.make(video, {});
          window.framewake.card.fill(card, video, {});
          return [...card.querySelectorAll("[data-does]")].map((button) => button.dataset.does);
        })""",
        [video | change for change in changes],
    )
    assert ["video.pause" in each for each in offered] == [True, True, False, False, True]
    assert all("video.cancel" in each for each in offered)
