"""What a training run leaves: the LoRA, its saved state, its table, and clips on the way."""

from __future__ import annotations

import functools
import os
from collections.abc import Generator
from pathlib import Path

from framewake.pipeline.adapters import targets_of
from framewake.pipeline.events import Note, Result
from framewake.pipeline.forecast import Placement
from framewake.pipeline.jobs import Plan, placed, with_loras
from framewake.pipeline.precision import choose_precision
from framewake.pipeline.run import Pipeline
from framewake.train.about import Used, metadata_of
from framewake.train.board import Board, board_folder
from framewake.train.events import Sampled, Saved
from framewake.train.log import Log, log_path
from framewake.train.optimiser import OptimiserState
from framewake.train.samples import sample_output
from framewake.train.state import Run, save_run
from framewake.train.writer import write_lora
from framewake.weights.checkpoint.load import Checkpoint


class Results:
    """Where a run's results go.

    ``begun``: the run as it began or went on; ``samples``: the clips that are made on the way, without the LoRA.
    """

    def __init__(self, target: Path, checkpoint: Checkpoint, begun: Run, used: Used, *, samples: list[Plan]) -> None:
        self.target, self.checkpoint, self.begun, self.used, self.samples = target, checkpoint, begun, used, samples
        self.placements: dict[str, Placement] = {}

    @functools.cached_property
    def log(self) -> Log:
        """The table, which goes on behind what was saved, and the curves beside it."""
        first, curves = self.begun.state.step, self.begun.settings.tensorboard
        board = None if curves is None else Board(board_folder(Path(curves), self.target), first)
        return Log(log_path(self.target), first, board=board)

    def save(self, state: OptimiserState) -> Saved:
        """The LoRA and the state of an update."""
        settings = self.begun.settings
        about = metadata_of(settings, state.step, self.used)
        write_lora(self.target, state, settings, targets=targets_of(self.checkpoint), about=about)
        save_run(self.target, self.begun._replace(state=state))
        return Saved(state.step, self.target)

    def sample(self, pipeline: Pipeline, step: int) -> Generator[Note | Sampled, None, None]:
        """Clips with the LoRA that was just saved, through the pipeline like any others."""
        if not self.samples:
            return
        pipeline.parts.release("dit")
        plans = []
        for number, plan in enumerate(self.samples, 1):
            output = sample_output(self.target, step, number=number if len(self.samples) > 1 else None)
            made = placed(plan, output, seed=plan.request.seed)
            plans.append(with_loras(made, (os.fspath(self.target),), self.checkpoint))
        for event in pipeline.run_all(plans):
            if isinstance(event, Result) and event.path is not None:
                yield Sampled(step, event.path)
        # Neither its merged weights nor its placement is for training.
        pipeline.parts.placements = self.placements
        precision = choose_precision(self.begun.settings.precision, pipeline.engine)
        pipeline.parts.adapted("dit", (), precision.transformer)
