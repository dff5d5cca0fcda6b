"""Several seeds from one click, side by side; and a clip as GIF and WebP."""

from __future__ import annotations

from PIL import Image
from steps import choose_picture, fill_form, hand_in, look_at, press_make, wait_until_ready

CELLS = ".fw-strip .fw-tile"


def test_several_seeds_are_shown_together(page_of, server):
    page = page_of()
    choose_picture(page)
    fill_form(page, frames=5, steps=2, seed=2**53 - 1)
    page.select_option("#fw-count", "3")
    first = press_make(page)
    page.wait_for_function(f"document.querySelectorAll(\"{CELLS}[data-status='completed'] video\").length === 3")
    found = page.request.get(f"{server.url}/v1/videos?limit=3").text()
    assert all(f'"seed":{2**53 - 1 + index},' in found for index in range(3)), "as whole numbers of any size"
    names = [each.inner_text() for each in page.query_selector_all(CELLS)]
    assert names == [f"seed {2**53 - 1 + index}" for index in range(3)]
    assert len(page.query_selector_all(f".fw-list:not(.fw-strip) [data-id='{first}']")) == 1
    page.click(f"{CELLS} >> nth=2")
    page.wait_for_selector(f".fw-stage .fw-quiet:has-text('seed {2**53 + 1}')")
    other = hand_in(page, server)
    page.reload()
    look_at(page, other)
    page.wait_for_selector(".fw-strip", state="hidden")
    listed = page.evaluate(
        "[...document.querySelectorAll('.fw-list:not(.fw-strip) .fw-tile')].map((e) => e.dataset.id)"
    )
    assert listed[:2] == [other, first], "one tile for all of them"
    look_at(page, first)
    page.wait_for_function(f"document.querySelectorAll('{CELLS}').length === 3")
    page.click("[data-does='video.remove']")
    page.wait_for_function(f"document.querySelectorAll('{CELLS}').length === 2")


def test_a_clip_is_saved_as_gif_and_webp(page_of, server):
    page = page_of()
    job = hand_in(page, server, prompt="The red circle grows: 红色", seed="5")
    page.reload()
    look_at(page, job)
    wait_until_ready(page, job)
    for kind in ("GIF", "WebP"):
        with page.expect_download() as found:
            page.click(f".fw-actions button:text-is('{kind}')")
        assert found.value.suggested_filename == f"the-red-circle-grows-红色-seed5.{kind.lower()}"
        with Image.open(found.value.path()) as image:
            assert (image.format, image.n_frames) == (kind.upper(), 9)
    page.route("**/content?format=gif", lambda route: route.abort())
    page.click(".fw-actions button:text-is('GIF')")
    page.wait_for_selector("#fw-problem:has-text('The server did not answer')")


def test_drafts_first_and_the_chosen_one_goes_on(page_of, server):
    page = page_of()
    choose_picture(page)
    fill_form(page, frames=5, steps=10, seed=20)
    assert not page.is_visible("#fw-drafts"), "of one video there is nothing to choose"
    page.select_option("#fw-count", "2")
    page.check("#fw-drafts")
    first = press_make(page)
    page.wait_for_function(f"document.querySelectorAll(\"{CELLS}[data-status='paused'] video\").length === 2")
    page.wait_for_function(f"[...document.querySelectorAll('{CELLS} video')].every((each) => each.duration > 0)")
    page.wait_for_selector(f".fw-stage [data-id='{first}'] .fw-told:text-is('Paused after step 4 of 10')")
    page.click("[data-does='video.drop']")
    page.wait_for_selector(f".fw-stage [data-id='{first}'][data-status='cancelled']")
    page.click(f"{CELLS} >> nth=1")
    page.wait_for_selector(".fw-stage [data-status='paused'] #fw-player")
    chosen = page.get_attribute(".fw-stage .fw-card", "data-id")
    page.click("[data-does='video.resume']")
    wait_until_ready(page, chosen)
    assert page.request.get(f"{server.url}/v1/videos/{chosen}").json()["seed"] == 21


def test_a_running_video_pauses_with_a_draft_and_goes_on(page_of, server):
    page = page_of("/zh/")
    job = hand_in(page, server, num_inference_steps="1000", num_frames="5")
    page.reload()
    look_at(page, job)
    page.wait_for_function("Number(document.querySelector('.fw-bar')?.getAttribute('aria-valuenow')) > 0")
    page.click("[data-does='video.pause']:text-is('暂停查看')")
    page.wait_for_selector(
        f".fw-stage [data-id='{job}'][data-status='paused'] #fw-player[aria-label^='目前预期结果的草稿']"
    )
    page.wait_for_function("document.querySelector('#fw-player').duration > 0")
    at = page.request.get(f"{server.url}/v1/videos/{job}").json()["step"]
    page.click("[data-does='video.resume']:text-is('继续')")
    page.wait_for_selector(f".fw-stage [data-id='{job}'][data-status='in_progress']")
    page.wait_for_function(
        f"fetch('/v1/videos/{job}').then((answer) => answer.json()).then(({{ step }}) => step > {at})"
    )
    page.click("[data-does='video.cancel']")
    page.wait_for_selector(f".fw-stage [data-id='{job}'][data-status='cancelled']")
