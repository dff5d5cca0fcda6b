"""``framewake checkpoints``: inspect, convert and download checkpoints."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from framewake.app.options import JSON, PART, Given, argument, filled, hung, named, switch

if TYPE_CHECKING:
    from framewake.weights.checkpoint.load import Checkpoint

checkpoints = typer.Typer(
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Inspect, convert and download checkpoints.",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
PLACE = argument("path", "PATH", "A checkpoint's folder, demo, or one part: its file or folder.", parser=filled("PATH"))


@hung(
    checkpoints,
    "verify",
    PLACE,
    switch("--full", text="Read everything: checksums, hashes, NaN and infinity."),
    *(JSON, PART),
)
def verify(given: Given) -> None:
    """Check all tensors' names and shapes, from headers.

    \b
    Examples:
      framewake checkpoints verify /models/HunyuanVideo-I2V
      framewake checkpoints verify ckpts/ --full
      framewake checkpoints verify hunyuan_video_I2V_fp8_e4m3fn.safetensors
    """
    from framewake.weights.checkpoint.verify import verify as look

    path, as_json = given["path"], given["json"]
    checkpoint, shapes = _looked_at(path, given["part"])
    findings = []
    if not as_json:
        typer.echo(_named(checkpoint, path))
    for finding in look(checkpoint, shapes, is_full=given["full"]):
        findings.append(finding)
        if not as_json:
            _tell(finding, checkpoint.layout.components[finding.component].word)
    if as_json:
        parts: list[dict[str, Any]] = []
        for finding in findings:
            parts.append({**finding._asdict(), "files": [str(file) for file in finding.files]})
        condition = checkpoint.dit.condition if "dit" in shapes else None
        head = {"layout": checkpoint.layout.name, "condition": condition, "parts": parts}
        sys.stdout.write(json.dumps(head, indent=2) + "\n")
    if any(finding.problem for finding in findings):
        raise typer.Exit(3)


@hung(
    checkpoints,
    "convert",
    argument("source", "SRC", "A checkpoint's folder, or demo.", parser=filled("SRC")),
    argument("target", "DST", "A new folder.", parser=filled("DST")),
    named(
        "--dtype",
        "[bf16|fp16|fp32|fp8|int8]",
        "Number type; fp8 and int8 apply to the large matrices only. Default: as stored.",
    ),
    named("--layout", "[diffusers|tencent|framewake]", "", default="diffusers"),
    PART,
)
def convert(given: Given) -> None:
    """Write a checkpoint in another layout or type, with little memory.

    \b
    Examples:
      framewake checkpoints convert ckpts/ /models/HunyuanVideo-I2V \\
          --layout diffusers --dtype bf16
      framewake checkpoints convert small/ whole/ \\
          --part dit=fp8_scaled.safetensors --dtype bf16
      framewake checkpoints convert whole/ half-the-size/ --layout framewake \\
          --dtype fp8
    """
    from framewake.weights.writing.convert import convert as write

    checkpoint, target = _opened(given["source"], given["part"]), given["target"]
    shapes, dtype, layout = _shapes(checkpoint), given["dtype"], given["layout"]
    for file in write(checkpoint, Path(target), shapes=shapes, dtype=dtype, layout=layout):
        error = "" if file.error is None else f", off by {file.error:.2%} of the bfloat16 weights (root of squares)"
        typer.echo(f"{file.path}: {file.tensors} tensors, {size(file.size)}{error}")
    typer.echo(f"Use it with --checkpoint {target}")


@hung(
    checkpoints,
    "download",
    argument("folder", "DIR", "Where the checkpoint goes.", parser=filled("DIR")),
    named("--model", "[hunyuanvideo-i2v|hunyuanvideo-1.5]", "Which model.", default="hunyuanvideo-i2v"),
    named("--name", "[diffusers|tencent]", "The first model's layout. Default: diffusers."),
    named("--variant", "NAME", "Which one of 1.5, such as 480p-i2v-step-distilled."),
    switch("--super-resolution", text="With what makes 1.5's clips larger."),
    named("--mirror", "URL", "A hub other than huggingface.co.", parser=filled("--mirror", "a URL")),
    named("--revision", "R", "A branch, tag or commit.", parser=filled("--revision", "a branch, tag or commit")),
    switch("--by-hand", text="Download nothing: list what to fetch."),
)
def download(given: Given) -> None:
    """Download published weights. A stopped download continues where it was.

    \b
    Examples:
      framewake checkpoints download /models/HunyuanVideo-I2V
      framewake checkpoints download ckpts/ --name tencent \\
          --mirror https://hf-mirror.com
      framewake checkpoints download ckpts15/ --model hunyuanvideo-1.5 \\
          --variant 480p-i2v-step-distilled
      framewake checkpoints download ckpts/ --by-hand    (no network here)
    """
    from framewake.errors import FramewakeError
    from framewake.weights.checkpoint import download as hub

    folder, mirror, revision = Path(given["folder"]), given["mirror"], given["revision"]
    enlarges = given["super_resolution"]
    published = hub.find_published(given["model"], given["name"], given["variant"], enlarges=enlarges)
    hub.check_places(folder, mirror)
    typer.echo(published.licence, err=True)
    lines = hub.by_hand(published, folder, mirror=mirror or hub.HUB, revision=revision or "main")
    if given["by_hand"]:
        typer.echo("\n".join(lines))
        return
    try:
        for line in hub.download(published, folder, mirror=mirror, revision=revision):
            typer.echo(line)
    except FramewakeError:
        typer.echo("\n".join(lines), err=True)
        raise
    typer.echo(f"Check it with: framewake checkpoints verify {given['folder']}")


@hung(
    checkpoints,
    "list",
    argument("folder", "[DIR]", "Look for checkpoints here.", kind=str | None, default=None, parser=filled("DIR")),
)
def list_all(given: Given) -> None:
    """List checkpoints found here, and those that can be downloaded.

    \b
    Examples:
      framewake checkpoints list
      framewake checkpoints list /models
    """
    from framewake.errors import CheckpointError, InputError
    from framewake.weights.checkpoint.download import PUBLISHED
    from framewake.weights.checkpoint.load import open_checkpoint

    folder = given["folder"]
    if folder is not None and not Path(folder).is_dir():
        raise InputError(f"{folder} is no folder: name one that holds checkpoints, or none.")
    places = [] if folder is None else [Path(folder), *sorted(Path(folder).glob("*/"))]
    for place in places:
        try:
            checkpoint = open_checkpoint(place)
        except CheckpointError:
            continue
        typer.echo(f"{place}  {_kind(checkpoint)}")
    typer.echo("demo  the small demonstration checkpoint in this package")
    for published in PUBLISHED:
        typer.echo(f"{published.name}  {published.what}; {published.gigabytes} GB (framewake checkpoints download DIR "
                   f"{published.flags})")  # fmt: skip


def size(count: int) -> str:
    """A number of bytes for a person."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"


def _opened(path: str, parts: list[str] | None) -> Checkpoint:
    from framewake.pipeline.checkpoint import find_checkpoint
    from framewake.weights.checkpoint.layouts import parse_files
    from framewake.weights.checkpoint.load import open_checkpoint

    return open_checkpoint(find_checkpoint(path), parse_files(parts or []))


def _shapes(checkpoint: Checkpoint) -> dict[str, Any]:
    """The models' own lists of names and shapes, of every part that is there."""
    from framewake.pipeline.hunyuan import family_of

    shapes = family_of(checkpoint).shapes(checkpoint)
    return {row.name: shapes[row.name] for row in checkpoint.rows}


def _looked_at(path: str, parts: list[str] | None) -> tuple[Checkpoint, dict[Any, Any]]:
    """A checkpoint, or one part alone, with the lists of what is to be looked at."""
    from framewake.errors import InputError
    from framewake.pipeline.checkpoint import find_checkpoint
    from framewake.weights.checkpoint.layouts import known_layout
    from framewake.weights.checkpoint.load import SinglePart

    place = find_checkpoint(path)
    if known_layout(place) is not None:
        checkpoint = _opened(path, parts)
        return checkpoint, _shapes(checkpoint)
    if parts:
        raise InputError(f"{path} is no checkpoint's folder, which --part needs: look at one file alone without it.")
    part = SinglePart(place)
    return part, _shapes(part)


def _named(checkpoint: Checkpoint, path: str) -> str:
    """What was found at a place."""
    from framewake.weights.checkpoint.load import SinglePart

    if not isinstance(checkpoint, SinglePart):
        return f"{checkpoint.folder} is {_kind(checkpoint)}"
    alone = (
        " without its vision tower"
        if checkpoint.row.tower is not None and checkpoint.has_text and not checkpoint.has_vision
        else ""
    )
    return f"{path} is {checkpoint.kind.name}{alone}, one part alone (--part {checkpoint.kind.flag}={path})"


def _kind(checkpoint: Checkpoint) -> str:
    from framewake.console.escape import inline

    dit, named = checkpoint.dit, f"{inline(checkpoint.settings.name)} in the {checkpoint.layout.name} layout"
    if not dit.needs_picture:
        return f"{named}, text to video"
    return f"{named}, pictures to video" + (" (first release, latent concatenation)" if dit.dropped_frames else "")


def _tell(finding: Any, word: str) -> None:
    if finding.problem:
        typer.echo(f"BAD  {word}: {finding.problem}")
        return
    kinds = ", ".join(f"{count} {kind}" for kind, count in finding.kinds.items())
    typer.echo(f"ok   {word}: {finding.tensors} tensors, {size(finding.size)} ({kinds})")
    for name, value in finding.hashes.items():
        typer.echo(f"     {value}  {name}")
