"""The first minute on the page: examples to click, the model's name, a button that is always in view."""

from __future__ import annotations

import json

import pytest
from steps import PICTURE, choose_picture, fill_form, hand_in, look_at, press_make

from framewake.service.page.examples import PROMPTS

IN_VIEW = """() => {
  const box = document.querySelector('#fw-make').getBoundingClientRect();
  const there = document.elementFromPoint(box.left + box.width / 2, box.top + box.height / 2);
  const [first, last] = [box.top, box.bottom].map((y) => y >= 0 && y <= window.innerHeight);
  return first && last && !!there?.closest('#fw-make');
}"""


def test_an_example_and_the_keys_make_a_video(page_of, server):
    page = page_of()
    assert page.inner_text("#fw-model") == "Model: framewake demonstration"
    assert [each.inner_text() for each in page.query_selector_all(".fw-example")] == list(PROMPTS)
    page.click(f".fw-example:has-text('{PROMPTS[1]}')")
    page.wait_for_selector(".fw-crop:not([hidden])")
    page.wait_for_function("(text) => document.querySelector('#fw-prompt textarea').value === text", arg=PROMPTS[1])
    assert page.evaluate("window.framewake.picture.file().size") == PICTURE.stat().st_size
    page.fill("#fw-steps input[type=number]", "2")
    page.keyboard.press("Tab")
    page.focus("#fw-prompt textarea")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector(f".fw-stage .fw-said:text-is('{PROMPTS[1]}')")
    found = page.request.get(f"{server.url}/v1/videos?limit=1").json()["data"]
    assert [video["prompt"] for video in found] == [PROMPTS[1]]
    assert not page.request.get(f"{server.url}/v1/videos/{found[0]['id']}").json()["notes"], "the model knows it"


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_the_button_is_always_in_view(page_of, width, height):
    page = page_of(viewport={"width": width, "height": height})
    assert page.evaluate(IN_VIEW)
    choose_picture(page)
    page.click("#fw-advanced button")
    page.wait_for_selector("#fw-precision input")
    for place in ("#fw-picture", "#fw-prompt", "#fw-seed", "#fw-precision"):
        page.evaluate("(place) => document.querySelector(place).scrollIntoView({ block: 'center' })", place)
        assert page.evaluate(IN_VIEW), place


def settings_of(page, server, job):
    return json.loads(page.request.get(f"{server.url}/page/videos/{job}/settings").json()["settings"])


def cache_of(page):
    return page.input_value("#fw-cache input")


def test_the_demonstration_offers_what_it_has_and_nothing_idle(page_of, server):
    page = page_of()
    page.click("#fw-loras button")
    page.click("#fw-loras input[role=listbox], #fw-loras input[aria-label]")
    page.click("ul[role=listbox] li:has-text('trails')")
    page.keyboard.press("Escape")
    page.click("#fw-advanced button")
    page.wait_for_selector("#fw-cache input")
    assert page.query_selector("#fw-embedded_guidance") is None or not page.is_visible("#fw-embedded_guidance")
    assert cache_of(page) == "Off (exact)"
    page.click("#fw-cache input")
    page.click("ul[role=listbox] li:has-text('Faster')")
    choose_picture(page)
    fill_form(page, frames=5, steps=3, seed=8)
    job = press_make(page)
    page.wait_for_selector(".fw-stage .fw-quiet:has-text('LoRA trails 1')")
    assert settings_of(page, server, job)["cache"] == "faster"
    rule = hand_in(page, server, cache="easy:0.07")
    look_at(page, rule)
    page.click(f".fw-stage [data-id='{rule}'] [data-does='video.reuse']")
    page.wait_for_function("document.querySelector('#fw-cache input').value === 'easy:0.07'")
    again = press_make(page)
    assert settings_of(page, server, again)["cache"] == "easy:0.07", "a rule of one's own goes back as it came"
