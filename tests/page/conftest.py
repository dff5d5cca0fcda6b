"""A server with the demonstration checkpoint, and pages in a real browser."""

from __future__ import annotations

import contextlib
import importlib.util

import pytest
from browser import MISSING, find, options
from page_server import PageServer
from PIL import Image
from steps import STEP_SECONDS, cancel_all, wait_until_open

from framewake.demo import PICTURES

PICTURE = PICTURES / "red-circle.png"


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    if importlib.util.find_spec("torch") is None:
        pytest.skip("the page is tested with torch:cpu, which is not installed")
    made = PageServer(tmp_path_factory.mktemp("page"))
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")  # while Playwright is there, no test of the same process can run an event loop
def chromium():
    if find() is None:
        pytest.skip(MISSING)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(**options())
        yield opened
        opened.close()


@pytest.fixture
def page_of(chromium, server):
    """Opens the page; at the end, nothing may have gone wrong in it, and nothing may have been asked elsewhere.

    What is still being made at the end is cancelled: the page keeps it large, before whatever comes next.
    """
    with contextlib.ExitStack() as stack:
        problems: list[str] = []

        def open_page(path="/", **context_options):
            context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **context_options})
            stack.callback(context.close)
            page = context.new_page()
            page.set_default_timeout(STEP_SECONDS * 1000)
            page.on("pageerror", lambda error: problems.append(f"script: {error}"))
            page.on("request", lambda request: _check_address(request.url, server.url, problems))
            page.goto(server.url + path)
            wait_until_open(page)
            return page

        yield open_page
        cancel_all(server.url)
        assert not problems


def _check_address(address, home, problems):
    if not address.startswith((home, "data:", "blob:")):
        problems.append(f"asked elsewhere: {address}")


@pytest.fixture(scope="session")
def wide_picture(tmp_path_factory):
    """A picture that no bucket has the shape of."""
    path = tmp_path_factory.mktemp("pictures") / "wide.png"
    with Image.open(PICTURE) as image:
        image.convert("RGB").resize((1000, 700)).save(path)
    return path
