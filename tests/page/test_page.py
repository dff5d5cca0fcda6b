"""The page in a real Chromium, with the demonstration checkpoint. Waits are for conditions, never for a time."""

from __future__ import annotations

import json

import pytest
from steps import (
    PICTURE,
    PROMPT,
    STEP_SECONDS,
    choose_picture,
    fill_form,
    hand_in,
    look_at,
    press_make,
    values,
    wait_until_ready,
)

WATCH = """() => {
  window.watched = {};
  const look = () => {
    const card = document.querySelector('.fw-stage .fw-card');
    if (!card) return;
    const { states, progress, ...rest } = (window.watched[card.dataset.id] ??= { states: [], progress: [] });
    if (states.at(-1) !== card.dataset.status) states.push(card.dataset.status);
    const value = card.querySelector('.fw-bar')?.getAttribute('aria-valuenow');
    if (value && progress.at(-1) !== Number(value)) progress.push(Number(value));
    const preview = rest.preview || !!card.querySelector('.fw-preview:not([hidden])');
    window.watched[card.dataset.id].preview = preview;
  };
  new MutationObserver(look).observe(document.body, { childList: true, subtree: true, attributes: true });
}"""
ENDLESS = {"num_inference_steps": "1000", "num_frames": "33"}  # made until it is cancelled


def test_from_a_picture_to_a_playing_video_that_stays(page_of, server):
    page = page_of()
    choose_picture(page)
    fill_form(page, frames=33, steps=8, seed=41)
    page.wait_for_selector(".fw-plan dd:has-text('64 × 64')")
    page.wait_for_selector(".fw-plan dd:has-text('torch:cpu')")
    page.evaluate(WATCH)
    job = press_make(page)
    page.wait_for_selector(f".fw-stage [data-id='{job}'] #fw-player")
    states = page.evaluate(f"window.watched['{job}'].states")
    assert states == [each for each in ("queued", "in_progress", "completed") if each in states]
    if page.evaluate("document.createElement('video').canPlayType('video/mp4; codecs=\"avc1.640028\"')"):
        page.wait_for_function("document.querySelector('#fw-player').duration > 0")
        assert page.evaluate("document.querySelector('#fw-player').duration") == pytest.approx(33 / 12, abs=0.1)
        page.wait_for_function("document.querySelector('#fw-player').currentTime > 0")

    page.reload()
    page.wait_for_selector(f".fw-stage [data-id='{job}'] video")
    server.stop()
    page.wait_for_selector(".fw-banner:not([hidden])")
    server.start()
    page.wait_for_selector(".fw-banner", state="hidden")
    page.reload()
    wait_until_ready(page, job)
    hand_in(page, server)  # the list of small pictures is shown from the second video on
    page.wait_for_selector(f".fw-list [data-id='{job}'] img")
    page.wait_for_function(f"document.querySelector(\".fw-list [data-id='{job}'] img\").naturalWidth > 0")


def watch(page, job):
    """The video large, and what is seen of it kept from now on."""
    page.reload()
    page.evaluate(WATCH)
    look_at(page, job)
    page.wait_for_selector(f".fw-stage [data-id='{job}'][data-status='in_progress']")


def test_an_old_answer_hides_nothing_that_is_known_since(page_of, server):
    page = page_of()
    job = hand_in(page, server, **ENDLESS)
    watch(page, job)
    held = []

    def hold_first(route):
        answer = route.fetch()
        if held:
            route.fulfill(response=answer)
        else:
            held.append((route, answer))

    page.route("**/v1/videos?limit=*", hold_first)
    page.evaluate("void window.framewake.videos.refresh()")  # not awaited: the answer is held
    for _ in range(20 * STEP_SECONDS):
        if held:
            break
        page.wait_for_timeout(50)
    assert [video["status"] for video in held[0][1].json()["data"] if video["id"] == job] == ["in_progress"]
    assert page.request.delete(f"{server.url}/v1/videos/{job}").ok
    # The stream of events tells it; the list of that time is still under way.
    page.wait_for_selector(f".fw-stage [data-id='{job}'][data-status='cancelled']")
    held[0][0].fulfill(response=held[0][1])
    page.evaluate("window.framewake.videos.refresh()")
    assert page.evaluate(f"window.watched['{job}'].states") == ["in_progress", "cancelled"]


def test_a_running_video_shows_its_progress_and_is_cancelled(page_of, server):
    page = page_of()
    job = hand_in(page, server, **ENDLESS)
    watch(page, job)
    page.wait_for_function(f"window.watched['{job}'].progress.length > 3 && window.watched['{job}'].preview")
    progress = page.evaluate(f"window.watched['{job}'].progress")
    assert progress == sorted(progress)
    page.click("[data-does='video.cancel']")
    page.wait_for_selector(f".fw-stage [data-id='{job}'][data-status='cancelled']")
    body = page.request.get(f"{server.url}/v1/videos/{job}").json()
    assert body["status"] == "cancelled" and 0 < body["step"] < 1000
    page.click("[data-does='video.remove']")
    page.wait_for_selector(f".fw-stage [data-id='{job}']", state="detached")


def test_settings_come_back_from_a_clip_and_from_the_history(page_of, server, tmp_path):
    page = page_of()
    job = hand_in(page, server, seed="9007199254740993", stability="false", flow_shift="11.5")
    page.reload()
    look_at(page, job)
    wait_until_ready(page, job)
    clip = tmp_path / "clip.mp4"
    clip.write_bytes(page.request.get(f"{server.url}/v1/videos/{job}/content").body())
    expected = {
        "prompt": PROMPT,
        "resolution": "360p",
        "motion": "dynamic",
        "frames": "9",
        "steps": "4",
        "seed": "9007199254740993",  # a browser's numbers would make ...992 of it
    }
    for bring_back in (
        lambda: page.set_input_files("#fw-file", clip),
        lambda: page.click("[data-does='video.reuse']"),
    ):
        page.evaluate("sessionStorage.clear()")  # where the form is kept
        page.reload()
        page.wait_for_selector(f".fw-stage [data-id='{job}']")
        page.wait_for_selector(".fw-drop")
        bring_back()
        page.wait_for_selector("#fw-message.fw-note")
        page.wait_for_selector(".fw-crop:not([hidden])")  # the picture came back too
        assert values(page) == expected
        page.click("#fw-advanced button")
        assert page.input_value("#fw-flow_shift input, #fw-flow_shift textarea") == "11.5"


def test_the_crop_is_outlined_where_it_will_be(page_of, wide_picture):
    from framewake.shapes import choose_bucket, resized_size

    page = page_of()
    choose_picture(page, wide_picture)
    page.wait_for_selector(".fw-plan dd:has-text('128 × 96')")
    bucket = choose_bucket(128, 700, 1000)
    assert bucket == (96, 128)
    width = 128 / resized_size(bucket, 700, 1000)[1]
    box = page.evaluate(
        "(() => { const at = (s) => document.querySelector(s).getBoundingClientRect();"
        "const a = at('.fw-crop'), b = at('#fw-image');"
        "return [a.width / b.width, a.height / b.height, (a.left - b.left) / b.width]; })()"
    )
    assert box == pytest.approx([width, 1.0, (1 - width) / 2], abs=0.01)


def crop_of(page):
    page.wait_for_function("window.framewake.picture.isSettled()")
    return page.evaluate(
        "(() => { const at = (s) => document.querySelector(s).getBoundingClientRect();"
        "const a = at('.fw-crop'), b = at('#fw-image');"
        "return [(a.left - b.left) / (b.width - a.width), a.width / b.width]; })()"
    )


def test_the_crop_is_moved_by_pointer_and_keys_and_comes_back(page_of, server, wide_picture):
    page = page_of()
    choose_picture(page, wide_picture)
    fill_form(page, frames=5, steps=2, seed=4)
    page.wait_for_selector(".fw-crop.fw-movable")
    place, width = crop_of(page)
    assert place == pytest.approx(0.5, abs=0.02) and width < 0.98, "to the pixel, of which 27 are outside"
    page.locator(".fw-crop").scroll_into_view_if_needed()
    box = page.locator(".fw-crop").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2 + 300, box["y"] + 20, steps=4)
    page.mouse.up()
    assert crop_of(page)[0] == pytest.approx(1, abs=0.01)
    page.focus(".fw-crop")
    for _ in range(2):
        page.keyboard.press("ArrowLeft")
    assert crop_of(page)[0] == pytest.approx(0.9, abs=0.02)
    assert page.get_attribute(".fw-crop", "aria-valuenow") == "90"
    job = press_make(page)
    stored = page.request.get(f"{server.url}/page/videos/{job}/settings").json()["settings"]
    assert json.loads(stored)["crop"] == "0.9,0.5"
    page.reload()
    page.wait_for_selector(".fw-crop.fw-movable")
    page.wait_for_function("document.querySelector('.fw-crop').ariaValueNow === '90'")
    choose_picture(page, wide_picture)
    page.wait_for_function("document.querySelector('.fw-crop').ariaValueNow === '50'")
    look_at(page, job)
    page.click("[data-does='video.reuse']")
    page.wait_for_function("document.querySelector('.fw-crop').ariaValueNow === '90'")


def test_a_picture_is_kept_whole_and_comes_back_so(page_of, server, wide_picture):
    page = page_of()
    choose_picture(page)
    page.wait_for_selector(".fw-crop:not([hidden])")
    assert not page.is_visible("#fw-fit"), "a square picture has the bucket's shape"
    choose_picture(page, wide_picture)
    fill_form(page, frames=5, steps=2, seed=4)
    page.check("#fw-fit")
    page.wait_for_selector(".fw-crop", state="hidden")
    page.wait_for_selector("#fw-caption:has-text('blurred edges')")
    job = press_make(page)
    stored = page.request.get(f"{server.url}/page/videos/{job}/settings").json()["settings"]
    assert json.loads(stored)["crop"] == "fit"
    page.uncheck("#fw-fit")
    page.wait_for_function("document.querySelector('.fw-crop').ariaValueNow === '50'")
    page.wait_for_selector(".fw-crop.fw-movable:not([hidden])")
    page.click("[data-does='video.reuse']")
    page.wait_for_selector("#fw-fit:checked")
    wait_until_ready(page, job)


def test_a_phone_shows_everything_without_scrolling_sideways(page_of, wide_picture):
    page = page_of(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    width = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert page.evaluate(width) <= 390
    choose_picture(page, wide_picture)
    page.fill("#fw-prompt textarea", "word " * 60 + "x" * 300)
    page.click("#fw-advanced button")
    page.wait_for_selector("#fw-precision input")
    assert page.evaluate(width) <= 390
    cut = page.evaluate(
        "[...document.querySelectorAll('.fw-form button, .fw-form input, .fw-form textarea, .fw-side *')]"
        ".filter((e) => e.offsetParent && !e.closest('.fw-frame') && !e.classList.contains('fw-unseen'))"
        ".filter((e) => e.getBoundingClientRect().right > 391).map((e) => e.outerHTML.slice(0, 120))"
    )
    assert not cut


def test_chinese_for_chinese_browsers_and_by_hand(page_of, server):
    page = page_of(locale="zh-CN")
    assert page.url == f"{server.url}/zh/"
    assert page.inner_text("#fw-make") == "生成视频"
    assert page.evaluate("document.documentElement.lang") == "zh-CN"
    page.click(".fw-header a[lang='en']")
    page.wait_for_url(f"{server.url}/")
    page.wait_for_selector("#fw-make:has-text('Make the video')")
    assert page.evaluate("document.documentElement.lang") == "en"
    page.goto(server.url)  # the choice is kept, although the browser asks for Chinese
    page.wait_for_selector("#fw-make:has-text('Make the video')")


def test_mistakes_are_told_in_plain_words(page_of, tmp_path):
    page = page_of()
    page.fill("#fw-prompt textarea", PROMPT)
    page.click("#fw-make")
    page.wait_for_selector("#fw-message:has-text('Choose a picture first.')")
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    page.set_input_files("#fw-file", broken)
    page.wait_for_selector("#fw-picture-message:has-text('cannot be shown as a picture')")
    foreign = tmp_path / "foreign.mp4"
    foreign.write_bytes(b"\0" * 400)
    page.set_input_files("#fw-file", foreign)
    page.wait_for_selector("#fw-picture-message:has-text('this file')")
    assert "/" not in page.inner_text("#fw-picture-message")
    cut = tmp_path / "cut.png"
    cut.write_bytes(PICTURE.read_bytes()[:200])  # a browser shows what there is of it, the server does not take it
    choose_picture(page, cut)
    page.click("#fw-make")
    page.wait_for_selector("#fw-message:has-text('damaged or cut off')")
    assert "/" not in page.inner_text("#fw-message")
    choose_picture(page)
    page.fill("#fw-seed input, #fw-seed textarea", "many")
    page.click("#fw-make")
    page.wait_for_selector("#fw-message:has-text('expected a whole number')")


def test_the_dice_gives_a_seed(page_of):
    page = page_of()
    page.click("#fw-dice")
    page.wait_for_function("/^[0-9]+$/.test(document.querySelector('#fw-seed input, #fw-seed textarea').value)")


def test_words_of_people_are_never_markup(page_of, server):
    page = page_of()
    prompt = "<img src=x onerror=\"document.title='owned'\"> <b>bold</b>"
    job = hand_in(page, server, prompt=prompt)
    page.reload()
    look_at(page, job)
    page.wait_for_selector(f".fw-stage [data-id='{job}']")
    assert page.inner_text(".fw-said") == prompt and page.title() == "framewake"
    assert json.loads(page.evaluate("JSON.stringify(!!document.querySelector('.fw-said b'))")) is False


def test_the_description_of_the_api_needs_no_internet(chromium, server):
    page = chromium.new_page()
    page.set_default_timeout(90_000)
    asked, problems = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(server.url + "/docs")
    page.click("#operations-videos-create_video_v1_videos_post button.opblock-summary-control")
    page.wait_for_selector(".opblock-body textarea:has-text('the red circle moves right')")
    assert not [url for url in asked if not url.startswith((server.url, "data:"))] and not problems
    page.close()
