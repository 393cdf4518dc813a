"""Train one run: `train` turns a `RunConfig` into a `RunResult`, the same bits at every call."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from gclip.core import stopping
from gclip.errors import UsageError
from gclip.training.checkpointer import Checkpointer, made_by
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.device import environment, reproducible, resolve_device
from gclip.training.identified import identified_config
from gclip.training.metric import ACCURACY, Metric
from gclip.training.parallel.run import ParallelRun, refuse_general
from gclip.training.parallel.world import World
from gclip.training.plausible_state import check_state
from gclip.training.problem_data import ProblemData
from gclip.training.problem_run import ProblemRun
from gclip.training.result import RunResult, Status
from gclip.training.run import Run
from gclip.training.supervised import has_fast_path
from gclip.training.tasks import load_data, problem_of
from gclip.version import __version__

_EVERY = 0.25  # seconds between two reports within an epoch


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a run is.

    Attributes:
        epoch: whole epochs done.
        epochs: how many there will be.
        step: optimizer steps done.
        steps: how many there will be.
        loss: the training loss of the latest step looked at; None before the first.
        accuracy: of the latest measurement; None before the first epoch's end, and where the
            metric is another.
        status: ``running``, or what the run ended as.
        metric: what the run is measured by.
        score: the metric's value at the latest measurement; None before the first epoch's end.
            Filled in where it is the accuracy.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float | None
    accuracy: float | None
    status: Literal["running"] | Status
    metric: Metric = ACCURACY
    score: float | None = None

    def __post_init__(self) -> None:
        if self.score is None and self.metric.name == ACCURACY.name:
            object.__setattr__(self, "score", self.accuracy)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it, for another process."""
        return {**dataclasses.asdict(self), "metric": self.metric.to_dict()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Progress:
        """Read what `to_dict` gave."""
        return cls(**{**values, "metric": Metric.from_dict(values["metric"])})


Listener = Callable[[Progress], bool | None]


def train(
    config: RunConfig,
    *,
    dataset: Dataset | ProblemData | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    on_progress: Listener | None = None,
    checkpoint: str | Path | Checkpointer | None = None,
    threads: int | None = None,
    world: World | None = None,
) -> RunResult:
    """Train one run from its config.

    A run has **diverged** when the loss of a training step, or at an epoch's end the loss on
    ``config.split``, is not finite, or when gradients were not finite in 20 steps in a row. It
    then stops, scores the metric's worst value (of accuracy 1 / classes, that of guessing), and is
    a result like any other. A run whose loss stays finite has finished, whatever its score: a net
    that answers at random is an outcome.

    A step that is skipped, by a strategy's rule or because its gradients are not finite, changes
    neither weights nor the optimizer's state; it counts as a step, and schedules go on over it. A
    finished run most of whose steps were skipped says so in its message.

    Args:
        config: everything that decides the outcome.
        dataset: the task's data, if it has been loaded; else it is found as by `load_data`.
        data: the folder with the data, where the task needs one.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        on_progress: told at every epoch's end, and within epochs at most four times a second;
            the run is pruned when it returns False.
        checkpoint: a file that keeps the state at every epoch's end. If it is there, the run goes
            on from it, to the same bits as if it had never stopped. A `Checkpointer` may do so
            more rarely.
        threads: for the computations on a CPU; the last bits depend on it. One by default, or
            what the checkpoint was made with.
        world: the processes that share every batch, each of which calls this alike; None: this one
            alone. The result is that of one process but for rounding, and so is its key;
            ``environment["world_size"]`` tells. All get it, the first keeps the checkpoint and is
            told of progress, and stops the run at an epoch's end.

    Raises:
        UsageError: the data, the device or the checkpoint cannot be used; or the run cannot be
            shared out.
        LostProcess: another process of `world` has ended.
        FloatingPointError: a gradient is not finite and ``config.nonfinite`` is ``raise``.

    Example:
        >>> from gclip.training import RunConfig
        >>> result = train(RunConfig(strategy="norm", epochs=1, fraction=0.1), device="cpu")
        >>> result.status, len(result.curve), result.steps["norm"].shape
        ('finished', 1, (5,))
    """
    where = resolve_device(device) if world is None else world.device
    images = dataset if dataset is not None else load_data(config.task, data)
    config = identified_config(config, images)
    keeper = Checkpointer(checkpoint) if isinstance(checkpoint, str | Path) else checkpoint
    if world is not None and not world.is_first:
        keeper = None
    if world is not None:
        versions = {"version of gclip": __version__, "version of torch": torch.__version__}
        world.agree({**versions, **json.loads(config.to_json())})

    def load() -> dict[str, Any] | None:
        return None if keeper is None else keeper.load([config])

    saved = load() if world is None else world.told(load)
    if threads is None and saved is not None:
        threads = saved["threads"]
    # Processes that wait for each other's gradients cannot each end at a place of their own.
    good_place = stopping.at_a_good_place() if world is None else contextlib.nullcontext()
    with reproducible(where, threads) as pinned, good_place:

        def accept() -> tuple[bool, bool]:
            maker = made_by(where, pinned, 1 if world is None else world.size)
            return keeper is not None and keeper.accept(saved, maker), (
                keeper is not None and keeper.is_own
            )

        accepted, is_own = accept() if world is None else world.told(accept)
        if not accepted:
            saved = None
        began = time.perf_counter()
        run = begin_run(config, images, where, world)
        if saved is not None:
            try:
                began -= _go_on(run, saved, world)
            except Exception as error:  # sealed, and yet no state of this run
                _refuse(keeper, error, is_own=is_own)
                run = begin_run(config, images, where, world)
        status, message = _Loop(run, began, on_progress, keeper, world).train()
        return run.result(
            status,
            message,
            seconds=time.perf_counter() - began,
            environment={**environment(where, pinned), **run.facts},
        )


class _Loop:
    """The epochs of a run, and what is told about them."""

    def __init__(
        self,
        run: Run | ProblemRun,
        began: float,
        listener: Listener | None,
        keeper: Checkpointer | None,
        world: World | None = None,
    ) -> None:
        self._run, self._began, self._world, self._keeper = run, began, world, keeper
        self._listener = listener if world is None or world.is_first else None
        self._told = time.perf_counter()
        self._stopped = False  # within an epoch, which all processes go on to the end of

    def train(self) -> tuple[Status, str]:
        """Train what is left; returns the status and why it stopped."""
        run = self._run
        own = self._keeper is not None and self._keeper.is_own and self._world is None
        if own and not self._tell_again():
            return "pruned", f"stopped by the caller at step {run.step}"
        while run.epoch < run.config.epochs:
            whole = run.train_epoch(self._within)
            if run.history.monitor.diverged_at is None and (whole or not run.history.curve):
                run.measure(time.perf_counter() - self._began)
            if run.history.monitor.diverged_at is not None:
                run.mark_diverged(time.perf_counter() - self._began)
                self._tell("diverged")
                return "diverged", run.history.monitor.reason
            if whole:
                ended = run.epoch == run.config.epochs
                self._end_epoch(ended)
                whole = self._all_go_on("finished" if ended else "running") or ended
            if not whole:
                return "pruned", f"stopped by the caller at step {run.step}"
        return "finished", ""

    def _end_epoch(self, ended: bool) -> None:
        """Save if it is time; stop here if that is wanted, and there is something left to do."""
        keeper = self._keeper
        if keeper is not None:
            keeper.end_epoch(self._state, is_last=ended, hold=not self._run.resumes_within_epochs)
        if stopping.is_wanted() and self._world is None and not ended:
            if keeper is not None:
                keeper.stop(self._state)
            stopping.obey()

    def _within(self) -> bool:
        """After a step: whether to go on."""
        keeper, run = self._keeper, self._run
        stops = stopping.is_wanted() and self._world is None
        if stops or (keeper is not None and run.resumes_within_epochs and keeper.is_due()):
            if not run.history.monitor.look():  # it has diverged, and is about to end
                return False
            if keeper is not None and stops:
                keeper.stop(self._state if run.resumes_within_epochs else None)
            elif keeper is not None:
                keeper.save(self._state)
            stopping.obey()
        if self._listener is None or time.perf_counter() - self._told < _EVERY:
            return True
        goes_on = self._tell("running")
        if self._world is not None and not goes_on:
            self._stopped = goes_on = True
        return goes_on

    def _all_go_on(self, status: Literal["running"] | Status) -> bool:
        """Report at an epoch's end; False when the caller wants the run to stop."""
        if self._world is None:
            return self._tell(status)
        return self._world.told(lambda: self._tell(status) and not self._stopped)

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        run = self._run
        return {
            "present": [0],
            "epoch": run.epoch,
            "step": run.step,
            "steps": run.steps,
            "seconds": time.perf_counter() - self._began,
            "run": run.state_dict(),
        }

    def _tell_again(self) -> bool:
        """Tell of the epochs that a run made before it was stopped, as whoever decides whether
        runs go on has perhaps forgotten them; False when one of them should have been the last."""
        history = self._run.history
        return all(
            self._tell("running", point)
            for point in (history.curve if self._run.epoch < self._run.config.epochs else ())
        )

    def _tell(self, status: Literal["running"] | Status, point: Any = None) -> bool:
        """Report; False when the caller wants the run to stop.

        Args:
            status: of the run.
            point: of the curve, the end of an earlier epoch to tell of; None for now.
        """
        if self._listener is None:
            return True
        run, history = self._run, self._run.history
        told = history.now(run.epoch, run.step) if point is None else history.then(point)
        progress = Progress(
            **told, epochs=run.config.epochs, steps=run.steps, status=status, metric=history.metric
        )
        answer = self._listener(progress)
        self._told = time.perf_counter()
        return answer is not False


def begin_run(
    config: RunConfig,
    data: Dataset | ProblemData,
    device: torch.device,
    world: World | None = None,
) -> Run | ProblemRun:
    """The moving parts of a run: by the fast path where its problem has one."""
    if isinstance(data, Dataset) and has_fast_path(problem_of(config.task)):
        if world is not None:
            return ParallelRun(config, data, device, world)
        return Run(config, data, device)
    if world is not None:
        refuse_general(problem_of(config.task), world.size)
    if isinstance(data, Dataset):
        data = ProblemData(name=data.name, value=data, identity=data.identity)
    return ProblemRun(config, data, device)


def _go_on(run: Run | ProblemRun, saved: dict[str, Any], world: World | None) -> float:
    """Go on from what a checkpoint holds; the seconds that were spent by then."""
    check_state(saved["run"])
    if world is not None and saved["run"].get("within"):
        raise ValueError("it was saved within an epoch, where several processes cannot go on")
    run.load_state_dict(saved["run"])
    if run.epoch > run.config.epochs:
        raise ValueError(f"it is at epoch {run.epoch} of {run.config.epochs}")
    return float(saved["seconds"])


def _refuse(keeper: Checkpointer | None, error: Exception, *, is_own: bool) -> None:
    """Say that a state cannot be used, in the process that keeps it; in all, where the user has
    named its file, raise."""
    if keeper is not None:
        keeper.misfit(error)
    elif not is_own:
        raise UsageError("the checkpoint does not fit its run") from error
