"""The page under axe-core, in both languages, light and dark, wide and on a phone: no serious finding."""

from __future__ import annotations

import pytest
from axe_playwright_python.sync_playwright import Axe
from steps import choose_picture, hand_in, look_at

# WCAG 2.2 up to level AA; targets of 24 px are part of it, and are only measured when they are named.
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
OPTIONS = {"runOnly": TAGS, "rules": {"target-size": {"enabled": True}}, "resultTypes": ["violations"]}
SERIOUS = ("serious", "critical")


def findings(page):
    """What axe-core finds serious, each with the elements it is about."""
    found = Axe().run(page, options=OPTIONS).response["violations"]
    return {each["id"]: [node["html"][:160] for node in each["nodes"]] for each in found if each["impact"] in SERIOUS}


def unfold(page):
    for name in ("fw-advanced", "fw-loras"):
        page.click(f"#{name} button[aria-expanded='false']")
        page.wait_for_selector(f"#{name} button[aria-expanded='true']")
    page.wait_for_selector("#fw-precision input")


@pytest.mark.parametrize(
    ("path", "colours", "width"),
    [("/", "light", 1440), ("/", "dark", 1440), ("/zh/", "light", 390), ("/zh/", "dark", 390)],
)
def test_nothing_serious_is_found(page_of, server, path, colours, width):
    page = page_of(path, color_scheme=colours, viewport={"width": width, "height": 900})
    assert findings(page) == {}, "as it opens"
    choose_picture(page)
    unfold(page)
    page.fill("#fw-prompt textarea", "She turns her head")
    page.wait_for_selector("#fw-notes li")
    running = hand_in(page, server, num_inference_steps="1000", num_frames="33")
    hand_in(page, server)
    page.evaluate("window.framewake.videos.refresh()")
    look_at(page, running)
    page.wait_for_selector(f".fw-stage [data-id='{running}'] .fw-preview:not([hidden])")
    assert findings(page) == {}, "while one is made"
    page.click("[data-does='video.cancel']")
    page.wait_for_selector(f".fw-stage [data-id='{running}'][data-status='cancelled']")
    page.fill("#fw-prompt textarea", "")
    page.click("#fw-make")
    page.wait_for_selector("#fw-message:not(:empty)")
    page.click("[data-does='video.remove']")
    page.wait_for_selector("[data-does='video.undo']")
    assert findings(page) == {}, "with a refusal, and something to undo"
