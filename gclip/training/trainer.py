"""Train one run: `train` turns a `RunConfig` into a `RunResult`, the same bits at every call."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from gclip.core import registry
from gclip.core.digest import code_digest
from gclip.errors import UsageError
from gclip.training import checkpoint as checkpoints
from gclip.training import models
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.device import environment, reproducible, resolve_device
from gclip.training.metric import ACCURACY, Metric
from gclip.training.parallel.run import ParallelRun, refuse_general
from gclip.training.parallel.world import World
from gclip.training.plausible_state import check_state
from gclip.training.problem_data import ProblemData
from gclip.training.problem_registry import problem_code
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
    checkpoint: str | Path | None = None,
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
            on from it, to the same bits as if it had never stopped.
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
    if world is None:
        saved = _saved(checkpoint, config)
    else:
        versions = {"version of gclip": __version__, "version of torch": torch.__version__}
        world.agree({**versions, **json.loads(config.to_json())})
        saved = world.told(lambda: _saved(checkpoint, config))
    if threads is None and saved is not None:
        threads = saved["threads"]
    with reproducible(where, threads) as pinned:
        began = time.perf_counter()
        run = begin_run(config, images, where, world)
        if saved is not None:
            began -= _go_on(run, saved, checkpoint)
        loop = _Loop(run, began, on_progress, world)

        def save_checkpoint() -> None:
            if checkpoint is not None and (world is None or world.is_first):
                state = {
                    "config": config.to_json(),
                    "threads": pinned,
                    "seconds": time.perf_counter() - began,
                    "run": run.state_dict(),
                }
                checkpoints.save(checkpoint, state)

        status, message = loop.train(save_checkpoint)
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
        world: World | None = None,
    ) -> None:
        self._run, self._began, self._world = run, began, world
        self._listener = listener if world is None or world.is_first else None
        self._told = time.perf_counter()
        self._stopped = False  # within an epoch, which all processes go on to the end of

    def train(self, save_checkpoint: Callable[[], None]) -> tuple[Status, str]:
        """Train what is left; returns the status and why it stopped."""
        run = self._run
        while run.epoch < run.config.epochs:
            whole = run.train_epoch(self._within)
            if run.history.monitor.diverged_at is None and (whole or not run.history.curve):
                run.measure(time.perf_counter() - self._began)
            if run.history.monitor.diverged_at is not None:
                run.mark_diverged(time.perf_counter() - self._began)
                self._tell("diverged")
                return "diverged", run.history.monitor.reason
            if whole:
                save_checkpoint()
                ended = run.epoch == run.config.epochs
                whole = self._all_go_on("finished" if ended else "running") or ended
            if not whole:
                return "pruned", f"stopped by the caller at step {run.step}"
        return "finished", ""

    def _within(self) -> bool:
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

    def _tell(self, status: Literal["running"] | Status) -> bool:
        """Report; False when the caller wants the run to stop."""
        if self._listener is None:
            return True
        run = self._run
        answer = self._listener(
            Progress(
                epoch=run.epoch,
                epochs=run.config.epochs,
                step=run.step,
                steps=run.steps,
                loss=run.history.loss,
                accuracy=run.history.accuracy,
                status=status,
                metric=run.history.metric,
                score=run.history.score,
            )
        )
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


def identified_config(config: RunConfig, dataset: Dataset | ProblemData) -> RunConfig:
    """The config with the data's identity; an error where it was made for other data or code."""
    if dataset.name != config.task:
        raise UsageError(f"the config's task is {config.task}, but the data is {dataset.name}")
    if config.data and config.data != dataset.identity:
        raise UsageError(
            f"the config was made for the data {config.data}, but the data given is "
            f"{dataset.identity or 'the embedded ones'}"
        )
    if problem_code(problem_of(config.task)) != config.problem_code:
        raise UsageError(
            f"the code of task {config.task} is not what the config was made with; make it anew "
            "with config.replace(problem_code='')"
        )
    if code_digest(registry.parse_for_run(config.strategy)) != config.code:
        raise UsageError(
            f"the code of {config.strategy} is not what the config was made with; make it anew "
            "with config.replace(code='')"
        )
    if config.model and models.code_digest(config.model) != config.model_code:
        raise UsageError(
            f"the code of the model {config.model} is not what the config was made with; make it "
            "anew with config.replace(model_code='')"
        )
    if config.stepping != config.replace(stepping=None).stepping:
        raise UsageError(
            "the config is of a run made before skipped steps were left out and strategies saw the "
            "learning rate of their own step, which cannot be made again; make it anew with "
            "config.replace(stepping=None)"
        )
    return config.with_data(dataset)


def _go_on(run: Run | ProblemRun, saved: dict[str, Any], checkpoint: str | Path | None) -> float:
    """Go on from what a checkpoint holds; the seconds that were spent by then."""
    try:
        check_state(saved["run"])
        run.load_state_dict(saved["run"])
        if run.epoch > run.config.epochs:
            raise ValueError(f"it is at epoch {run.epoch} of {run.config.epochs}")
        return float(saved["seconds"])
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, IndexError) as error:
        raise UsageError(
            f"the checkpoint {checkpoint} does not fit its run ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); delete it to begin again"
        ) from error


def _saved(checkpoint: str | Path | None, config: RunConfig) -> dict[str, Any] | None:
    """What the checkpoint holds, None where there is none yet."""
    if checkpoint is None:
        return None
    if not os.path.exists(checkpoint):
        with contextlib.suppress(OSError):
            Path(checkpoint).parent.mkdir(parents=True, exist_ok=True)
        return None
    saved = checkpoints.load(checkpoint)
    if saved.get("config") != config.to_json():
        raise UsageError(
            f"the checkpoint {checkpoint} belongs to another config; name another file, or delete "
            "it to begin again"
        )
    return saved
