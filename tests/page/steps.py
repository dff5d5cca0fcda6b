"""What a person does on the page."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request

from framewake.demo import PICTURES

PROMPT = "the red circle moves right"
PICTURE = PICTURES / "red-circle.png"
STEP_SECONDS = 90  # for one condition, on a machine that may be busy
ACTIVE = ("queued", "in_progress", "paused")
SETTINGS = {"resolution": "360p", "num_frames": "9", "num_inference_steps": "4"}


def wait_until_open(page) -> None:
    """Until the page answers: what a script chooses before that is lost."""
    page.wait_for_selector("#fw-make")
    page.wait_for_selector(".fw-empty, .fw-card")


def choose_picture(page, path=PICTURE) -> None:
    """Choose a file and wait until the crop is outlined."""
    page.set_input_files("#fw-file", path)
    page.wait_for_selector(".fw-crop:not([hidden])")


def fill_form(page, *, frames: int, steps: int, seed: int) -> None:
    """A small video."""
    page.fill("#fw-prompt textarea", PROMPT)
    page.click("#fw-resolution label:has-text('360p')")
    for name, value in (("frames", frames), ("steps", steps)):
        page.fill(f"#fw-{name} input[type=number]", str(value))
        page.keyboard.press("Tab")
    page.fill("#fw-seed input, #fw-seed textarea", str(seed))


def values(page) -> dict:
    """What the form shows."""
    return {
        "prompt": page.input_value("#fw-prompt textarea"),
        "resolution": page.input_value("#fw-resolution input:checked"),
        "motion": page.input_value("#fw-is_stable input:checked"),
        "frames": page.input_value("#fw-frames input[type=number]"),
        "steps": page.input_value("#fw-steps input[type=number]"),
        "seed": page.input_value("#fw-seed input, #fw-seed textarea"),
    }


def hand_in(page, server, **fields: str) -> str:
    """A video by way of the API."""
    form = {"prompt": PROMPT, **SETTINGS, **fields}
    picture = {"name": "x.png", "mimeType": "image/png", "buffer": PICTURE.read_bytes()}
    answer = page.request.post(f"{server.url}/v1/videos", multipart={**form, "input_reference": picture})
    assert answer.ok, answer.text()
    return json.loads(answer.text())["id"]


def press_make(page) -> str:
    """Hand in what the form holds, and look at it; earlier videos may be there."""
    with page.expect_response(lambda answer: answer.url.endswith("/v1/videos")) as answered:
        page.click("#fw-make")
    job = answered.value.json()["id"]
    look_at(page, job)
    return job


def look_at(page, job: str) -> None:
    """One of the videos large; in the list there are small pictures when there are several."""
    page.wait_for_selector(f"[data-id='{job}']", state="attached")
    page.evaluate(f"document.querySelector(\".fw-list [data-id='{job}']\")?.click()")
    page.wait_for_selector(f".fw-stage [data-id='{job}']")


def wait_until_ready(page, job: str) -> None:
    """Until a video of the list is ready."""
    page.wait_for_selector(f".fw-stage [data-id='{job}'][data-status='completed']")


def cancel_all(url: str) -> None:
    """No video waits or is being made any more."""
    while active := [each["id"] for each in _asked(f"{url}/v1/videos?limit=100")["data"] if each["status"] in ACTIVE]:
        for job in active:
            with contextlib.suppress(urllib.error.HTTPError):  # it has ended meanwhile
                _asked(f"{url}/v1/videos/{job}/cancel", method="POST")


def _asked(address: str, *, method: str = "GET") -> dict:
    with urllib.request.urlopen(urllib.request.Request(address, method=method)) as answer:
        return json.load(answer)
