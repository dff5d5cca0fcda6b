"""The options of ``framewake animate``: those of ``Request``, declared there, and those for input and output."""

from __future__ import annotations

import inspect
import os
import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import typer

from framewake.errors import InputError
from framewake.request import preset, settings
from framewake.setting import Setting, check_setting, shown

_TYPES = {"text": str, "path": str, "choice": str, "integer": int, "number": float, "switch": bool}
_TYPES |= {"texts": list[str]}
# The shown values of plain types; choices show themselves.
_METAVARS = {"text": "TEXT", "path": "FILE", "integer": "N", "number": "X", "texts": "FILE[:WEIGHT]"}
_METAVARS |= {"--target": "PATTERN", "--validation": "DIR|SHARE", "--tensorboard": "DIR"}
REQUIRED = inspect.Parameter.empty
Parser = Callable[[str], Any]
Given = Mapping[str, Any]  # what a command was given, by the names of its parameters
Run = Callable[[Given], None]


def whole(text: str) -> Any:
    """A whole number; other text as it is, which the setting's own check refuses in its words."""
    try:
        return int(text)
    except ValueError:
        return text


def number(text: str) -> Any:
    """The same for any number."""
    try:
        return float(text)
    except ValueError:
        return text


def whole_from(name: str, minimum: int, *, maximum: int | None = None) -> Callable[[str], int]:
    """A parser of whole numbers, for an option that belongs to no setting; a mistake is told as a setting's is."""
    setting = Setting("integer", "", name, minimum, maximum)

    def parse(text: str) -> int:
        value = whole(text)
        check_setting(name, value, setting)
        return value

    return parse


def filled(name: str, what: str = "a path (. is this folder)") -> Callable[[str], str]:
    """A parser that refuses an empty text, which a shell makes of a variable that is not set.

    As a path it would mean this folder, and as anything else that the option is not there. "~" is the home folder
    also where no shell has seen it, as in ``--like=~/a.mp4``.
    """

    def parse(text: str) -> str:
        if not text:
            raise InputError(f"{name} is empty: expected {what}.")
        if "\0" in text:
            raise InputError(f"{name} holds a zero byte: remove it.")
        return os.path.expanduser(text)

    return parse


def local(name: str) -> Callable[[str], str]:
    """The same for a path on this machine; an address is told to be one."""
    check = filled(name)

    def parse(text: str) -> str:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", text):
            raise InputError(f"{name} is {shown(text)}, an address: only paths on this machine are taken.")
        return check(text)

    return parse


def parameter(name: str, kind: Any, default: Any, described: Any, *, is_positional: bool = False) -> inspect.Parameter:
    """One parameter of a command, an option unless it is given by position."""
    where = inspect.Parameter.POSITIONAL_OR_KEYWORD if is_positional else inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, where, default=default, annotation=Annotated[kind, described])


def argument(
    name: str, metavar: str, text: str, *, kind: Any = str, default: Any = REQUIRED, parser: Parser | None = None
) -> inspect.Parameter:
    """A parameter that is given by position."""
    described = typer.Argument(parser=parser, metavar=metavar, help=text, show_default=False)
    return parameter(name, kind, default, described, is_positional=True)


def named(
    flag: str,
    metavar: str,
    text: str,
    *,
    kind: Any = str | None,
    default: Any = None,
    parser: Parser | None = None,
    variable: str | None = None,
) -> inspect.Parameter:
    """An option with a value; ``variable`` of the environment gives it too."""
    has_default = default is not None
    described = typer.Option(flag, parser=parser, metavar=metavar, envvar=variable, show_default=has_default, help=text)
    return parameter(_key(flag), kind, default, described)


def path(flag: str, metavar: str, text: str, *, default: Any = None) -> inspect.Parameter:
    """An option that names a place on this machine."""
    return named(flag, metavar, text, default=default, parser=local(flag))


def switch(*flags: str, text: str) -> inspect.Parameter:
    """An option without a value."""
    return parameter(_key(flags[-1]), bool, False, typer.Option(*flags, help=text))


def checkpoint_option(text: str) -> inspect.Parameter:
    """The option that names a checkpoint."""
    check = filled("--checkpoint")
    return named("--checkpoint", "PATH", text, parser=check, variable="FRAMEWAKE_CHECKPOINT")


def engine_option(text: str = "") -> inspect.Parameter:
    """The option that names an engine."""
    return named("--engine", "NAME", text, default="auto", variable="FRAMEWAKE_ENGINE")


def _key(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


JSON = switch("--json", text="JSON on stdout, for programs.")
EVENTS = switch("--json", text="One JSON event per line on stdout, for programs.")
# Not made from the table of components, which brings numpy: the command line starts without it.
PART = named(
    "--part",
    "NAME=FILE",
    "Take dit, vae, llava, llava-vision or clip (1.5: qwen, byt5, siglip, upsampler or sr-dit) from a single file, as "
    "ComfyUI does; "
    "variant=NAME says which one of 1.5 dit is, where its name does not. May be repeated.",
    kind=list[str] | None,
)
_OUTPUT = typer.Option(
    "-o",
    "--output",
    parser=local("--output"),
    metavar="PATH",
    show_default=False,
    help="Where the clip goes: .mp4, .gif, .webp, or no ending for a folder of PNG files. Replaced if "
    "it exists. Default: named after prompt and seed, never replacing anything. A folder with --batch.",
)
_PLACES = (
    parameter("output", str | None, None, _OUTPUT),
    named("--preset", "[stable|dynamic]", "Stability and flow shift at once: stable or dynamic."),
    checkpoint_option("Checkpoint folder, or demo for the embedded one (default)."),
    engine_option("torch:cpu, torch:cuda[:n], mindspore:cpu, mindspore:ascend[:n] or auto."),
    named(
        "--memory",
        "SIZE",
        "The most this may use on the device, such as 8GB; weights are streamed from disk and tokens taken a "
        "few thousand at a time where that is needed. Default: what is free.",
    ),
    PART,
    path("--like", "FILE", "Take all settings, seed included, from an earlier clip; options given here win."),
    path(
        "--batch",
        "FILE",
        'Make many clips: one JSON object per line, such as {"image": "a.png", "prompt": "..."}; '
        "options given here apply to all lines that do not say otherwise.",
    ),
    path(
        "--from-latents",
        "FILE",
        "Make the clip from the .latents.safetensors that a failed or stopped run left behind.",
    ),
    switch(
        "--resume",
        text="Continue a stopped clip: the one named by -o, or the only one in this folder. The result is "
        "the same as without the stop. With --batch: make the clips that are missing.",
    ),
    named(
        "--draft",
        "N",
        "Stop after step N and write a draft beside the clip's place, as clip.draft-012.mp4: what the model expects by "
        "then. --resume goes on, to the same clip as without the stop.",
        kind=int | None,
        parser=whole_from("draft", 1),
    ),
    named("--drafts", "N,N", "Write drafts after these steps, without stopping."),
    named(
        "--draft-size",
        "[full|small]",
        "full decodes every frame, which takes as long as the clip's own decoding; small shows colours and motion of "
        "a frame in four without it, at half the side. Default: full.",
    ),
    named(
        "--then",
        "PROMPT",
        "What happens next: another segment from the last frame, joined to one clip; may be repeated.",
        kind=list[str] | None,
    ),
    switch("--no-anchor", text="Let the colours of segments wander as they do, instead of leading them back."),
    named("--crf", "N", "Quality of an mp4, 0 (best) to 51. Default: 18.", kind=int | None, parser=whole),
    switch("--no-metadata", text="Write no settings into the file."),
    switch("--story", text="Keep a file beside the clip that says how it was made: runs, drafts, pauses, seconds."),
    EVENTS,
    switch("-v", "--verbose", text="Print the whole plan before the clip is made."),
    switch("-q", "--quiet", text="Print only the clip's path."),
)
DEVICES = named(
    "--devices",
    "N|LIST",
    "Make one clip by several devices together: how many, or which, such as 0,2,5. On a CPU so many processes, which "
    "share the cores out: not faster, but the same clip. torchrun and msrun start it too.",
)
PLACES = {place.name: place for place in (*_PLACES, DEVICES)}


def parameters() -> list[inspect.Parameter]:
    """The parameters of the command: picture and prompt by position, everything else by name."""
    made = [
        argument("image", "IMAGE", "The picture that the clip starts from.", kind=str | None, default=None),
        argument("prompt", "PROMPT", "What happens in the clip.", kind=str | None, default=None),
    ]
    for name, setting in settings().items():
        key = f"{name}_option" if name in ("image", "prompt") else name
        made.append(option(key, setting))
    return [*made, *_PLACES]


def option(key: str, setting: Setting) -> inspect.Parameter:
    """The option of a setting; None, or [] where it may be repeated, when it is not given."""
    plain = _METAVARS.get(setting.flag, _METAVARS.get(setting.kind))
    metavar = f"[{'|'.join(setting.choices)}]" if setting.choices else plain
    text = setting.help
    if setting.unset:
        text += f" Default: {setting.unset}."
    if key.endswith("_option"):
        text = f"The same as {key.removesuffix('_option').upper()}."
    parser = {"integer": whole, "number": number}.get(setting.kind)
    described = typer.Option(setting.flag, metavar=metavar, help=text, show_default=False, parser=parser)
    return parameter(key, _TYPES[setting.kind] | None, None, described)


def with_parameters(function: Run, found: Sequence[inspect.Parameter]) -> Callable[..., None]:
    """A command with these parameters that hands them to a function as one mapping."""

    # The only ** of the program: a signature that is made from data has no other way in.
    def command(**given: Any) -> None:
        function(given)

    command.__signature__ = inspect.Signature(found)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in found}
    command.__doc__, command.__name__ = function.__doc__, function.__name__
    return command


def hung(app: typer.Typer, name: str, *found: inspect.Parameter) -> Callable[[Run], Run]:
    """Hang a function under a program as a command with these parameters."""

    def hang(function: Run) -> Run:
        app.command(name)(with_parameters(function, found))
        return function

    return hang


def given_settings(given: Given) -> dict[str, Any]:
    """The request's settings that stand on the command line; positions and their options mean the same.

    Raises: InputError for an unknown preset, and for a setting that is given in both ways.
    """
    values = {} if given["preset"] is None else dict(preset(given["preset"]))
    for name, setting in settings().items():
        value, other = given[name], given.get(f"{name}_option")
        if None not in (value, other) and value != other:
            raise InputError(f"the {name} is given twice: {shown(value)}, and {setting.flag} {shown(other)}. Give one.")
        value = other if value is None else value
        if value is not None and value != []:  # an option that may be given often is [] when it is not given
            values[name] = os.path.expanduser(value) if setting.kind == "path" else value
    return values


def command_line(given: Given, *, more: Sequence[str] = ()) -> str:
    """The ``framewake animate`` that was called, ready for a shell, with ``more`` at its end."""
    words = ["framewake", "animate"]
    for name, setting in settings().items():
        value = given[name] if given[name] is not None else given.get(f"{name}_option")
        flags = setting.flag.split("/")
        if isinstance(value, bool):
            words += flags[:1] if value else flags[1:]
        else:
            words += option_words(flags[0], value)
    words += place_words(given, PLACES)
    return shlex.join([*words, *(word for word in more if word not in words)])


def place_words(given: Given, names: Iterable[str]) -> list[str]:
    """These of the options beside a clip's settings, as they were given."""
    words: list[str] = []
    for name in names:
        place = PLACES[name]
        value = given.get(name, place.default)
        flag = place.annotation.__metadata__[0].default  # where typer puts the first of an option's names
        if value != place.default:
            words += [flag] if value is True else option_words(flag, value)
    return words


def option_words(flag: str, value: Any) -> list[str]:
    """An option with its values, as a command line has them."""
    values = value if isinstance(value, list) else [] if value is None else [value]
    words: list[str] = []
    for text in map(str, values):
        if not text.startswith("-"):
            words += [flag, text]
        else:  # it would be taken for an option
            words.append(f"{flag}={text}" if flag.startswith("--") else f"{flag}{text}")
    return words
