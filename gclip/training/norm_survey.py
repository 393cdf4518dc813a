"""Train a little without clipping, and watch the gradient norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from gclip.core.strategy import Strategy
from gclip.errors import choose
from gclip.survey.survey import Survey
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.device import reproducible, resolve_device
from gclip.training.player import Player
from gclip.training.problem_data import ProblemData
from gclip.training.run import Run
from gclip.training.trainer import begin_run

STEPS = 300  # by default; fewer where the run has no more


@dataclass(frozen=True, kw_only=True)
class NormSurvey:
    """What was watched in a run.

    Attributes:
        survey: the norms.
        player: whose they are, where the task trains several networks; else "".
        steps: how many steps were trained.
        diverged: why the run stopped before its time, "" where it did not.
        losses: the mean training loss of the first tenth of the steps and of the last.
    """

    survey: Survey
    player: str
    steps: int
    diverged: str
    losses: tuple[float, float]


def survey_norms(
    config: RunConfig,
    dataset: Dataset | ProblemData,
    *,
    player: str | None = None,
    steps: int = STEPS,
    strategies: Iterable[str | Strategy] | None = None,
    device: str = "auto",
    threads: int = 1,
    on_step: Callable[[int, int], None] | None = None,
) -> NormSurvey:
    """Train the first `steps` steps of a run, not clipped, and watch them.

    The run is the one that `train` would make with the strategy ``none``, to the same bits.

    Args:
        config: of the run; its strategy has no say.
        dataset: of its task.
        player: whose norms are watched, where the task trains several networks; the first.
        steps: how many to train, or fewer where the run has no more.
        strategies: as `gclip.Survey` takes them.
        device, threads: as in `gclip.training.train`.
        on_step: told how many steps are done, of how many.

    Raises:
        UsageError: the device cannot be used, or an unknown strategy or player.
    """
    where = resolve_device(device)
    with reproducible(where, threads):
        run = begin_run(config.replace(strategy="none"), dataset, where)
        watched: Run | Player
        if isinstance(run, Run):
            watched, network, watched_name = run, run.model, ""
        else:
            watched = run.players[choose(player or next(iter(run.players)), run.players, "player")]
            network, watched_name = watched.network, watched.name
        survey = Survey(network, watched.optimizer, strategies=strategies)
        most = min(steps, run.steps)

        def look() -> None:
            report = watched.clipper.report
            survey.watch(None if report is None else report.finite)

        # After the gradients' disturbances, with the learning rate of the step; and also where the
        # step is skipped, so that it is counted as not finite.
        watched.before_step = look

        def should_continue() -> bool:
            if on_step is not None:
                on_step(run.step, most)
            return run.step < most

        while run.epoch < run.config.epochs and run.train_epoch(should_continue):
            pass
    monitor = run.history.monitor
    losses = monitor.losses or [math.nan]
    part = max(1, len(losses) // 10)
    return NormSurvey(
        survey=survey,
        player="" if isinstance(run, Run) or len(run.players) == 1 else watched_name,
        steps=run.step,
        diverged=monitor.reason,
        losses=(float(np.mean(losses[:part])), float(np.mean(losses[-part:]))),
    )
