"""A server with keys and LoRA files, in a real Chromium: the way in and out, and LoRAs with their weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from page_server import PageServer
from steps import PROMPT, STEP_SECONDS, choose_picture, fill_form, wait_until_open

import framewake

KEYS = ("a-key-of-some-length", "another-key-of-length")
TRAILS = next(Path(framewake.__file__).parent.glob("demo/**/trails.safetensors"))
LOGIN = "input[name=key]"


@pytest.fixture(scope="module")
def locked(tmp_path_factory):
    """A server that asks for a key and offers two LoRA files."""
    folder = tmp_path_factory.mktemp("locked")
    (folder / "keys.txt").write_text("# of two people\n" + "\n".join(KEYS))
    (folder / "offered").mkdir()
    for name in ("trails", "again"):
        shutil.copy(TRAILS, folder / "offered" / f"{name}.safetensors")
    made = PageServer(folder, "--api-key-file", str(folder / "keys.txt"), "--loras", str(folder / "offered"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def visitor(chromium, locked):
    """Opens the server's address in a browser of its own."""
    contexts = []

    def visit(**options):
        contexts.append(chromium.new_context(**{"viewport": {"width": 1280, "height": 1400}, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(STEP_SECONDS * 1000)
        page.goto(locked.url)
        return page

    yield visit
    for context in contexts:
        context.close()


def come_in(page, key=KEYS[0]):
    page.fill(LOGIN, key)
    page.keyboard.press("Enter")
    wait_until_open(page)


def test_the_way_in_and_out(visitor, locked):
    page = visitor()
    assert page.url == f"{locked.url}/login"
    page.fill(LOGIN, "not-a-key-that-is-known")
    page.click("button")
    page.wait_for_selector("[role=alert]:has-text('This key is unknown.')")
    come_in(page)
    assert page.url == f"{locked.url}/"
    (cookie,) = [each for each in page.context.cookies() if each["name"] == "framewake_session"]
    assert cookie["httpOnly"] and KEYS[0] not in cookie["value"]
    page.reload()
    wait_until_open(page)
    page.click("a[href='/logout']")
    page.wait_for_selector(LOGIN)
    page.goto(locked.url)
    assert page.url == f"{locked.url}/login"


def test_a_session_that_ended_leads_back_to_the_door(visitor, locked):
    page = visitor(locale="zh-CN")
    page.wait_for_selector("text=此服务器需要 API 密钥")
    page.fill(LOGIN, "not-a-key-that-is-known")
    page.click("button")
    page.wait_for_selector("[role=alert]:has-text('此密钥无效。')")
    come_in(page)
    assert page.url == f"{locked.url}/zh/" and page.inner_text("a[href='/logout']") == "退出登录"
    page.context.clear_cookies(name="framewake_session")
    page.wait_for_url(f"{locked.url}/login")  # the list is asked for again by itself


@pytest.mark.parametrize("door", ["the button", "the list"])
def test_a_session_that_ends_while_somebody_types_costs_nothing(visitor, locked, door):
    page = visitor()
    come_in(page)
    choose_picture(page)
    fill_form(page, frames=9, steps=4, seed=6)
    page.wait_for_function("sessionStorage.getItem('framewake-form').includes('\"6\"')")
    page.context.clear_cookies(name="framewake_session")
    if door == "the button":
        page.evaluate("document.querySelector('#fw-make')?.click()")  # gone already, where the list was faster
    page.wait_for_selector(LOGIN)
    come_in(page)
    page.wait_for_selector(".fw-crop:not([hidden])")
    page.wait_for_function("document.querySelector('#fw-frames input[type=number]').value === '9'")
    assert page.input_value("#fw-prompt textarea") == PROMPT
    page.click("a[href='/logout']")
    page.wait_for_selector(LOGIN)
    come_in(page)
    page.wait_for_selector(".fw-drop")
    assert page.input_value("#fw-prompt textarea") == "", "who logs out leaves nothing behind"


def choose_lora(page, name):
    """One more of the offered files."""
    page.click("#fw-loras input[role=listbox], #fw-loras input[aria-label]")
    page.click(f"ul[role=listbox] li:has-text('{name}')")
    page.keyboard.press("Escape")


def weight(page, number):
    return page.input_value(f"#fw-weight-{number} input")


def test_loras_are_chosen_weighted_and_brought_back(visitor, locked):
    page = visitor()
    come_in(page)
    choose_picture(page)
    fill_form(page, frames=9, steps=4, seed=5)
    page.click("#fw-loras button")
    choose_lora(page, "trails")
    page.wait_for_selector("#fw-weight-0:has-text('Weight of trails')")
    page.fill("#fw-weight-0 input", "0.5")
    page.keyboard.press("Tab")
    choose_lora(page, "again")
    page.wait_for_selector("#fw-weight-1:has-text('Weight of again')")
    assert (weight(page, 0), weight(page, 1)) == ("0.5", "1"), "a weight was lost when another file came"
    page.fill("#fw-weight-1 input", "-0.25")
    page.keyboard.press("Tab")
    page.click("#fw-make")
    page.wait_for_selector(".fw-stage [data-status='completed']")
    answer = page.request.get(f"{locked.url}/v1/videos")
    page.wait_for_selector(".fw-card .fw-quiet:has-text('LoRA trails 0.5, again -0.25')")
    (video,) = json.loads(answer.text())["data"]
    assert video["prompt"] == PROMPT
    assert video["lora"] == ["trails.safetensors:0.5", "again.safetensors:-0.25"]

    page.reload()
    page.wait_for_selector("#fw-weight-1:has-text('Weight of again')")
    assert (weight(page, 0), weight(page, 1)) == ("0.5", "-0.25"), "kept in the browser, as the rest of the form"

    page.evaluate("sessionStorage.clear()")
    page.reload()
    page.wait_for_selector(".fw-stage [data-status='completed']")
    page.wait_for_selector(".fw-drop")
    page.click("[data-does='video.reuse']")
    page.wait_for_selector("#fw-message.fw-note")
    page.wait_for_selector("#fw-weight-1:has-text('Weight of again')")
    assert (weight(page, 0), weight(page, 1)) == ("0.5", "-0.25")


def test_another_key_sees_other_videos(visitor, locked):
    page = visitor()
    come_in(page, KEYS[1])
    page.wait_for_selector(".fw-empty")
    assert page.request.get(f"{locked.url}/v1/videos").json()["data"] == []
