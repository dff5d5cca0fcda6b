"""What a person has typed is never lost: reload, way back, other language, a server that is away or fails."""

from __future__ import annotations

import re

import pytest
from PIL import Image, ImageDraw
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
    wait_until_open,
    wait_until_ready,
)

NETWORK = "服务器没有响应。没有丢失任何内容"
HANDLER = "**/gradio_api/run/predict"


def wait_for_values(page, wanted):
    page.wait_for_selector(".fw-crop:not([hidden])")
    page.wait_for_function(
        "(text) => document.querySelector('#fw-prompt textarea').value === text", arg=wanted["prompt"]
    )
    page.wait_for_function(
        "(n) => document.querySelector('#fw-frames input[type=number]').value === n", arg=wanted["frames"]
    )
    assert values(page) == wanted


def wait_until_kept(page, text):
    page.wait_for_function("(text) => sessionStorage.getItem('framewake-form')?.includes(text)", arg=text)


def wait_for_the_newest(page, *, steps):
    newest = "fetch('/v1/videos').then((answer) => answer.json()).then(({ data: [video] }) => "
    page.wait_for_function(f"{newest} video?.status === 'completed' && video.num_inference_steps === {steps})")


def test_the_form_survives_a_reload_the_other_language_and_the_way_back(page_of, server):
    page = page_of()
    choose_picture(page)
    fill_form(page, frames=9, steps=4, seed=41)
    page.click("#fw-is_stable label:has-text('dynamic')")
    wait_until_kept(page, "dynamic")
    wanted = values(page)
    page.reload()
    wait_for_values(page, wanted)
    page.click(".fw-header a[lang='zh']")
    page.wait_for_url(f"{server.url}/zh/")
    wait_for_values(page, wanted)
    page.go_back()
    page.wait_for_url(f"{server.url}/")
    wait_for_values(page, wanted)
    size = "window.framewake.picture.file().size"
    assert page.evaluate(size) == PICTURE.stat().st_size
    page.click("#fw-make")
    wait_for_the_newest(page, steps=4)
    assert page_of().input_value("#fw-prompt textarea") == "", "another tab begins empty"


@pytest.mark.parametrize("broken", ["sessionStorage", "indexedDB"])
def test_a_browser_that_keeps_nothing_is_no_obstacle(chromium, server, broken):
    context = chromium.new_context()
    problems = []
    denied = "{ get() { throw new DOMException('denied', 'SecurityError'); } }"
    context.add_init_script(f"Object.defineProperty(window, '{broken}', {denied});")
    page = context.new_page()
    page.set_default_timeout(STEP_SECONDS * 1000)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(server.url)
    wait_until_open(page)
    choose_picture(page)
    fill_form(page, frames=5, steps=2, seed=3)
    page.reload()
    wait_until_open(page)
    page.wait_for_selector(".fw-drop, .fw-crop:not([hidden])")
    assert not problems
    context.close()


def test_a_click_while_the_server_is_away_costs_nothing(page_of, server):
    page = page_of("/zh/")
    choose_picture(page)
    fill_form(page, frames=9, steps=4, seed=7)
    page.wait_for_selector(".fw-plan")
    server.stop()
    for _ in range(2):
        page.click("#fw-make")
        page.wait_for_selector(f"#fw-message:has-text('{NETWORK}')")
    page.click("#fw-dice")  # other handlers meet the same
    page.fill("#fw-steps input[type=number]", "5")
    page.keyboard.press("Tab")
    page.wait_for_selector(".fw-banner:not([hidden])")
    assert page.query_selector_all(".toast-body, .toast-wrap .error") == []
    server.start()
    page.wait_for_selector(".fw-banner", state="hidden")
    page.wait_for_function("document.querySelector('#fw-message').textContent === ''")
    page.click("#fw-make")
    wait_for_the_newest(page, steps=5)


def test_a_handler_that_fails_is_told_and_works_again(page_of):
    page = page_of()
    choose_picture(page)
    fill_form(page, frames=5, steps=3, seed=7)
    page.wait_for_selector(".fw-plan")
    failures = [
        lambda route: route.fulfill(status=500, body="x"),
        lambda route: route.fulfill(status=503, body='{"error": {"message": "x"}}'),
        lambda route: route.abort(),
    ]
    for failure in failures:
        page.route(HANDLER, failure)
        page.evaluate("window.framewake.message('')")
        page.click("#fw-make")
        page.wait_for_selector("#fw-message.fw-refused:not(:empty)")
        page.unroute(HANDLER)
    assert page.query_selector_all(".toast-body") == []
    page.click("#fw-make")
    wait_for_the_newest(page, steps=3)


def test_red_messages_leave_when_the_fault_is_mended(page_of):
    page = page_of()
    page.click("#fw-make")
    page.wait_for_selector("#fw-picture-message:has-text('Choose a picture first.')")
    choose_picture(page)
    page.wait_for_selector("#fw-picture-message:empty", state="attached")
    page.click("#fw-make")
    page.wait_for_selector("#fw-message:has-text('Say in a sentence')")
    page.fill("#fw-prompt textarea", PROMPT)
    page.wait_for_selector("#fw-message:empty", state="attached")


def test_frames_that_cannot_be_made_become_the_nearest_once(page_of):
    page = page_of()
    choose_picture(page)
    fill_form(page, frames=34, steps=2, seed=7)
    page.wait_for_selector("#fw-frames-note:has-text('34 frames are not possible: 33 will be made')")
    assert values(page)["frames"] == "33"
    page.wait_for_selector(".fw-plan dd:has-text('33 frames')")
    assert page.query_selector(".fw-plan ~ .fw-refused, #fw-plan .fw-refused") is None
    page.fill("#fw-frames input[type=number]", "4000")
    press_make(page)
    page.wait_for_selector("#fw-frames-note:has-text('65 will be made')")
    page.wait_for_function("document.querySelector('.fw-card .fw-quiet').textContent.includes('65 frames')")
    page.click("[data-does='video.cancel'], [data-does='video.remove']")


def test_removing_can_be_undone(page_of, server):
    page = page_of()
    jobs = [hand_in(page, server, prompt=f"{PROMPT} {number}") for number in range(2)]
    page.reload()
    for job in jobs:
        page.wait_for_selector(f".fw-list [data-id='{job}'][data-status='completed']")
    page.click(f".fw-list [data-id='{jobs[0]}']")
    wait_until_ready(page, jobs[0])
    page.click("[data-does='video.remove']")
    page.wait_for_selector(f".fw-stage [data-id='{jobs[0]}']", state="detached")
    assert page.evaluate("document.activeElement.dataset.does") == "video.undo"
    page.click("[data-does='video.undo']")
    wait_until_ready(page, jobs[0])
    page.click("[data-does='video.remove']")
    page.wait_for_selector("[data-does='video.undo']")
    assert page.request.get(f"{server.url}/v1/videos/{jobs[0]}").ok, "it goes only when nobody wants it back"
    page.wait_for_selector("[data-does='video.undo']", state="detached")
    assert page.request.get(f"{server.url}/v1/videos/{jobs[0]}").status == 404
    assert page.request.get(f"{server.url}/v1/videos/{jobs[1]}").ok


def test_who_leaves_the_page_has_removed_it(page_of, server):
    page = page_of()
    job = hand_in(page, server)
    page.reload()
    look_at(page, job)
    wait_until_ready(page, job)
    page.click("[data-does='video.remove']")
    page.wait_for_selector("[data-does='video.undo']")
    page.reload()
    page.wait_for_selector(".fw-empty, .fw-card")
    page.wait_for_function(f"fetch('/v1/videos/{job}').then((answer) => answer.status === 404)")


def test_what_one_should_know_is_said_before_the_click_and_with_the_result(page_of, server, tmp_path):
    photo = tmp_path / "photo.png"
    image = Image.effect_noise((300, 200), 90).convert("RGB")
    ImageDraw.Draw(image).rectangle((20, 20, 90, 90), fill="red")
    image.save(photo)
    page = page_of("/zh/")
    choose_picture(page, photo)
    page.fill("#fw-prompt textarea", "She turns her head")
    page.wait_for_selector("#fw-notes li:has-text('图片和提示词都不像演示模型所认识的内容')")
    choose_picture(page)
    page.wait_for_selector("#fw-notes li:has-text('提示词不像演示模型所认识的内容')")
    page.fill("#fw-prompt textarea", PROMPT)
    page.wait_for_selector("#fw-notes:empty", state="attached")
    job = hand_in(page, server, prompt="She turns her head")
    page.reload()
    look_at(page, job)
    wait_until_ready(page, job)
    assert "提示词不像演示模型所认识的内容" in page.inner_text(".fw-card .fw-notes")
    cut = tmp_path / "cut.png"
    cut.write_bytes(PICTURE.read_bytes()[:200])
    page.set_input_files("#fw-file", cut)  # a browser shows what there is of it
    page.wait_for_selector("#fw-picture-message:has-text('图片已损坏或不完整')")


def test_time_left_is_shown_at_every_step(page_of, server):
    page = page_of()
    job = hand_in(page, server, num_frames="33", num_inference_steps="1000")
    page.reload()
    page.evaluate("""() => {
      window.words = [];
      new MutationObserver(() => {
        const text = document.querySelector('.fw-progress')?.textContent;
        if (text && window.words.at(-1) !== text) window.words.push(text);
      }).observe(document.body, { childList: true, subtree: true, characterData: true });
    }""")
    look_at(page, job)
    page.wait_for_function("window.words.filter((text) => text.startsWith('Step')).length > 3")
    steps = [text for text in page.evaluate("window.words") if text.startswith("Step")]
    assert all(re.search(r"about \d+ \w+ left$", text) for text in steps), steps
