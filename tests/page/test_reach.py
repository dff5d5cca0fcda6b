"""The page by keyboard and by ear, and what stays in sight while a video is made."""

from __future__ import annotations

import itertools

import pytest
from steps import choose_picture, fill_form, hand_in, look_at, wait_until_ready

from framewake.service.page.texts import say

NAMELESS = """() => [...document.querySelectorAll('.fw-form :is(button, input, textarea), .fw-side button, video')]
  .filter((each) => each.offsetParent)
  .filter((each) => !each.ariaLabel && !each.labels?.length && !each.innerText?.trim())
  .map((each) => each.outerHTML.slice(0, 200))"""
HEADINGS = "[...document.querySelectorAll('h1, h2, h3, h4')].map((each) => Number(each.tagName[1]))"
OUTLINE = """() => {
  const seen = (each) => {
    const { outlineStyle, outlineWidth } = getComputedStyle(each);
    return outlineStyle !== 'none' && parseFloat(outlineWidth) >= 2;
  };
  const here = document.activeElement;
  return seen(here) || [here.closest('label'), here.closest('.fw-drop')].some((each) => each && seen(each));
}"""


@pytest.mark.parametrize(("path", "language"), [("/", "en"), ("/zh/", "zh")])
def test_every_control_has_a_name_in_the_language_of_the_page(page_of, path, language):
    page = page_of(path)
    page.click("#fw-advanced button")
    page.wait_for_selector("#fw-precision input")
    assert page.evaluate(NAMELESS) == []
    for name in ("frames", "steps"):
        label = say(language, f"setting.{name}")
        page.get_by_role("spinbutton", name=label, exact=True).wait_for()
        page.get_by_role("slider", name=label, exact=True).wait_for()
        page.get_by_role("button", name=say(language, "setting.reset", values={"name": label}), exact=True).wait_for()
    page.get_by_role("button", name=say(language, "setting.seed.dice"), exact=True).wait_for()
    page.get_by_role("radiogroup", name=say(language, "setting.motion"), exact=True).wait_for()
    levels = page.evaluate(HEADINGS)
    assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_keyboards_place_is_always_seen(page_of):
    page = page_of()
    met = set()
    for _ in range(16):
        page.keyboard.press("Tab")
        met.add(page.evaluate("document.activeElement.type || document.activeElement.tagName"))
        assert page.evaluate(OUTLINE), page.evaluate("document.activeElement.outerHTML.slice(0, 200)")
    assert {"radio", "file", "button", "textarea", "number", "range"} <= met


def test_what_is_being_made_keeps_the_large_view_and_shows_its_preview_in_the_list(page_of, server):
    page = page_of()
    running = hand_in(page, server, num_inference_steps="1000", num_frames="33")
    page.reload()
    page.wait_for_selector(f".fw-stage [data-id='{running}'][data-status='in_progress']")
    choose_picture(page)
    fill_form(page, frames=5, steps=2, seed=4)
    page.click("#fw-make")
    page.wait_for_selector(".fw-list [data-status='queued']")
    assert page.get_attribute(".fw-stage .fw-card", "data-id") == running
    page.wait_for_function(
        f"document.querySelector(\".fw-list [data-id='{running}'] .fw-thumb > img\")?.naturalWidth > 0"
    )
    page.click("[data-does='video.cancel']")
    page.wait_for_selector(f".fw-stage [data-id='{running}'][data-status='cancelled']")


def test_a_download_is_named_after_its_prompt(page_of, server):
    page = page_of()
    job = hand_in(page, server, prompt="The red circle grows: 红色, at last!", seed="5")
    page.reload()
    look_at(page, job)
    wait_until_ready(page, job)
    with page.expect_download() as found:
        page.click(".fw-actions a[download]")
    assert found.value.suggested_filename == "the-red-circle-grows-红色-at-last-seed5.mp4"
