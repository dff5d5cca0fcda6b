"""The first minute on the page: examples to click, the model's name, a button that is always in view."""

from __future__ import annotations

import pytest
from steps import PICTURE, choose_picture

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
    page.wait_for_selector(f".fw-stage .fw-said:has-text('{PROMPTS[1]}')")
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
