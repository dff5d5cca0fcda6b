"""``framewake animate``: options into jobs, events onto the screen."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from framewake import engine as engines
from framewake.app.launch import refuse_copies
from framewake.app.lines import Lines
from framewake.app.options import command_line, given_settings, place_words
from framewake.app.outputs import free_path
from framewake.app.render import JsonLines, Quiet, Reporter, Terminal, has_terminal
from framewake.app.stopping import stopped_by_signals
from framewake.batch import read_batch
from framewake.engine.contract import Engine
from framewake.errors import Cancelled, FramewakeError, InputError
from framewake.lasting import clear_abandoned
from framewake.media.video import MAX_CRF, read_metadata
from framewake.pipeline.checkpoint import open_whole
from framewake.pipeline.events import Event, Note, Result
from framewake.pipeline.forecast import Forecast, gib, parse_memory
from framewake.pipeline.jobs import Job, Output, plan_job, request_from
from framewake.pipeline.latents import latents_path
from framewake.pipeline.run import Pipeline
from framewake.request import Request, draw_seed, from_dict
from framewake.setting import Setting, check_setting
from framewake.weights.checkpoint.layouts import parse_files
from framewake.weights.checkpoint.load import Checkpoint

CRF = 18
# Options that saved latents do not hold: the command that goes on names them again.
KEPT = ("checkpoint", "engine", "memory", "part", "crf", "no_metadata", "json", "quiet")


def animate(given: Mapping[str, Any]) -> None:
    """Make the clips that the options ask for.

    Raises: FramewakeError of any kind; Cancelled after Ctrl-C.
    """
    refuse_copies()
    memory = parse_memory(given["memory"])  # before a framework starts
    if given["from_latents"] is not None or (given["resume"] and given["batch"] is None):
        from framewake.app.resume import go_on

        if go_on(given):
            return
    like = {} if given["like"] is None else read_metadata(given["like"])
    jobs = [] if given["batch"] is not None else jobs_of("animate", given, like)
    notes = []
    if given["checkpoint"] is None:
        notes.append("no checkpoint was named, so the small embedded demonstration checkpoint is used (--checkpoint).")
    checkpoint = open_whole(given["checkpoint"] or "demo", parse_files(given["part"] or []))
    made_with = like.get("checkpoint", checkpoint.settings.name)
    if made_with != checkpoint.settings.name:
        notes.append(f"{given['like']} was made with {made_with!r}; {checkpoint.settings.name!r} gives another clip.")
    if given["batch"] is not None:
        animate_batch(given, like, checkpoint, notes)
        return
    check_jobs(jobs, checkpoint)
    for job in jobs:
        if job.output is not None:
            clear_abandoned(job.output.path.parent)
    pipeline = Pipeline(checkpoint, engines.get(given["engine"]), memory=memory)
    notes += [*memory_note(memory, pipeline.engine), plan_note(pipeline.forecast(jobs[0]))]
    show(reporter(given, 1), notes, pipeline.run_all(jobs), how_to_go_on(jobs))


def animate_batch(given: Mapping[str, Any], like: Mapping[str, Any], checkpoint: Checkpoint, notes: list[str]) -> None:
    """Make the clips of a batch; with ``--resume`` those that are missing.

    Raises: FramewakeError of any kind.
    """
    from framewake.app.batches import Batch, making

    requests = requests_of("animate", given, like)
    check_jobs([Job(request) for request in requests], checkpoint)
    batch = Batch(given, requests, checkpoint, crf=asked_crf(given, like))
    check_jobs(batch.jobs, checkpoint)
    batch.begin()
    if not batch.jobs:
        batch.notes.append("nothing is missing.")
    memory = parse_memory(given["memory"])
    pipeline = Pipeline(checkpoint, engines.get(given["engine"]), memory=memory)
    batch.notes += memory_note(memory, pipeline.engine)
    failed: list[FramewakeError] = []
    count = batch.made + len(batch.jobs)
    again = f"make what is missing with `{command_line(given, more=['--resume'])}`"

    def advice(done: int) -> str:
        return f"{batch.made + done} of {count} clips are made: {again}."

    screen = reporter(given, len(batch.jobs))
    show(screen, [*notes, *batch.notes], making(pipeline, batch, failed), advice, has_more=True)
    if failed:
        text = str(failed[0]).rstrip(".")
        failed[0].args = (f"{text}. {len(failed)} of {count} clips failed, the others are made: {again}.",)
        raise failed[0]


def jobs_of(command: str, given: Mapping[str, Any], like: Mapping[str, Any]) -> list[Job]:
    """The jobs of a command line, each with its seed and its output; ``command`` is what was called.

    Raises: InputError for anything that is missing or does not go together.
    """
    crf, folder = asked_crf(given, like), Path()
    if given["batch"] is not None and given["output"] is not None:
        folder = Path(given["output"])
    jobs: list[Job] = []
    for asked in requests_of(command, given, like):
        request = dataclasses.replace(asked, seed=draw_seed() if asked.seed is None else asked.seed)
        taken = [job.output.path for job in jobs if job.output is not None]
        is_named = given["batch"] is None and given["output"] is not None
        path = Path(given["output"]) if is_named else free_path(request, folder, taken=taken)
        jobs.append(Job(request, output_of(given, path, crf)))
    return jobs


def output_of(given: Mapping[str, Any], path: Path, crf: int) -> Output:
    """A clip at this path, with what the options beside its settings say."""
    return Output(path, crf, has_metadata=not given["no_metadata"], options=tuple(place_words(given, KEPT)))


def requests_of(command: str, given: Mapping[str, Any], like: Mapping[str, Any]) -> list[Request]:
    """What a command line asks for, as it asks.

    Raises: InputError for anything that is missing or does not go together.
    """
    common = ({} if given["like"] is None else request_from(like)) | given_settings(given)
    if given["batch"] is not None:
        return read_batch(given["batch"], common=common)
    if "prompt" not in common:
        what = "neither picture nor prompt was" if "image" not in common else "no prompt was"
        usage = f'framewake {command} IMAGE "PROMPT"  (or --batch, --like; see framewake {command} --help).'
        raise InputError(f"{what} given: {usage}")
    return [from_dict(common)]


def asked_crf(given: Mapping[str, Any], made: Mapping[str, Any]) -> int:
    """The mp4's quality: what the command line says, else that of a clip made before.

    Raises: InputError when it is none.
    """
    crf = made.get("crf", CRF) if given["crf"] is None else given["crf"]
    check_setting("crf", crf, Setting("integer", "", "--crf", 0, MAX_CRF))
    return crf


def check_jobs(jobs: Sequence[Job], checkpoint: Checkpoint) -> None:
    """Everything that can be refused is refused here, before a framework starts; of several, the number is said.

    Raises: InputError, CheckpointError.
    """
    for number, job in enumerate(jobs, 1):
        try:
            plan_job(job, checkpoint)
        except FramewakeError as error:
            if len(jobs) > 1:
                error.args = (f"clip {number} of {len(jobs)}: {error}",)
            raise


def memory_note(memory: int | None, engine: Engine) -> list[str]:
    """What to say of a limit that is none."""
    total = engine.memory()["total"]
    if memory is None or memory <= total:
        return []
    return [f"--memory {gib(memory)} is more than {engine.name} has in all ({gib(total)}), so it changes nothing."]


def plan_note(found: Forecast) -> str:
    """A forecast as one text."""
    return "\n  ".join(["The plan:", *found.lines])


def reporter(given: Mapping[str, Any], clips: int) -> Reporter:
    """Who shows the events."""
    if given["json"]:
        return JsonLines()
    return Quiet() if given["quiet"] else screen_of(clips)


def screen_of(clips: int) -> Reporter:
    """Bars on a terminal, lines in a log."""
    return Terminal(clips) if has_terminal() else Lines(clips)


def show(
    screen: Reporter,
    notes: list[str],
    events: Generator[Event, None, None],
    advice: Callable[[int], str],
    *,
    has_more: bool = False,
) -> None:
    """Show events to the end; ``advice`` is how to go on after so many clips.

    ``has_more``: an error leaves other clips to be made, so it gets the advice too.
    Raises: Cancelled when the run was asked to end, which says how to go on.
    """
    done = 0
    with stopped_by_signals():
        try:
            for note in notes:
                screen.show(Note(note))
            for event in events:
                done += isinstance(event, Result)
                screen.show(event)
        except KeyboardInterrupt:
            events.close()  # saves the latents, wherever the interrupt came, before anything else can go wrong
            screen.close()
            raise Cancelled(f"stopped. {advice(done)}") from None
        except FramewakeError as error:
            if has_more:
                error.args = (f"{str(error).rstrip('.')}. {advice(done)}",)
            raise
        finally:
            events.close()
            screen.close()


def how_to_go_on(jobs: Sequence[Job]) -> Callable[[int], str]:
    """What to tell somebody who has stopped a run."""

    def advice(done: int) -> str:
        job = jobs[min(done, len(jobs) - 1)]
        if job.output is not None and latents_path(job.output.path).exists():
            return f"Nothing is lost: go on with `{resume_command(job.output)}`."
        return f"No half file is left. The same clip is made by adding --seed {job.request.seed}."

    return advice


def resume_command(output: Output) -> str:
    """The command line that goes on with a clip."""
    return shlex.join(["framewake", "animate", "--resume", "-o", str(output.path), *output.options])
