"""Make the pictures of the page: English on a desktop while a video is made, Chinese on a phone when it is ready.

With --all FOLDER, every combination goes there: both languages, both widths, light and dark, running and finished.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "page"))

from browser import MISSING, find, options  # noqa: E402 - lies beside the tests that share it
from page_server import PageServer  # noqa: E402
from steps import choose_picture  # noqa: E402

IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 100_000
PROMPTS = ("the red circle moves right", "the red circle rises", "the red circle grows")
DESKTOP = {"viewport": {"width": 1440, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True, "has_touch": True}
PATIENCE = 300_000  # milliseconds
# Two signs that no font confuses, unless both are the box that stands for a missing one.
DRAWN_ALIKE = """() => {
  const drawn = (sign) => {
    const context = document.createElement("canvas").getContext("2d");
    context.font = "40px system-ui, sans-serif";
    context.fillText(sign, 10, 60);
    return context.canvas.toDataURL();
  };
  return drawn("中") === drawn("视");
}"""


def main() -> None:
    """Start a server, make videos on its page, and take pictures meanwhile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", metavar="FOLDER", type=Path, help="where every combination goes, to be looked at")
    given = parser.parse_args()
    if find() is None:
        sys.exit(f"picture: {MISSING}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(**options())
        check_chinese(browser)
        server = PageServer(Path(folder))
        server.start()
        try:
            for prompt in PROMPTS[1:]:
                opened = open_page(browser, server.url, DESKTOP, "en")
                make(opened, prompt, steps=20)
                opened.wait_for_selector("#fw-player")
                opened.context.close()
            take_final(browser, server.url)
            if given.all is not None:
                take_all(browser, server.url, given.all)
        finally:
            browser.close()
            server.stop()


def check_chinese(browser: Browser) -> None:
    """Boxes instead of Chinese are no picture of the page."""
    page = browser.new_page()
    if page.evaluate(DRAWN_ALIKE):
        sys.exit("picture: no font with Chinese signs is here: `apt-get install fonts-noto-cjk`, or another one")
    page.close()


def take_final(browser: Browser, url: str) -> None:
    """The two of the documents."""
    desktop = open_page(browser, url, DESKTOP, "en")
    make(desktop, PROMPTS[0], steps=40)
    wait_for_half(desktop)
    save(desktop, IMAGES / "page.png")
    desktop.wait_for_selector("#fw-player")
    phone = open_page(browser, url, PHONE, "zh-CN")
    phone.wait_for_selector("#fw-player")
    wait_for_pictures(phone)
    phone.evaluate("document.querySelector('#fw-videos').scrollIntoView()")
    save(phone, IMAGES / "page-phone.png")


def take_all(browser: Browser, url: str, folder: Path) -> None:
    """Both languages, both widths, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for language in ("en", "zh-CN"):
        for name, shape in (("desktop", DESKTOP), ("phone", PHONE)):
            for scheme in ("light", "dark"):
                page = open_page(browser, url, {**shape, "color_scheme": scheme}, language)
                make(page, PROMPTS[0], steps=40)
                wait_for_half(page)
                page.screenshot(path=folder / f"{language}-{name}-{scheme}-running.png", full_page=True)
                page.wait_for_selector("#fw-player")
                wait_for_pictures(page)
                page.screenshot(path=folder / f"{language}-{name}-{scheme}-finished.png", full_page=True)
                page.context.close()


def open_page(browser: Browser, url: str, shape: dict, language: str) -> Page:
    """The page in a language, ready to be used."""
    page = browser.new_context(**shape, locale=language).new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(url)
    page.wait_for_selector("#fw-make")
    page.wait_for_selector(".fw-empty, .fw-card")
    return page


def make(page: Page, prompt: str, *, steps: int) -> None:
    """Hand a video in."""
    choose_picture(page)
    page.fill("#fw-prompt textarea", prompt)
    page.fill("#fw-steps input[type=number]", str(steps))
    page.keyboard.press("Tab")
    page.wait_for_selector(".fw-plan dd:nth-of-type(3)")
    before = page.get_attribute(".fw-card", "data-id") if page.query_selector(".fw-card") else None
    page.click("#fw-make")
    page.wait_for_function(
        "(before) => { const card = document.querySelector('.fw-card'); return card && card.dataset.id !== before; }",
        arg=before,
    )


def wait_for_half(page: Page) -> None:
    """Until the preview shows something."""
    page.wait_for_function("Number(document.querySelector('.fw-bar')?.getAttribute('aria-valuenow')) > 45")
    page.wait_for_selector(".fw-preview:not([hidden])")
    page.evaluate("window.scrollTo(0, 0)")


def wait_for_pictures(page: Page) -> None:
    """Until the player and every thumbnail show something."""
    page.wait_for_function(
        "[...document.querySelectorAll('#fw-videos img')].every((image) => image.complete && image.naturalWidth)"
        " && !(document.querySelector('#fw-player')?.readyState < 2)"
    )


def save(page: Page, path: Path) -> None:
    """A picture small enough for the repository: half size where pixels are doubled, and a palette."""
    page.screenshot(path=path)
    with Image.open(path) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    if path.stat().st_size > MOST_BYTES:
        sys.exit(f"picture: {path.name} has {path.stat().st_size:,} bytes, {MOST_BYTES:,} may be")


if __name__ == "__main__":
    main()
