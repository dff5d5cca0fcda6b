"""What a video will be and take, shown before it is made: its size, the crop, memory and time."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Mapping
from typing import Any

from framewake.config import Framing
from framewake.errors import FramewakeError, InputError
from framewake.media.framing import FRAMES
from framewake.pipeline.forecast.place import gib
from framewake.pipeline.jobs import Plan, plan_size
from framewake.request import from_dict
from framewake.service.desk import Desk
from framewake.service.page.texts import lasting, say
from framewake.service.page.told import translated
from framewake.service.refusals import public_error
from framewake.shapes import crop_offset


def crop_of(plan: Plan, height_px: int, width_px: int, *, framing: Framing = "inside") -> dict[str, Any]:
    """The part of a picture that becomes the video, as shares of the picture's sides: all of it, where it is to fit."""
    bucket = (plan.shape.height, plan.shape.width)
    resized = FRAMES[framing].resized(bucket, height_px, width_px)
    height, width = (max(pair) for pair in zip(resized, bucket, strict=True))
    place = plan.request.crop_place
    if place is None:
        height, width = bucket
    across, down = place or (0.5, 0.5)
    return {
        "place": plan.request.crop,
        "top": crop_offset(height, bucket[0], place=down) / height,
        "left": crop_offset(width, bucket[1], place=across) / width,
        "height": bucket[0] / height,
        "width": bucket[1] / width,
        "height_px": bucket[0],
        "width_px": bucket[1],
    }


def picture_sides(text: str) -> tuple[int, int] | None:
    """Height and width from a text such as "1280x720", None when there is no picture yet.

    Raises: InputError for anything else.
    """
    if not text:
        return None
    found = re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)
    if found is None:
        raise InputError(f"the picture's size is {text[:20]!r}: expected width x height.")
    return int(found[2]), int(found[1])


class Estimates:
    """The card under the settings, in one language."""

    def __init__(self, desk: Desk, language: str) -> None:
        self.desk = desk
        self.language = language

    def estimate(self, values: Mapping[str, Any], size: str) -> tuple[str, str]:
        """The card as HTML and the crop as JSON; what cannot be made is said in the card."""
        try:
            sides = picture_sides(size)
            needs_picture = self.desk.checkpoint.dit.needs_picture
            if sides is None and needs_picture:
                return f'<p class="fw-quiet">{html.escape(self._say("plan.empty"))}</p>', ""
            asked = {**values, "prompt": values.get("prompt") or "?", "image": "picture" if needs_picture else None}
            plan = plan_size(from_dict(asked), self.desk.checkpoint, sides)
            framing = self.desk.checkpoint.dit.framing
            crop = "" if sides is None else json.dumps(crop_of(plan, *sides, framing=framing))
            try:
                return self._card(plan), crop
            except FramewakeError as error:
                return self._refusal(error), crop
        except FramewakeError as error:
            return self._refusal(error), ""

    def _card(self, plan: Plan) -> str:
        shape, request = plan.made, plan.request
        clip = {"width": shape.width, "height": shape.height, "frames": shape.frames}
        lines = [("plan.label.clip", self._say("plan.clip", {**clip, "seconds": f"{shape.frames / request.fps:.1f}"}))]
        facts = self.desk.advisor.facts()
        if facts is None:
            return self._table(lines) + f'<p class="fw-quiet fw-unknown">{html.escape(self._say("plan.unknown"))}</p>'
        found = self.desk.advisor.forecast(plan, facts)
        count = facts.get("devices", 1)
        told = {"memory": gib(found.device_peak), "device": facts["name"], "count": str(count)}
        memory = self._say("plan.memory" if count == 1 else "plan.memory.each", told)
        if any(place.is_streamed for place in found.placements.values()):
            memory += "; " + self._say("plan.streamed")
        lines.append(("plan.label.memory", memory))
        if found.seconds is not None:
            time = self._say("plan.time", {"time": lasting(self.language, found.seconds)})
            lines.append(("plan.label.time", time))
        busy = self.desk.advisor.busy()
        advice = "" if busy is None else f'<p class="fw-advised">{html.escape(translated(self.language, busy))}</p>'
        return self._table(lines) + advice

    def _table(self, lines: list[tuple[str, str]]) -> str:
        rows = "".join(f"<dt>{html.escape(self._say(key))}</dt><dd>{html.escape(text)}</dd>" for key, text in lines)
        return f'<dl class="fw-plan">{rows}</dl>'

    def _refusal(self, error: FramewakeError) -> str:
        text = html.escape(translated(self.language, public_error(error)[1]))
        return f'<p class="fw-refused" role="alert"><b>{html.escape(self._say("plan.refused"))}</b> {text}</p>'

    def _say(self, key: str, values: Mapping[str, object] | None = None) -> str:
        return say(self.language, key, values=values)
