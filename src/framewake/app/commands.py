"""The commands and their options. What a command needs is imported when it runs: ``--help`` answers at once."""

from __future__ import annotations

from typing import Annotated

import typer

from framewake import __version__
from framewake.app import lora
from framewake.app.checkpoints import checkpoints
from framewake.app.launch import is_first, refuse_copies
from framewake.app.options import DEVICES, JSON, PLACES, Given, argument, hung, local, named, parameters, path
from framewake.app.reporting import is_started
from framewake.app.service_commands import add_commands
from framewake.console.streams import tell_start

GROUPS = ("animate", "demo", "extend", "doctor", "worker", "lora")  # commands that work as a group of processes
DEMO_PROMPT = "the red circle moves right"

app = typer.Typer(
    # Rich would make --help three times slower.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Turn a picture and a prompt into a clip with HunyuanVideo-I2V.

    \b
    Examples:
      framewake demo
      framewake animate demo/red-circle "the red circle grows"
      framewake animate photo.jpg "she turns her head" \\
          --checkpoint /models/HunyuanVideo-I2V -o clip.mp4
      framewake info clip.mp4
      framewake doctor

    `framewake help animate` is the same as `framewake animate --help`.
    """
    if version:
        typer.echo(f"framewake {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    elif context.invoked_subcommand not in GROUPS:
        refuse_copies()


@hung(
    app,
    "demo",
    argument("prompt", "PROMPT", f'Default: "{DEMO_PROMPT}".', kind=str | None, default=None),
    *(PLACES[name] for name in ("output", "engine", "json", "verbose", "quiet")),
)
def demo(given: Given) -> None:
    """Make a first clip from a picture that comes along.

    No download, no account and no graphics card is needed. The same as
    `framewake animate demo/red-circle PROMPT --checkpoint demo`.

    \b
    Examples:
      framewake demo
      framewake demo "the red circle grows" -o grows.gif
    """
    defaults = {each.name: each.default for each in parameters()}
    prompt = given["prompt"] or DEMO_PROMPT
    animate_with({**defaults, **given, "image": "demo/red-circle", "prompt": prompt, "checkpoint": "demo"})


@hung(app, "animate", *parameters(), DEVICES)
def animate(given: Given) -> None:
    """Make a clip from a picture and a prompt.

    \b
    Examples:
      framewake animate demo/red-circle "the red circle moves right"
      framewake animate demo/red-circle "the red circle grows" -o grows.gif
      framewake animate --like grows.gif --seed 8 -o grows-8.gif
      framewake animate --batch many.jsonl -o clips/ --frames 33
      framewake animate --batch many.jsonl -o clips/ --frames 33 --resume
      framewake animate a.png "..." --json | jq .event
      framewake animate a.png "..." --devices 4

    Exit codes: 0 done, 1 something unforeseen, 2 a mistake in what was asked for, 3 checkpoint or LoRA,
    4 framework, device or package, 5 memory or disk, 6 broken numbers, 130 stopped with Ctrl-C.
    """
    animate_with(given)


# What a clip that goes on has no use for, or has from the clip before.
_ONE_SEGMENT = {"image", "prompt", "image_option", "prompt_option", "background", "takes_first_frame", "like", "batch"}
_ONE_SEGMENT |= {"from_latents", "resume", "draft", "drafts", "draft_size"}


@hung(
    app,
    "extend",
    argument("clip", "CLIP", "The clip that goes on: any video, its settings are taken where framewake made it."),
    argument("prompt", "PROMPT", "What happens next."),
    *(each for each in parameters() if each.name not in _ONE_SEGMENT),
    DEVICES,
)
def extend(given: Given) -> None:
    """Go on where a clip ends: one longer clip, with no frame twice.

    \b
    Examples:
      framewake extend clip.mp4 "she laughs" -o longer.mp4
      framewake extend clip.mp4 "she laughs" --then "she waves" -o longer.mp4
    """
    defaults = {each.name: each.default for each in parameters()}
    animate_with({**defaults, **given, "extends": given["clip"]})


def animate_with(given: Given) -> None:
    """Make the clips that these options ask for."""
    say_hello(given)
    from framewake.app.animate import animate as run

    code = run(given)
    if code:
        raise typer.Exit(code)


def say_hello(given: Given) -> None:
    """A line before seconds of silence, unless only results were asked for."""
    if not given["json"] and not given.get("quiet") and not is_started() and is_first():
        tell_start(f"framewake {__version__} is starting")


@hung(app, "plan", *parameters(), DEVICES)
def plan(given: Given) -> None:
    """Show what a clip will take, without making it.

    That is memory, time, and where the weights will be kept.

    \b
    Examples:
      framewake plan demo/red-circle "the red circle grows" --memory 8GB --json
      framewake plan demo/red-circle "the red circle grows" --devices 4
      framewake plan photo.jpg "she turns her head" \\
          --checkpoint /models/HunyuanVideo-I2V
    """
    say_hello(given)
    from framewake.app.plan import plan as run

    run(given)


app.add_typer(checkpoints, name="checkpoints")
app.add_typer(lora.app, name="lora")


@hung(
    app,
    "doctor",
    named("--engine", "NAME", "Check this engine only."),
    path("--golden", "DIR", "Compare with reference arrays: every case of a folder."),
    named(
        "--devices",
        "N|LIST",
        "Measure the links of so many devices, or these; with --golden: what they compute.",
    ),
    JSON,
)
def doctor(given: Given) -> None:
    """Show what this machine can do, or check the models.

    \b
    Examples:
      framewake doctor
      framewake doctor --golden tests/golden --engine mindspore:cpu
      framewake doctor --golden tests/golden --devices 2
      framewake doctor --devices 4
    """
    say_hello(given)
    from framewake.app import doctor as commands

    engine, as_json = given["engine"], given["json"]
    if given["golden"] is not None:
        code = commands.compare(given["golden"], engine or "auto", given["devices"], as_json=as_json)
    elif given["devices"] is not None:
        code = commands.links(engine or "auto", given["devices"], as_json=as_json)
    else:
        refuse_copies()
        code = commands.describe(engine, as_json=as_json)
    if code:
        raise typer.Exit(code)


CLIP = "A clip: .mp4, .gif, .webp or a folder of frames."


@hung(app, "info", argument("file", "FILE", CLIP, parser=local("FILE")), JSON)
def info(given: Given) -> None:
    """Print the settings that made a clip.

    \b
    Examples:
      framewake info clip.mp4
      framewake animate --like clip.mp4     (makes it again)
    """
    from framewake.app.info import print_info

    print_info(given["file"], as_json=given["json"])


@hung(
    app,
    "quality",
    argument("clip", "CLIP", "The clip to judge.", parser=local("CLIP")),
    argument("reference", "REFERENCE", "What it should look like.", parser=local("REFERENCE")),
    JSON,
)
def quality(given: Given) -> None:
    """Measure how far a clip is from another.

    Both must have the same size. Prints PSNR, SSIM and a perceptual difference.

    \b
    Examples:
      framewake quality fast.mp4 exact.mp4
    """
    from framewake.app.quality import print_quality

    print_quality(given["clip"], given["reference"], as_json=given["json"])


add_commands(app)
