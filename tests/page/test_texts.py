"""Two languages, one table."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from framewake.request import settings
from framewake.service.page.texts import LANGUAGES, TEXTS, lasting, preferred, say

SOURCES = Path(__file__).parents[2] / "src" / "framewake" / "service" / "page"


def test_both_languages_have_the_same_texts_and_values():
    assert set(TEXTS) == set(LANGUAGES)
    assert set(TEXTS["en"]) == set(TEXTS["zh"])
    for key, text in TEXTS["en"].items():
        assert text and TEXTS["zh"][key]
        assert set(re.findall(r"\$\w+", text)) == set(re.findall(r"\$\w+", TEXTS["zh"][key])), key


def test_the_chinese_is_chinese():
    same = {key for key, text in TEXTS["zh"].items() if not re.search(r"[\u4e00-\u9fff]", text)}
    assert same <= {"title", "lora.title", "setting.loras", "video.loras"}


def test_what_a_request_says_of_its_settings_is_not_written_again():
    for name, setting in settings().items():
        assert TEXTS["en"][f"setting.{name}.help"] == setting.help


def test_every_text_that_is_asked_for_exists_and_every_text_is_asked_for():
    sources = "".join(path.read_text() for path in SOURCES.iterdir() if path.suffix in (".py", ".js"))
    asked = set(re.findall(r"""(?:say|_say|_text|button)\(\s*(?:language, )?["']([a-z_.]+)["']""", sources))
    assert len(asked) > 30 and asked <= set(TEXTS["en"])
    spelled = set(re.findall(r"""["'?:\s(]["']([a-z]+(?:\.[a-z_]+)+)["']""", sources)) | asked
    families = ("setting.", "state.", "stage.", "login.", "advice.")  # put together from a part and a name
    unused = {key for key in TEXTS["en"] if key not in spelled and not key.startswith(families) and key != "title"}
    assert not unused


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("fr,zh;q=0.5,en;q=0.4", "zh"),
        ("fr", "en"),
        ("", "en"),
        ("zh;q=broken,en;q=0.1", "en"),
    ],
)
def test_the_browser_says_which_language(accepted, language):
    assert preferred(accepted) == language


def test_lengths_of_time():
    assert [lasting("en", seconds) for seconds in (0.2, 89, 600, 8000)] == ["1 s", "89 s", "10 min", "2 h 13 min"]
    assert say("zh", "video.left", values={"time": lasting("zh", 120)}) == "约剩 2 分钟"
