"""The page in one language: where everything is, and what reacts to what."""

from __future__ import annotations

import html
import json
import secrets
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from framewake.errors import FramewakeError, InputError
from framewake.pipeline.notes import idle_settings
from framewake.service.desk import Desk
from framewake.service.page.controls import (
    ADVANCED,
    MOST_LORAS,
    NAMES,
    control,
    fields_of,
    largest,
    settings_of,
    usable,
    values_of,
)
from framewake.service.page.estimate import Estimates
from framewake.service.page.examples import PROMPTS
from framewake.service.page.texts import LANGUAGES, TEXTS, say
from framewake.service.page.told import PATTERNS, names_of, translated
from framewake.service.refusals import public_error

HERE = Path(__file__).parent
SCRIPTS = tuple(
    f"{name}.js"
    for name in (
        "elements",
        "wire",
        "kept",
        "advice",
        "picture",
        "examples",
        "names",
        "seeds",
        "onward",
        "card",
        "videos",
        "page",
    )
)
# Quick answers without Gradio's queue; clips are made by workers, from the queue in the database.
QUICK: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}


def own_html(text: str, *, name: str | None = None, is_visible: bool = True) -> gr.HTML:
    """Our own elements, without Gradio's style for written articles."""
    return gr.HTML(text, apply_default_css=False, elem_id=name, visible=is_visible)


class PageLayout:
    """One language's page over a desk."""

    def __init__(self, desk: Desk, language: str, *, has_keys: bool, root: str = "") -> None:
        self.desk = desk
        self.language = language
        self.has_keys = has_keys
        self.root = root  # the path that the server stands under
        self.checkpoint = desk.checkpoint.settings
        self.needs_picture = desk.checkpoint.dit.needs_picture
        self.controls: dict[str, Any] = {}
        self.weights: list[Any] = []

    def build(self) -> gr.Blocks:
        """Everything, ready to be mounted."""
        with gr.Blocks(analytics_enabled=False, title=self._say("title"), fill_width=True) as page:
            own_html(self._header())
            with gr.Row(elem_classes="fw-columns"):
                with gr.Column(elem_classes="fw-form"):
                    self._add_form()
                with gr.Column(elem_classes="fw-side"):
                    own_html(f'<section id="fw-videos" aria-label="{self._text("videos.title")}"></section>')
            self._add_messages()
            self._connect(page)
        return page

    def head(self) -> str:
        """Scripts and their settings, for the page's head."""
        given = {
            "language": self.language,
            "root": self.root,
            "texts": dict(TEXTS[self.language]) | names_of(self.language),
            "told": PATTERNS[self.language],
            "mostBytes": self.desk.limits.upload_bytes,
            "needsPicture": self.needs_picture,
            "names": NAMES,
            "examples": PROMPTS,
            "usual": {"frames": self.checkpoint.frames, "steps": self.checkpoint.steps},
            "most": {name: largest(name, 0, self.checkpoint) for name in ("frames", "steps")},
        }
        data = json.dumps(given, ensure_ascii=False).replace("<", "\\u003c")
        scripts = "\n".join((HERE / name).read_text(encoding="utf-8") for name in SCRIPTS)
        return f"<script>window.framewakeSettings = {data};</script><script>{scripts}</script>"

    # --- parts

    def _header(self) -> str:
        links = [
            f'<a href="{self.root}/{"?language=en" if name == "en" else name + "/"}" lang="{name}" hreflang="{name}">'
            f"{words}</a>"
            for name, words in LANGUAGES.items()
            if name != self.language
        ]
        if self.has_keys:
            links.append(f'<a href="{self.root}/logout">{self._text("logout")}</a>')
        return (
            f'<header class="fw-header"><div><h1>{self._text("title")}</h1><p>{self._text("subtitle")} '
            f'<span id="fw-model">{html.escape(self._say("model", {"name": self.checkpoint.name}))}</span></p></div>'
            f"<nav>{''.join(links)}</nav></header>"
        )

    def _add_form(self) -> None:
        own_html('<div id="fw-picture"></div>', is_visible=self.needs_picture)
        self._add("crop")
        is_demo = self.checkpoint.is_demo
        own_html('<div id="fw-examples" role="group" aria-labelledby="fw-examples-title"></div>', is_visible=is_demo)
        self._add("prompt")
        own_html(self._advice())
        own_html('<div role="status"><ul id="fw-notes"></ul></div>')
        with gr.Row():
            self._add("resolution")
            self._add("is_stable")
        with gr.Row():
            self._add("frames")
            self._add("steps")
        with gr.Row(elem_classes="fw-seed"):
            self._add("seed")
            self.dice = gr.Button("", elem_id="fw-dice", min_width=48, scale=0)
        self._add_loras()
        with gr.Accordion(self._say("advanced.title"), open=False, elem_id="fw-advanced"):
            for first in range(0, len(ADVANCED), 2):
                with gr.Row():
                    for name in ADVANCED[first : first + 2]:
                        self._add(name)
        self.plan = own_html("", name="fw-plan")
        with gr.Column(elem_classes="fw-go"):  # stays in view while the form is longer than the window
            own_html('<p id="fw-message" role="alert"></p>')
            with gr.Row(elem_classes="fw-press"):
                self.make = gr.Button(self._say("make"), variant="primary", size="lg", elem_id="fw-make")
                own_html('<div id="fw-many"></div>')
            own_html('<div id="fw-early"></div>')

    def _add(self, name: str) -> None:
        is_idle = name in idle_settings(self.desk.checkpoint)
        self.controls[name] = control(name, self.language, self.checkpoint, is_idle=is_idle)

    def _advice(self) -> str:
        """What a good prompt is for the model that is served."""
        if self.checkpoint.is_demo:
            return f'<p class="fw-advice">{self._text("advice.demo")}</p>'
        keys = ["advice.short", "advice.subject", "advice.setting", "advice.detail"]
        items = "".join(f"<li>{self._text(key)}</li>" for key in keys)
        known = self.checkpoint.domain.description
        items += f"<li>{html.escape(self._say('advice.domain', {'what': known}))}</li>" if known else ""
        return f'<details class="fw-advice"><summary>{self._text("advice.title")}</summary><ul>{items}</ul></details>'

    def _add_loras(self) -> None:
        with gr.Accordion(self._say("lora.title"), open=False, elem_id="fw-loras", visible=False) as self.lora_box:
            self.loras = gr.Dropdown(
                [], multiselect=True, max_choices=MOST_LORAS, label=self._say("lora.label"), info=self._say("lora.help")
            )
            with gr.Row():
                self.weights = [
                    gr.Number(1.0, step=0.1, minimum=-10, maximum=10, visible=False, elem_id=f"fw-weight-{index}")
                    for index in range(MOST_LORAS)
                ]
        self.weighted = gr.Textbox("[]", visible="hidden")  # whose weights stand there now, as JSON

    def _add_messages(self) -> None:
        """Boxes through which the scripts and the handlers speak to each other."""
        self.size = gr.Textbox("", visible="hidden", elem_id="fw-size")
        self.crop = gr.Textbox("", visible="hidden")
        self.ticket = gr.Textbox("", visible="hidden")
        self.restore = gr.Textbox("", visible="hidden", elem_id="fw-restore")
        self.restore_go = gr.Button("", visible="hidden", elem_id="fw-restore-go")
        self.note = gr.Textbox("", visible="hidden")
        self.again = gr.Button("", visible="hidden", elem_id="fw-estimate-again")

    # --- what follows from what

    def _connect(self, page: gr.Blocks) -> None:
        form = [self.controls[name] for name in NAMES]
        estimates = Estimates(self.desk, self.language)
        planned = [self.size, *(each for name, each in self.controls.items() if name not in ("prompt", "seed"))]
        gr.on(
            [page.load, self.again.click, *(each.change for each in planned)],
            _estimator(estimates),
            [self.size, *form],
            [self.plan, self.crop],
            trigger_mode="always_last",
            **QUICK,
        ).success(None, [self.crop], js="(crop) => window.framewake.picture.outline(crop)", **QUICK)
        self.dice.click(
            None, None, [self.controls["seed"]], js="() => String(Math.floor(Math.random() * 1000001))", **QUICK
        )
        weights = [self.loras, self.weighted, *self.weights]
        kept = [*form, *weights]
        page.load(self._offer_loras, None, [self.lora_box, self.loras], **QUICK).then(
            None, kept, [*kept, self.lora_box], js="(...values) => window.framewake.kept.restored(values)", **QUICK
        )
        gr.on(
            [each.change for each in kept],
            None,
            kept,
            None,
            js="(...values) => { window.framewake.kept.keep(values); }",
            **QUICK,
        )
        # Not at any change: settings of an earlier video bring their weights themselves.
        self.loras.input(self._show_weights, weights, [self.weighted, *self.weights], **QUICK)
        self.make.click(self._write_ticket, [self.loras, *self.weights, *form], [self.ticket], **QUICK).success(
            None, [self.ticket], js="(ticket) => { window.framewake.send(ticket); }", **QUICK
        )
        filled = [*form, self.lora_box, self.loras, self.weighted, *self.weights, self.note]
        self.restore_go.click(self._fill, [self.restore], filled, **QUICK).success(
            None, [self.note], js="(note) => { window.framewake.note(note); }", **QUICK
        )

    def _write_ticket(self, loras: list[str] | None, *values: Any) -> str:
        """The fields of the video as JSON; a script sends them, with the picture, as any client of the API does."""
        given = [(name, float(weight or 0)) for name, weight in zip(loras or [], values[:MOST_LORAS], strict=False)]
        ticket: dict[str, Any] = {"number": secrets.token_hex(4)}
        try:
            ticket["fields"] = fields_of(values[MOST_LORAS:], given)
        except FramewakeError as error:
            ticket["error"] = translated(self.language, public_error(error)[1])
        return json.dumps(ticket, ensure_ascii=False)

    def _offer_loras(self) -> tuple[Any, Any]:
        names = self.desk.lora_names()
        return gr.update(visible=bool(names)), gr.update(choices=names)

    def _show_weights(self, names: list[str] | None, weighted: str, *weights: float | None) -> list[Any]:
        known = dict(zip(json.loads(weighted), weights, strict=False))
        return self._weights({name: known.get(name) for name in names or []})

    def _weights(self, chosen: dict[str, float | None]) -> list[Any]:
        updates: list[Any] = [json.dumps(list(chosen))]
        for name, weight in list(chosen.items())[:MOST_LORAS]:
            label = self._say("lora.weight", {"name": name})
            updates.append(gr.update(visible=True, label=label, value=1.0 if weight is None else weight))
        return updates + [gr.update(visible=False)] * (MOST_LORAS + 1 - len(updates))

    def _fill(self, text: str) -> list[Any]:
        """Every control with the settings of an earlier video."""
        offered = self.desk.lora_names()
        try:
            request, loras = usable(json.loads(text))
        except (FramewakeError, ValueError) as error:
            problem = error if isinstance(error, FramewakeError) else InputError("these settings cannot be read.")
            kept = [gr.skip()] * (len(NAMES) + 3 + MOST_LORAS)
            told = translated(self.language, public_error(problem)[1])
            return [*kept, json.dumps({"error": told, "number": secrets.token_hex(4)}, ensure_ascii=False)]
        there = {name: weight for name, weight in loras.items() if name in offered}
        notes = [self._say("restore.done")]
        missing = [name for name in loras if name not in offered]
        if missing:
            notes.append(self._say("restore.loras", {"names": ", ".join(missing)}))
        box = [gr.update(visible=bool(offered), open=bool(there)), gr.update(choices=offered, value=list(there))]
        note = json.dumps({"text": " ".join(notes), "number": secrets.token_hex(4)}, ensure_ascii=False)
        return [*values_of(request, self.checkpoint), *box, *self._weights(dict(there)), note]

    def _say(self, key: str, values: dict[str, object] | None = None) -> str:
        return say(self.language, key, values=values)

    def _text(self, key: str) -> str:
        return html.escape(self._say(key))


def _estimator(estimates: Estimates) -> Callable[..., tuple[str, str]]:
    def estimate(size: str, *values: Any) -> tuple[str, str]:
        given = [None if name in ("prompt", "seed") else value for name, value in zip(NAMES, values, strict=True)]
        return estimates.estimate(_whole(given), size)

    return estimate


def _whole(values: Sequence[Any]) -> dict[str, Any]:
    return settings_of(values)
