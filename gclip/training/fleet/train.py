"""Train a fleet: `train_fleet` turns many configs into their results, as one program."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from gclip.core import registry, stopping
from gclip.core.players import parts_of
from gclip.errors import UsageError
from gclip.training import models
from gclip.training.checkpointer import Checkpointer, made_by
from gclip.training.config import RunConfig
from gclip.training.dataset import Dataset
from gclip.training.device import environment, reproducible, resolve_device
from gclip.training.fleet.run import FleetRun
from gclip.training.fleet.stack import unsupported_model
from gclip.training.identified import identified_config
from gclip.training.models.layers import draws_chance
from gclip.training.problem_data import ProblemData
from gclip.training.result import RunResult
from gclip.training.supervised import has_fast_path
from gclip.training.tasks import load_data, problem_of
from gclip.training.trainer import Progress

Listener = Callable[[int, Progress], "bool | None"]

_EVERY = 1.0  # seconds between two reports within an epoch
_OWN = (
    *("seed", "lr", "strategy", "code", "stepping"),
    *("label_noise", "gradient_noise", "spikes"),
)
_SHARED = tuple(field.name for field in dataclasses.fields(RunConfig) if field.name not in _OWN)


def fleet_key(config: RunConfig) -> tuple[Any, ...]:
    """What runs must have in common to be one fleet: all but seed, learning rate, strategy and
    disturbances."""
    return tuple(getattr(config, name) for name in _SHARED)


def unsupported(config: RunConfig) -> str:
    """Why a run cannot be in a fleet, in a sentence; empty where it can be."""
    problem = problem_of(config.task)
    if not has_fast_path(problem):
        return f"task {problem.name} makes its own steps, which are not stacked"
    if config.watch:
        return f"watch={config.watch} measures the layers of one run at a time"
    if any(part.side == "sample" for part in parts_of(registry.parse_for_run(config.strategy))):
        return f"{config.strategy} clips single examples, whose gradients are not stacked"
    if config.optimizer == "muon":
        return "muon makes one matrix of a step orthogonal at a time, so its runs are not stacked"
    return _unstackable(config.model, config.model_code, config.dropout)


@functools.cache
def _unstackable(model: str, _code: str, dropout: float) -> str:
    built = _of_some_inputs(model, dropout)
    if built is None:
        return f"the model {model} takes inputs for which it is not known whether it can be stacked"
    if draws_chance(built):
        return (
            f"the model {model} has dropout, and what a run drops is drawn anew in every pass, "
            "which many runs cannot do side by side"
        )
    return unsupported_model(built)


def _of_some_inputs(model: str, dropout: float) -> nn.Module | None:
    """The model for images, a sequence or features, whichever it takes first."""
    for inputs in ((3, 32, 32), (32, 4), (32,)):
        with contextlib.suppress(UsageError):
            return models.build(model, inputs, dropout=dropout)
    return None


def train_fleet(
    configs: Sequence[RunConfig],
    *,
    dataset: Dataset | ProblemData | None = None,
    data: str | Path | None = None,
    device: str = "auto",
    on_progress: Listener | None = None,
    on_result: Callable[[int, RunResult], None] | None = None,
    threads: int | None = None,
    checkpoint: Checkpointer | None = None,
) -> list[RunResult]:
    """Train runs of one shape as one program, their parameters stacked along a leading dimension.

    Each result is what `gclip.training.train` gives for its config, within floating-point
    tolerance; where training sits at the edge of stability, other last bits may lead elsewhere.
    Runs with the same seed share every batch, which makes the fleet faster.

    Args:
        configs: that differ in nothing but seed, learning rate, strategy and disturbances.
        dataset, data, device, threads: as in `gclip.training.train`.
        on_progress: told of each run about every second and at every epoch's end, with its index in
            `configs`; a run is pruned when it returns False at an epoch's end.
        on_result: given each result as soon as its run has ended: finished, diverged or pruned.
        checkpoint: keeps the state of the whole fleet. A fleet of the same configs in the same
            order goes on from it, to the same bits as if it had never stopped.

    Returns:
        The results in the order of `configs`; their ``seconds`` are each run's share of the time.
        Of a fleet that goes on from a checkpoint, those of the runs that had not ended by then.

    Raises:
        UsageError: the configs cannot be one fleet; or the data or the device cannot be used.
        FloatingPointError: gradients are not finite and ``config.nonfinite`` is ``raise``.

    Example:
        >>> config = RunConfig(strategy="norm", epochs=1, fraction=0.1)
        >>> configs = [config, config.replace(strategy="agc", lr=0.05)]
        >>> [result.config.strategy for result in train_fleet(configs, device="cpu")]
        ['norm', 'agc']
    """
    check_fleet(configs)
    where = resolve_device(device)
    images = dataset if dataset is not None else load_data(configs[0].task, data)
    known = [identified_config(config, images) for config in configs]
    if not isinstance(images, Dataset):
        raise UsageError(f"a fleet learns from a data set, but task {images.name} brings its own")
    saved = None if checkpoint is None else checkpoint.load(known)
    with reproducible(where, threads) as pinned, stopping.at_a_good_place():
        if checkpoint is not None and not checkpoint.accept(saved, made_by(where, pinned)):
            saved = None
        facts = {**environment(where, pinned), "fleet": len(known)}
        run, spent = FleetRun(known, images, where), [0.0] * len(known)
        if saved is not None and checkpoint is not None:
            try:
                run.load_state_dict(saved["run"])
                spent = list(saved["seconds"])
            except Exception as error:  # sealed, and yet no state of this fleet
                checkpoint.misfit(error)
                run = FleetRun(known, images, where)
        return _FleetLoop(run, on_progress, on_result, facts, checkpoint, spent).train()


def check_fleet(configs: Sequence[RunConfig]) -> None:
    """Check that the configs can be one fleet.

    Raises:
        UsageError: they cannot, naming the field and the values.
    """
    if not configs:
        raise UsageError("a fleet needs at least one run")
    for name in _SHARED:
        values = list(dict.fromkeys(getattr(config, name) for config in configs))
        if len(values) > 1:
            raise UsageError(
                f"runs of one fleet share their {name}, but got "
                f"{' and '.join(map(repr, values[:3]))}"
            )
    for reason in map(unsupported, dict.fromkeys(configs)):
        if reason:
            raise UsageError(f"these runs cannot be one fleet: {reason}")


class _FleetLoop:
    """The epochs of a fleet, and what is told about them."""

    def __init__(
        self,
        run: FleetRun,
        listener: Listener | None,
        on_result: Callable[[int, RunResult], None] | None,
        facts: dict[str, Any],
        keeper: Checkpointer | None,
        spent: list[float],
    ) -> None:
        self._run, self._listener, self._on_result, self._facts = run, listener, on_result, facts
        self._keeper, self._spent = keeper, spent
        self._results: dict[int, RunResult] = {}
        self._last = self._told = time.perf_counter()

    def train(self) -> list[RunResult]:
        run = self._run
        if run.epoch:
            self._tell_again()
        while run.present:
            run.train_epoch(self._within)
            going = [p for p in run.present if run.members[p].diverged_at is None]
            found = dict(zip(run.present, run.measure(), strict=True)) if going else {}
            self._share_time()
            for index in run.present:
                self._settle(index, found.get(index))
            self._leave()
            self._end_epoch()
        return [self._results[index] for index in sorted(self._results)]

    def _end_epoch(self) -> None:
        """Save if it is time; stop here if that is wanted, and there is something left to do."""
        keeper, going = self._keeper, bool(self._run.present)
        if keeper is not None:
            keeper.end_epoch(self._state, is_last=not going, hold=False)
        if stopping.is_wanted() and going:
            if keeper is not None:
                keeper.stop(self._state)
            stopping.obey()

    def _state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        run = self._run
        return {
            "present": list(run.present),
            "epoch": run.epoch,
            "step": run.step,
            "steps": run.steps,
            "seconds": list(self._spent),
            "run": run.state_dict(),
        }

    def _tell_again(self) -> None:
        """Tell of the epochs that were made before the fleet was stopped, as whoever decides
        whether runs go on has perhaps forgotten them."""
        run = self._run
        for index in run.present:
            member = run.members[index]
            if not all(self._tell(index, "running", point=p) for p in member.history.curve):
                member.end("pruned", f"stopped by the caller at step {member.step}")
        self._leave()

    def _within(self) -> None:
        """After a step: save if it is time, and say how far it is, as an epoch may be long."""
        keeper, stops = self._keeper, stopping.is_wanted()
        if (stops or (keeper is not None and keeper.is_due())) and self._run.look():
            self._share_time()
            if keeper is not None:
                keeper.save(self._state)
            stopping.obey()
        if self._listener is None or time.perf_counter() - self._told < _EVERY:
            return
        for index in self._run.present:
            if self._run.members[index].diverged_at is None:
                self._tell(index, "running", self._run.step)

    def _settle(self, index: int, found: tuple[float, float] | None) -> None:
        """One run at an epoch's end: what it scores, and whether it goes on."""
        member, run = self._run.members[index], self._run
        if member.diverged_at is None and found is not None:
            member.history.add_evaluation(member.step, *found, self._spent[index])
        if member.diverged_at is not None:
            member.end_diverged(self._spent[index])
            self._tell(index, "diverged")
        elif run.epoch == run.config.epochs:
            member.end("finished", "")
            self._tell(index, "finished")
        elif not self._tell(index, "running"):
            member.end("pruned", f"stopped by the caller at step {member.step}")

    def _leave(self) -> None:
        """Give the results of the runs that have ended, and go on without them."""
        run = self._run
        stay = [i for i, index in enumerate(run.present) if run.members[index].status is None]
        if len(stay) == len(run.present):
            return
        for index, record in zip(run.present, run.records(), strict=True):
            if run.members[index].status is not None:
                facts = {**self._facts, **run.backward.facts}
                result = run.members[index].result(
                    record, seconds=self._spent[index], environment=facts
                )
                self._results[index] = result
                if self._on_result is not None:
                    self._on_result(index, result)
        if stay:
            run.select_runs(stay)
        else:
            run.select_none()

    def _share_time(self) -> None:
        now = time.perf_counter()
        for index in self._run.present:
            self._spent[index] += (now - self._last) / len(self._run.present)
        self._last = now

    def _tell(self, index: int, status: Any, step: int | None = None, point: Any = None) -> bool:
        """Report of a run; False when the caller wants it to stop.

        Args:
            index: of the run.
            status: of it.
            step: within an epoch.
            point: of the curve, the end of an earlier epoch to tell of; None for now.
        """
        if self._listener is None:
            return True
        run, member = self._run, self._run.members[index]
        history = member.history
        epoch = run.epoch if status != "diverged" else history.curve[-1]["epoch"] - 1
        told = history.now(epoch, member.step if step is None else step)
        if point is not None:
            told = history.then(point)
        progress = Progress(
            **told, epochs=run.config.epochs, steps=run.steps, status=status, metric=history.metric
        )
        answer = self._listener(index, progress)
        self._told = time.perf_counter()
        return answer is not False
