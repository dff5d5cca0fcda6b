"""Where a Chromium is, for tests and for pictures of the page."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

MISSING = "no Chromium is here: run scripts/browser, or `apt-get install chromium`"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find() -> str | None:
    """The program: named by FRAMEWAKE_BROWSER, in PATH, or Playwright's own."""
    named = os.environ.get("FRAMEWAKE_BROWSER")
    if named:
        return named
    # A system's browser comes first: it plays H.264, Playwright's own build does not.
    found = next((path for path in map(shutil.which, NAMES) if path), None)
    return found or _own()


def _own() -> str | None:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return None
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def options() -> dict:
    """How to start it; root has no sandbox."""
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return {"executable_path": find(), "args": arguments}
